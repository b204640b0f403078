//! The DNS in `status`, and `status dns`.

use std::fmt::Write;
use std::net::SocketAddr;

use weave_api::OneLine;
use weave_api::names::{NameEntry, OwnName, ShortId, SidecarStatus};

use super::peer;
use super::summary::NAME_WIDTH;
use crate::commands::dns::shown;

/// The block of the DNS, if it is to run, and a line for each name of this host. `is_kept`: there is
/// a keeper that starts it again.
pub fn dns(sidecar: Option<std::io::Result<SidecarStatus>>, is_kept: bool, own: &[OwnName]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{name:>NAME_WIDTH$}: {}", OneLine(&value.to_string()));
    };
    match sidecar {
        None => {}
        Some(Err(error)) => {
            line("Service", &"dns");
            let remedy = if is_kept {
                "it is started again"
            } else {
                "no keeper runs that starts it again: `weave launch-dns` starts both"
            };
            line("State", &format_args!("does not answer ({error}); {remedy}"));
        }
        Some(Ok(status)) => {
            line("Service", &"dns");
            let version = status.software.as_ref().map_or("unknown", |software| &software.version);
            line("Version", &format_args!("{version} (process {})", status.pid));
            line("Domain", &format_args!("{}.", status.domain));
            line("Listening", &addresses(&status.listening));
            for failure in &status.not_listening {
                line("NotListening", failure);
            }
            line("Upstream", &addresses(&status.upstream));
            line("TTL", &status.ttl_s);
            line("Entries", &status.entries);
            if let Some(seconds) = status.router_lost_s {
                line("Router", &format_args!("lost {seconds} s ago: names of other hosts hold as they were"));
            }
        }
    }
    let mut text = if text.is_empty() { text } else { format!("\n{text}") };
    if !own.is_empty() {
        text.push('\n');
    }
    for name in own {
        let _ = writeln!(text, "{} {} {}.", OneLine(shown(&name.container)), name.address, name.name);
    }
    text
}

fn addresses(list: &[SocketAddr]) -> String {
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

/// A line for each name: name, address, container, the host that says so.
pub fn names(list: &[NameEntry]) -> String {
    let width = list.iter().map(|one| one.name.as_str().len() + 1).max().unwrap_or(0);
    let address_width = list.iter().map(|one| one.address.to_string().len()).max().unwrap_or(0);
    let mut text = String::new();
    for one in list {
        let (name, address) = (format!("{}.", one.name), one.address.to_string());
        let container =
            if one.container == ShortId::default() { "-".to_owned() } else { one.container.to_string() };
        let origin = peer(one.origin, one.nickname.as_ref());
        let _ = writeln!(text, "{name:width$} {address:address_width$} {container:12} {origin}");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_name_has_a_line_of_its_own() {
        let entry = |name: &str, address: &str, container| NameEntry {
            name: name.parse().unwrap(),
            address: address.parse().unwrap(),
            container: ShortId(container),
            origin: "02:00:00:00:00:01".parse().unwrap(),
            nickname: Some("host1".parse().unwrap()),
        };
        let list = [
            entry("a.weave.local", "10.2.1.1", [1, 2, 3, 4, 5, 6]),
            entry("longer.weave.local", "fd00::1", [0; 6]),
        ];
        assert_eq!(
            names(&list),
            "a.weave.local.      10.2.1.1 010203040506 02:00:00:00:00:01(host1)\n\
             longer.weave.local. fd00::1  -            02:00:00:00:00:01(host1)\n"
        );
    }

    #[test]
    fn names_of_this_host_begin_with_their_container() {
        let own = OwnName {
            name: "a.weave.local".parse().unwrap(),
            address: "10.2.1.1".parse().unwrap(),
            container: "0123456789abcdef".repeat(4),
        };
        assert_eq!(dns(None, true, &[own]), "\n0123456789ab 10.2.1.1 a.weave.local.\n");
        assert_eq!(dns(None, true, &[]), "");
    }
}
