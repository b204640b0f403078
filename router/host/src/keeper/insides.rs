//! What is inside containers: whether `ethwe` is as it is remembered, or somebody changed it. It is its
//! container's, so it is told and not put right.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::EVERYTHING_EVERY;
use crate::attach::CONTAINER_INTERFACE;
use crate::engine::ContainerId;
use crate::error::Result;
use crate::firewall::Degraded;
use crate::netlink::{Link, OtherEnds};
use crate::records::{self, Record, Records};

/// Attachments that are looked at in one turn, at most, and the time between two turns: a thousand take
/// four turns.
const LOOKED_MAX: usize = 256;
const TURNS_APART: Duration = Duration::from_millis(500);
/// Of those at most so many that are known to be changed.
const CHANGED_MAX: usize = LOOKED_MAX / 2;
/// Changed ones that are named in the status, and addresses that are named of one, at most.
const NAMED: usize = 8;
const CIDRS_NAMED: usize = 16;

/// Those of this host.
#[derive(Debug, Default)]
pub(super) struct Insides {
    /// The hosts' ends as they were seen last: index, and whether there is a carrier. Without one the
    /// other end is down.
    ends: HashMap<String, (u32, bool)>,
    /// Hosts' ends whose other ends are to be looked at.
    waiting: VecDeque<String>,
    /// When all of them are to be looked at, and when the next turn may be.
    all_at: Option<Instant>,
    turn_at: Option<Instant>,
    /// What is otherwise, by host's end.
    changed: BTreeMap<String, Vec<String>>,
}

impl Insides {
    /// Takes note of the hosts' ends: those that are new or have another carrier come first.
    pub(super) fn note(&mut self, ports: &[&Link]) {
        let mut before = std::mem::take(&mut self.ends);
        for port in ports {
            let now = (port.index, port.running);
            if before.remove(&port.name) != Some(now) && !self.waiting.contains(&port.name) {
                self.waiting.push_front(port.name.clone());
            }
            self.ends.insert(port.name.clone(), now);
        }
        self.changed.retain(|name, _| self.ends.contains_key(name));
        let now = Instant::now();
        // Else some would never have their turn.
        if self.waiting.is_empty() && self.all_at.is_none_or(|at| now >= at) {
            self.waiting.extend(self.ends.keys().cloned());
            self.all_at = Some(now + EVERYTHING_EVERY / 2);
        }
    }

    /// Whether some are to be looked at.
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.changed.is_empty()
    }

    /// Looks at some of them, if it is time to.
    ///
    /// # Errors
    /// When the kernel refuses or the state cannot be read.
    pub(super) fn take_turn(&mut self, state_dir: &Path) -> Result<()> {
        let now = Instant::now();
        if !self.has_work() || self.turn_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.turn_at = Some(now + TURNS_APART);
        let mut names: Vec<String> = self.changed.keys().take(CHANGED_MAX).cloned().collect();
        while names.len() < LOOKED_MAX
            && let Some(name) = self.waiting.pop_front()
        {
            names.push(name);
        }
        let mut ends = OtherEnds::open()?;
        let (records, _damaged) = records::read_all(state_dir)?;
        let found = differences(&mut ends, &records, &names)?;
        if found.iter().all(|(name, texts)| self.changed.get(name).map_or(&[][..], Vec::as_slice) == texts) {
            return Ok(());
        }
        // Again: no command is at it now.
        let records = Records::open(state_dir)?;
        for (name, texts) in differences(&mut ends, records.all(), &names)? {
            let known = self.changed.get(&name);
            for text in texts.iter().filter(|text| known.is_none_or(|known| !known.contains(text))) {
                tracing::warn!("changed inside a container: {text}");
            }
            if texts.is_empty() {
                self.changed.remove(&name);
            } else {
                self.changed.insert(name, texts);
            }
        }
        Ok(())
    }

    /// How many attachments are otherwise, and which.
    pub(super) fn told(&self) -> (u64, Option<Degraded>) {
        let texts: Vec<&str> = self.changed.values().flatten().map(String::as_str).collect();
        let mut reason = texts[..texts.len().min(NAMED)].join("; ");
        if texts.len() > NAMED {
            reason += &format!("; and {} more", texts.len() - NAMED);
        }
        (texts.len() as u64, (!texts.is_empty()).then_some(Degraded { name: "attachment_changed", reason }))
    }
}

/// For each of these hosts' ends what of its attachments is otherwise than is remembered.
fn differences(
    ends: &mut OtherEnds,
    records: &[Record],
    names: &[String],
) -> Result<Vec<(String, Vec<String>)>> {
    let mut of: HashMap<String, Vec<&Record>> = HashMap::new();
    for record in records {
        of.entry(record.host_interface()).or_default().push(record);
    }
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let texts = of.get(name).map_or_else(|| Ok(Vec::new()), |records| of_one(ends, name, records))?;
        found.push((name.clone(), texts));
    }
    Ok(found)
}

/// The same of one, which several containers may share.
fn of_one(ends: &mut OtherEnds, name: &str, records: &[&Record]) -> Result<Vec<String>> {
    // A command that was killed over it is for others to end.
    if records.iter().any(|record| record.pending.is_some()) {
        return Ok(Vec::new());
    }
    let Some(end) = ends.of(name)? else { return Ok(Vec::new()) };
    let mut held: Vec<IpNet> = Vec::new();
    for ipv6 in [false, true] {
        if records.iter().flat_map(|record| &record.cidrs).any(|cidr| cidr.addr().is_ipv6() == ipv6) {
            let Some(addresses) = ends.addresses(&end, ipv6)? else { return Ok(Vec::new()) };
            held.extend(addresses.iter().map(|address| address.cidr));
        }
    }
    let texts = records.iter().filter_map(|record| text(&end.link, &held, record, records));
    Ok(texts.collect())
}

/// What is otherwise of one container, and what puts it right.
fn text(link: &Link, held: &[IpNet], record: &Record, shared: &[&Record]) -> Option<String> {
    let mut what = Vec::new();
    let is_renamed = link.name != CONTAINER_INTERFACE;
    if is_renamed {
        what.push(format!("is called {}", link.name));
    }
    if !link.up {
        what.push("is down".to_owned());
    }
    if let Some(mac) = link.mac.filter(|mac| shared.iter().all(|one| one.mac != *mac)) {
        what.push(format!("has the MAC {mac} instead of {}", record.mac));
    }
    let mtus: Vec<u32> = shared.iter().filter_map(|one| one.mtu).collect();
    if let Some(mtu) = record.mtu.filter(|_| !mtus.contains(&link.mtu)) {
        what.push(format!("has the MTU {} instead of {mtu}", link.mtu));
    }
    let lacks: Vec<&IpNet> = record.cidrs.iter().filter(|cidr| !held.contains(cidr)).collect();
    if !lacks.is_empty() {
        what.push(format!("lacks {}", listed(&lacks, ", ")));
    }
    if what.is_empty() {
        return None;
    }
    let all: Vec<&IpNet> = record.cidrs.iter().collect();
    let again = if is_renamed {
        &all[..]
    } else if lacks.is_empty() {
        &all[..all.len().min(1)]
    } else {
        &lacks[..]
    };
    let id: Option<ContainerId> = record.container.parse().ok();
    let container = id.as_ref().map_or(record.container.as_str(), ContainerId::short);
    Some(format!(
        "{CONTAINER_INTERFACE} of {container} {}: `weave attach {} {container}` puts it right",
        what.join(", "),
        listed(again, " ")
    ))
}

fn listed(cidrs: &[&IpNet], between: &str) -> String {
    let cidrs: Vec<String> = cidrs.iter().take(CIDRS_NAMED).map(ToString::to_string).collect();
    cidrs.join(between)
}
