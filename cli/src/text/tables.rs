//! `status targets`, `status routes` and `status macs`.

use std::fmt::Write;

use weave_api::OneLine;
use weave_api::status::{MacEntry, MacSource, Route, TargetState, TargetStatus};

use super::{next_try, peer};

/// A line for each target: as typed, state, why.
pub fn targets(list: &[TargetStatus]) -> String {
    let width = list.iter().map(|one| one.target.to_string().len()).max().unwrap_or(0).max(21);
    let mut text = String::new();
    for one in list {
        let state = match one.state {
            TargetState::Connecting => "connecting",
            TargetState::Connected => "connected",
            TargetState::Retrying => "retrying",
            TargetState::Ourself => "ourself",
        };
        let reason = one.reason.as_deref().unwrap_or_default();
        let separator = if reason.is_empty() { "" } else { " " };
        let retry = next_try(one.retry_in_s);
        let retry = if reason.is_empty() { retry.replacen("; ", " ", 1) } else { retry };
        let target = one.target.to_string();
        let _ = writeln!(text, "{target:width$} {state:10}{separator}{}{retry}", OneLine(reason));
    }
    trim_ends(&text)
}

/// A line for each peer: who is next on the way, how many links it has, its weakest.
pub fn routes(list: &[Route]) -> String {
    let width = list.iter().map(|one| peer(one.peer, Some(&one.nickname)).len()).max().unwrap_or(0);
    let via = |one: &Route| match one.via == one.peer {
        true => "direct".to_owned(),
        false => format!("via {}", peer(one.via, Some(&one.via_nickname))),
    };
    let via_width = list.iter().map(|one| via(one).len()).max().unwrap_or(0);
    let mut text = String::new();
    for one in list {
        let name = peer(one.peer, Some(&one.nickname));
        let sealed = if one.encrypted { "encrypted" } else { "unencrypted" };
        let hops = if one.hops == 1 { "hop " } else { "hops" };
        let _ = writeln!(text, "{name:width$} {:via_width$} {:2} {hops} {sealed}", via(one), one.hops);
    }
    text
}

/// A line for each station: address, peer, how it is known, how long ago it spoke.
pub fn macs(list: &[MacEntry]) -> String {
    let width = list.iter().map(|one| peer(one.peer, Some(&one.nickname)).len()).max().unwrap_or(0);
    let mut text = String::new();
    for one in list {
        let source = match one.source {
            MacSource::Learned => "learned",
            MacSource::Attached => "attached",
        };
        let name = peer(one.peer, Some(&one.nickname));
        let _ = writeln!(text, "{} {name:width$} {source:8} {} s", one.mac, one.idle_s);
    }
    text
}

fn trim_ends(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
