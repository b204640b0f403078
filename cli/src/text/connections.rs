//! `status connections`: one line for each link.

use std::fmt::Write;

use weave_api::OneLine;
use weave_api::status::{Connection, ConnectionState, Direction};

use super::{next_try, peer};

/// Width of the address column at least, characters.
const ADDRESS_WIDTH: usize = 21;

/// Arrow, address, state, then what is known of the link.
pub fn connections(list: &[Connection]) -> String {
    let longest = list.iter().map(|link| link.address.to_string().len()).max().unwrap_or(0);
    let width = longest.max(ADDRESS_WIDTH);
    let mut text = String::new();
    for link in list {
        let address = link.address.to_string();
        let line =
            format!("{} {address:width$} {:11} {}", arrow(link.direction), state(link.state), details(link));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Out or in.
pub fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "->",
        Direction::Inbound => "<-",
    }
}

/// The name of a state.
pub fn state(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Connecting => "connecting",
        ConnectionState::Pending => "pending",
        ConnectionState::Established => "established",
        ConnectionState::Retrying => "retrying",
        ConnectionState::Failed => "failed",
    }
}

fn details(link: &Connection) -> String {
    let mut parts = Vec::new();
    if let Some(encrypted) = link.encrypted {
        parts.push(format!("{:11}", if encrypted { "encrypted" } else { "unencrypted" }));
    }
    if let Some(name) = link.peer {
        parts.push(peer(name, link.nickname.as_ref()));
    }
    if let Some(mtu) = link.mtu {
        parts.push(format!("mtu={mtu}"));
    }
    if let Some(rtt) = link.rtt_us {
        parts.push(format!("rtt={}.{:02}ms", rtt / 1000, rtt % 1000 / 10));
    }
    if !link.degraded.is_empty() {
        let names: Vec<&str> = link.degraded.iter().map(|degraded| degraded.name.as_str()).collect();
        parts.push(format!("degraded={}", OneLine(&names.join(","))));
    }
    if let Some(reason) = &link.reason {
        parts.push(format!("{}{}", OneLine(reason), next_try(link.retry_in_s)));
    } else if link.retry_in_s.is_some() {
        parts.push(next_try(link.retry_in_s).trim_start_matches("; ").to_owned());
    }
    parts.join(" ")
}
