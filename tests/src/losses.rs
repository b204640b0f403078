//! What the kernel itself dropped: no fault of a router, and rare on a machine that is not busy.

use std::collections::BTreeMap;
use std::fs::read_to_string;

use crate::World;

/// Counters of drops in hosts and containers, and of the processors' backlogs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelDrops(BTreeMap<String, u64>);

impl KernelDrops {
    /// As they stand now.
    #[must_use]
    pub fn read(world: &World) -> Self {
        let mut counters = BTreeMap::new();
        for index in world.indices() {
            let mut found = vec![("host".to_owned(), world.on_host(index, of_this_namespace))];
            for (number, container) in world.containers_of(index).iter().enumerate() {
                found
                    .push((format!("container {number} of host"), container.run(of_this_namespace).unwrap()));
            }
            for (place, found) in found {
                counters.extend(found.into_iter().map(|(name, n)| (format!("{place} {index} {name}"), n)));
            }
        }
        // Of the whole machine: it has one backlog for each processor.
        let text = read_to_string("/proc/net/softnet_stat").unwrap_or_default();
        let dropped = text.lines().filter_map(|line| line.split_whitespace().nth(1));
        let dropped = dropped.filter_map(|word| u64::from_str_radix(word, 16).ok()).sum();
        counters.insert("backlog of the processors".into(), dropped);
        Self(counters)
    }

    /// What was added since `before`, without what stayed as it was.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let grown = |(name, now): (&String, &u64)| {
            let new = now.saturating_sub(before.0.get(name).copied().unwrap_or(0));
            (new > 0).then(|| (name.clone(), new))
        };
        Self(self.0.iter().filter_map(grown).collect())
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Packets that devices and UDP sockets of the calling thread's namespace dropped.
fn of_this_namespace() -> Vec<(String, u64)> {
    let mut counters = Vec::new();
    for line in read_to_string("/proc/thread-self/net/dev").unwrap().lines() {
        let Some((device, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        for (what, column) in [("received", 3), ("sent", 11)] {
            let dropped = numbers.get(column).and_then(|word| word.parse().ok()).unwrap_or(0);
            counters.push((format!("{} {what}", device.trim()), dropped));
        }
    }
    // UDP sockets that had no room: one line of names, one of numbers; IPv6 a line for each.
    let text = read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    if let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let pairs = names.split_whitespace().zip(values.split_whitespace());
        for (name, value) in pairs.filter(|(name, _)| name.ends_with("bufErrors")) {
            counters.push((name.to_owned(), value.parse().unwrap_or(0)));
        }
    }
    for line in read_to_string("/proc/thread-self/net/snmp6").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        if let (Some(name @ ("Udp6RcvbufErrors" | "Udp6SndbufErrors")), Some(value)) =
            (words.next(), words.next())
        {
            counters.push((name.to_owned(), value.parse().unwrap_or(0)));
        }
    }
    counters
}
