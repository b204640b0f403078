//! How it is drawn: works from 80 columns and 24 lines on.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use weave_api::OneLine;
use weave_api::status::{ConnectionState, Status};

use super::model::{Order, Row, View};
use crate::text::state;

/// Reasons of drops that are shown, at most.
const REASONS: usize = 5;
/// Lines of the head.
const HEAD: u16 = 3;

const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, view: &mut View, now: Instant) {
    let drops = view.drops();
    let shown = drops.len().clamp(1, REASONS);
    #[expect(clippy::cast_possible_truncation, reason = "a few")]
    let below = shown as u16 + 1;
    let [head, links, below, keys] = Layout::vertical([
        Constraint::Length(HEAD),
        Constraint::Min(4),
        Constraint::Length(below),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(summary(view, now)), head);
    draw_links(frame, view, links);
    let lines: Vec<_> = if drops.is_empty() {
        vec![Line::styled("nothing", FAINT)]
    } else {
        let line = |drops: &super::model::Drops| {
            let text = format!(
                "{:<24} {:>14} {:>12}/s",
                OneLine(&drops.reason).to_string(),
                drops.total,
                count(drops.rate)
            );
            Line::styled(text, if drops.rate > 0.0 { Style::new().fg(Color::Yellow) } else { Style::new() })
        };
        drops.iter().take(REASONS).map(line).collect()
    };
    let block = Block::new().borders(Borders::TOP).title(" dropped ");
    frame.render_widget(Paragraph::new(lines).block(block), below);
    let order = match view.order() {
        Order::Name => "name",
        Order::Rate => "rate",
        Order::RoundTrip => "round trip",
    };
    let keys_text = format!("q quit   s sort (by {order})   up/down scroll");
    frame.render_widget(Paragraph::new(Line::styled(keys_text, FAINT)), keys);
}

fn summary(view: &View, now: Instant) -> Vec<Line<'static>> {
    let status = view.status();
    let network = if status.encrypted { "encrypted" } else { "clear" };
    let mut first = vec![
        Span::styled(status.nickname.to_string(), BOLD),
        Span::raw(format!(
            "  {}  weave {}  {network}  up {}",
            status.name,
            OneLine(&status.version),
            uptime(status.uptime_s)
        )),
    ];
    if let Some((why, age)) = view.lost(now) {
        let text = format!("  NO ANSWER for {} s: {}", age.as_secs(), OneLine(why));
        first.push(Span::styled(text, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)));
    }
    let established =
        status.connections.iter().filter(|link| link.state == ConnectionState::Established).count();
    let total = |of: fn(&Row) -> f64| bits(view.rows().iter().map(of).sum());
    let second = format!(
        "links {established} of {}  peers {}  stations {}  out {}  in {}",
        status.connections.iter().filter(|link| !link.is_refused()).count(),
        status.peers.len(),
        status.macs.len(),
        total(|row| row.bits.0),
        total(|row| row.bits.1)
    );
    vec![Line::from(first), Line::raw(second), degraded(status)]
}

fn degraded(status: &Status) -> Line<'static> {
    let names: Vec<_> = status.degraded.iter().map(|degraded| OneLine(&degraded.name).to_string()).collect();
    if names.is_empty() {
        return Line::raw("");
    }
    Line::styled(format!("degraded: {}", names.join(" ")), Style::new().fg(Color::Yellow))
}

fn draw_links(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    let rows = view.rows();
    // Border and titles of columns.
    let room = usize::from(area.height.saturating_sub(2));
    let first = view.first(rows.len(), room);
    let title = if rows.len() > room && room > 0 {
        format!(" links {}-{} of {} ", first + 1, (first + room).min(rows.len()), rows.len())
    } else {
        " links ".to_owned()
    };
    let mut lines = vec![Line::styled(line("PEER", "STATE", "SEAL", FIGURES, area.width), BOLD)];
    lines.extend(rows.iter().skip(first).take(room).map(|row| link(row, area.width)));
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Titles of the figures, as wide as the figures.
const FIGURES: &str = "RTT       OUT          IN           FRAMES/s   ";
/// Columns of all but the peer.
const REST: u16 = 66;

/// One line of the table.
fn line(peer: &str, state: &str, sealed: &str, rest: &str, width: u16) -> String {
    let peer_width = usize::from(width.saturating_sub(REST)).max(8);
    format!("{peer:<peer_width$.peer_width$} {state:<11} {sealed:<4} {rest}")
}

fn link(row: &Row, width: u16) -> Line<'static> {
    let sealed = match row.encrypted {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    let style = match row.state {
        ConnectionState::Established if row.note.is_empty() => Style::new(),
        ConnectionState::Established => Style::new().fg(Color::Yellow),
        ConnectionState::Connecting | ConnectionState::Pending => FAINT,
        ConnectionState::Retrying | ConnectionState::Failed => Style::new().fg(Color::Red),
    };
    let rest = if row.state == ConnectionState::Established {
        let rtt = row.rtt_us.map_or_else(String::new, |us| format!("{}.{:02} ms", us / 1000, us % 1000 / 10));
        let frames = format!("{}/{}", count(row.frames.0), count(row.frames.1));
        format!("{rtt:<9} {:<12} {:<12} {frames}", bits(row.bits.0), bits(row.bits.1))
    } else {
        // The reason takes the place of the figures.
        OneLine(&row.note).to_string()
    };
    Line::styled(line(&OneLine(&row.peer).to_string(), state(row.state), sealed, &rest, width), style)
}

/// Bits a second, as network equipment shows them.
fn bits(rate: f64) -> String {
    for (unit, name) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if rate >= unit {
            return format!("{:.1} {name}bit/s", rate / unit);
        }
    }
    format!("{rate:.0} bit/s")
}

fn count(rate: f64) -> String {
    for (unit, name) in [(1e6, "M"), (1e4, "k")] {
        if rate >= unit {
            let divisor = if name == "k" { 1e3 } else { unit };
            return format!("{:.1}{name}", rate / divisor);
        }
    }
    format!("{rate:.0}")
}

fn uptime(seconds: u64) -> String {
    let time = Duration::from_secs(seconds).as_secs();
    match (time / 86_400, time / 3600 % 24, time / 60 % 60, time % 60) {
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes:02}m"),
        (days, hours, ..) => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::text::sample;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(view: &mut View, now: Instant) -> String {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, view, now)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_fits_in_80_by_24() {
        let begin = Instant::now();
        let mut view = View::new(sample::status(), begin);
        let mut second = sample::status();
        second.connections[0].tx_bytes += 500_000_000;
        second.connections[0].tx_frames += 400_000;
        second.shards[1].drops.insert("no_buffer".into(), 209);
        view.add(second, begin + Duration::from_secs(1));
        insta::assert_snapshot!(drawn(&mut view, begin));
    }

    #[test]
    fn a_router_that_does_not_answer_is_said_to_be_gone() {
        let begin = Instant::now();
        let mut view = View::new(sample::status(), begin);
        view.lose("nobody\nlistens".into());
        let text = drawn(&mut view, begin + Duration::from_secs(7));
        assert!(text.contains("NO ANSWER for 7 s"), "{text}");
    }

    #[test]
    fn rates_and_times_are_short() {
        assert_eq!(
            (bits(999.0), bits(1e3), bits(25.04e9)),
            ("999 bit/s".into(), "1.0 kbit/s".into(), "25.0 Gbit/s".into())
        );
        assert_eq!(
            (count(9999.0), count(10_000.0), count(2.5e6)),
            ("9999".into(), "10.0k".into(), "2.5M".into())
        );
        assert_eq!(
            (uptime(61), uptime(3700), uptime(90_000)),
            ("1m01s".into(), "1h01m".into(), "1d01h".into())
        );
    }
}
