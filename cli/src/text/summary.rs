//! Bare `status`: blocks of right-aligned names and their values.

use std::fmt::Write;

use weave_api::OneLine;
use weave_api::status::{ConnectionState, Degraded, Status};

use super::connections::state;
use super::peer;

/// Width of the names, characters.
pub(super) const NAME_WIDTH: usize = 15;

/// Version, then the router.
pub fn summary(status: &Status) -> String {
    let mut text = format!("{:>NAME_WIDTH$}: {}\n\n", "Version", OneLine(&status.version));
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let value = value.to_string();
        let _ = writeln!(text, "{name:>NAME_WIDTH$}: {}", OneLine(&value));
    };
    line("Service", &"router");
    let (lowest, highest) = status.protocol;
    line("Protocol", &format_args!("weave {lowest}..{highest}"));
    line("Name", &peer(status.name, Some(&status.nickname)));
    line("Encryption", &on(status.encrypted));
    line("PeerDiscovery", &on(status.discovery));
    line("Port", &status.port);
    line("MTU", &status.mtu);
    line("Shards", &shards(status));
    line("Targets", &status.targets.len());
    line("Connections", &connections(status));
    line("Peers", &peers(status));
    line("TrustedSubnets", &list(status.trusted_subnets.iter(), "none"));
    line("Guard", &guard(status));
    line("Keeper", &keeper(status));
    line("Dropped", &drops(status));
    for (name, degraded) in all_degraded(status) {
        line("Degraded", &format_args!("{name}{}", of(degraded)));
    }
    text
}

/// Whether containers are guarded, and what that dropped.
fn guard(status: &Status) -> String {
    match status.keeper.as_ref().map(|keeper| keeper.guard) {
        Some(Some(guard)) => format!("enabled ({} frames dropped)", guard.dropped),
        Some(None) => "disabled".to_owned(),
        None => "unknown".to_owned(),
    }
}

fn keeper(status: &Status) -> String {
    let Some(keeper) = &status.keeper else { return "unknown".to_owned() };
    let firewall = keeper.firewall.as_ref().map_or_else(String::new, |with| format!(", rules by {with}"));
    format!("{} (process {}{firewall})", keeper.software.version, keeper.pid)
}

fn on(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

fn list(items: impl Iterator<Item = impl ToString>, none: &str) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}

/// How many, and on which cores.
fn shards(status: &Status) -> String {
    let cores = list(status.shards.iter().filter_map(|shard| shard.core), "");
    let count = status.shards.len();
    if cores.is_empty() { count.to_string() } else { format!("{count} (cores {cores})") }
}

/// How many in all, and in which states.
fn connections(status: &Status) -> String {
    let mut counts: Vec<(ConnectionState, usize)> = Vec::new();
    for link in &status.connections {
        match counts.iter_mut().find(|(state, _)| *state == link.state) {
            Some((_, count)) => *count += 1,
            None => counts.push((link.state, 1)),
        }
    }
    counts.sort_unstable();
    let parts = list(counts.iter().map(|(of, count)| format!("{count} {}", state(*of))), "");
    let total = status.connections.len();
    if parts.is_empty() { total.to_string() } else { format!("{total} ({parts})") }
}

/// How many peers, and how many links they have among each other.
fn peers(status: &Status) -> String {
    let links = status.peers.iter().flat_map(|peer| &peer.connections);
    let established = links.filter(|link| link.established).count();
    format!("{} (with {established} established connections)", status.peers.len())
}

/// How many frames and datagrams, the most frequent reasons first.
fn drops(status: &Status) -> String {
    let mut reasons = std::collections::BTreeMap::<&str, u64>::new();
    for (reason, count) in status.shards.iter().flat_map(|shard| &shard.drops) {
        let sum = reasons.entry(reason).or_default();
        *sum = sum.saturating_add(*count);
    }
    let mut reasons: Vec<_> = reasons.into_iter().filter(|(_, count)| *count > 0).collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let total = reasons.iter().fold(0u64, |total, (_, count)| total.saturating_add(*count));
    let parts = list(reasons.iter().map(|(reason, count)| format!("{count} {reason}")), "");
    if parts.is_empty() { total.to_string() } else { format!("{total} ({parts})") }
}

/// The router's degraded states and those of its links, which are named.
fn all_degraded(status: &Status) -> impl Iterator<Item = (String, &Degraded)> {
    let own = status.degraded.iter().map(|degraded| (String::new(), degraded));
    let links = status.connections.iter().flat_map(|link| {
        let who =
            link.peer.map_or_else(|| link.address.to_string(), |name| peer(name, link.nickname.as_ref()));
        link.degraded.iter().map(move |degraded| (format!("{who} "), degraded))
    });
    own.chain(links)
}

fn of(degraded: &Degraded) -> String {
    format!("{} for {} s: {}", degraded.name, degraded.since_s, degraded.reason)
}
