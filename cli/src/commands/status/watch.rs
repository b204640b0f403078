//! `weave status --watch`: links, rates, latencies and drops, live.

mod model;
mod screen;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use weave_api::{Client, ClientError, client::TIME_LIMIT};

use crate::environment::Environment;
use crate::failure::{Failure, Result};
use model::View;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// Shows the state until a key ends it.
pub fn run(environment: &Environment) -> Result<()> {
    if !io::stdout().is_terminal() {
        let remedy = "`weave status -o json`, or `/metrics` over HTTP, are for programs";
        return Err(Failure::usage("cannot watch the status", "standard output is no terminal", remedy));
    }
    let run_dir = environment.run_dir()?;
    let failed = |error: ClientError| Failure::of_client("cannot watch the status", &run_dir, &error);
    let mut view = View::new(ask(&run_dir, &mut None).map_err(failed)?, Instant::now());
    let mut terminal =
        ratatui::try_init().map_err(|error| Failure::because("cannot use the terminal", error))?;
    let shown = watch(&mut terminal, &run_dir, &mut view);
    ratatui::restore();
    shown.map_err(|error| Failure::because("cannot use the terminal", error))
}

fn watch(terminal: &mut ratatui::DefaultTerminal, run_dir: &Path, view: &mut View) -> io::Result<()> {
    let mut client = None;
    let mut next = Instant::now() + EVERY;
    loop {
        terminal.draw(|frame| screen::draw(frame, view, Instant::now()))?;
        // At once after a key, else when it is time to look.
        if event::poll(next.saturating_duration_since(Instant::now()))? {
            if let Event::Key(key) = event::read()?
                && !on_key(key, view)
            {
                return Ok(());
            }
            continue;
        }
        next = Instant::now() + EVERY;
        match ask(run_dir, &mut client) {
            Ok(status) => view.add(status, Instant::now()),
            // It may come back: what was there stays, and its age is shown.
            Err(error) => {
                client = None;
                view.lose(error.to_string());
            }
        }
    }
}

fn ask(run_dir: &Path, client: &mut Option<Client>) -> Result<weave_api::Status, ClientError> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect(run_dir, TIME_LIMIT)?),
    };
    client.status()
}

/// False if the key ends it.
#[expect(clippy::wildcard_enum_match_arm, reason = "other keys do nothing")]
fn on_key(key: KeyEvent, view: &mut View) -> bool {
    if key.kind == KeyEventKind::Release {
        return true;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char('s') => view.sort_next(),
        KeyCode::Down | KeyCode::Char('j') => view.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => view.scroll(-1),
        KeyCode::PageDown => view.scroll(10),
        KeyCode::PageUp => view.scroll(-10),
        _ => {}
    }
    true
}
