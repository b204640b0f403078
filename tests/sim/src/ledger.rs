//! What is true, and what was seen of it.

use crate::frames::{Drop, Frame};
use crate::identity::Who;
use crate::network::HostId;
use crate::world::Attached;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use weave_wire::link::gossip::NameEntry;
use weave_wire::{HostName, MacAddr, PeerName, Uid};

/// Violations kept; further ones say nothing new.
const VIOLATIONS: usize = 8;
/// How long frames are remembered.
const FRAMES_KEPT: Duration = Duration::from_secs(30);

/// A frame and where it went.
#[derive(Debug, Clone, Default)]
pub struct FrameRecord {
    /// Where from.
    pub from: HostId,
    /// Where to; `None`: everywhere.
    pub to: Option<HostId>,
    /// When it was sent.
    pub sent: Duration,
    /// Hosts that it was delivered to, with the links crossed, each time.
    pub deliveries: BTreeMap<HostId, Vec<u8>>,
    /// Links it crossed in all.
    pub crossings: u32,
    /// Why copies of it were dropped.
    pub drops: Vec<Drop>,
}

/// Counts over a whole run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Frames sent.
    pub frames: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// Deliveries of a frame to a host that had it.
    pub repeated: u64,
    /// The most links one frame crossed.
    pub most_crossings: u32,
}

/// Whether a name is published.
#[derive(Debug, Clone, Copy, Default)]
struct Publication {
    withdrawn: bool,
    /// How often it was published anew.
    times: u32,
}

/// Truth and observations.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Runs of each name.
    runs: BTreeMap<PeerName, Vec<Uid>>,
    /// Machines that ran under each name.
    machines: BTreeMap<PeerName, BTreeSet<HostId>>,
    /// Names ever published.
    names: BTreeMap<PeerName, BTreeMap<(HostName, IpAddr), Publication>>,
    /// Where stations were ever attached.
    stations: BTreeSet<(PeerName, MacAddr)>,
    /// Names that routers saw appear and, withdrawn by their owner, disappear.
    seen: BTreeMap<HostId, BTreeSet<(PeerName, HostName)>>,
    gone: BTreeMap<HostId, BTreeMap<(PeerName, HostName), u32>>,
    /// Frames under way, and lately arrived.
    frames: BTreeMap<u64, FrameRecord>,
    /// Counts.
    pub totals: Totals,
    violations: Vec<String>,
}

impl Ledger {
    /// Something happened that must not.
    pub fn violation(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS && !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }

    /// What must not have happened.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// A router runs.
    pub fn started(&mut self, id: HostId, who: Who) {
        self.runs.entry(who.name).or_default().push(who.uid);
        self.machines.entry(who.name).or_default().insert(id);
    }

    /// It does so no more.
    pub fn ended(&mut self, id: HostId) {
        self.seen.remove(&id);
        self.gone.remove(&id);
    }

    /// This is attached at a router, and nothing else.
    pub fn attached(&mut self, owner: PeerName, attached: &Attached) {
        let names = self.names.entry(owner).or_default();
        let before: BTreeSet<_> = names
            .iter()
            .filter(|(_, publication)| !publication.withdrawn)
            .map(|(key, _)| key.clone())
            .collect();
        names.values_mut().for_each(|publication| publication.withdrawn = true);
        let is_new = |entry: &&NameEntry| !before.contains(&(entry.name.clone(), entry.address));
        for entry in &attached.names {
            let publication = names.entry((entry.name.clone(), entry.address)).or_default();
            publication.withdrawn = false;
            publication.times += u32::from(is_new(&entry));
        }
        self.stations.extend(attached.stations.iter().map(|(mac, _)| (owner, *mac)));
    }

    /// True if this name was ever that of a router of ours.
    #[must_use]
    pub fn is_known(&self, name: PeerName) -> bool {
        self.runs.contains_key(&name)
    }

    /// True if a router of that name had this run.
    #[must_use]
    pub fn had_run(&self, name: PeerName, uid: Uid) -> bool {
        self.runs.get(&name).is_some_and(|runs| runs.contains(&uid))
    }

    /// Machines that ran under a name.
    pub fn machines(&self, name: PeerName) -> impl Iterator<Item = HostId> + '_ {
        self.machines.get(&name).into_iter().flatten().copied()
    }

    /// True if the owner published this name at some time.
    #[must_use]
    pub fn had_name(&self, owner: PeerName, name: &HostName, address: IpAddr) -> bool {
        self.names.get(&owner).is_some_and(|names| names.contains_key(&(name.clone(), address)))
    }

    /// True if the station was attached there at some time.
    #[must_use]
    pub fn had_station(&self, owner: PeerName, mac: MacAddr) -> bool {
        self.stations.contains(&(owner, mac))
    }

    /// How often a name was published, if it is not any more.
    fn withdrawn(&self, owner: PeerName, name: &HostName) -> Option<u32> {
        let of_name = self.names.get(&owner)?.iter().filter(|((n, _), _)| n == name);
        let publications: Vec<_> = of_name.map(|(_, publication)| publication).collect();
        let is_withdrawn = !publications.is_empty() && publications.iter().all(|p| p.withdrawn);
        is_withdrawn.then(|| publications.iter().map(|p| p.times).sum())
    }

    /// A router sees these names now; `can_reach` says of whom it would.
    pub fn sees(
        &mut self,
        id: HostId,
        names: BTreeSet<(PeerName, HostName)>,
        can_reach: impl Fn(PeerName) -> bool,
    ) {
        let before = self.seen.insert(id, names.clone()).unwrap_or_default();
        let missing = before.difference(&names).filter(|(owner, _)| can_reach(*owner));
        let gone: Vec<_> =
            missing.filter_map(|key| Some((key.clone(), self.withdrawn(key.0, &key.1)?))).collect();
        self.gone.entry(id).or_default().extend(gone);
        let all_gone = self.gone.get(&id).into_iter().flatten();
        let back: Vec<_> = all_gone
            .filter(|((owner, name), times)| {
                names.contains(&(*owner, name.clone())) && self.withdrawn(*owner, name) == Some(**times)
            })
            .map(|((owner, name), _)| {
                format!("the withdrawn name {name} of {owner} is back at host {}", id.0)
            })
            .collect();
        back.into_iter().for_each(|violation| self.violation(violation));
    }

    /// A frame is sent.
    pub fn sent(&mut self, number: u64, from: HostId, to: Option<HostId>, now: Duration) {
        self.totals.frames += 1;
        while let Some(oldest) = self.frames.first_entry()
            && now.saturating_sub(oldest.get().sent) > FRAMES_KEPT
        {
            oldest.remove();
        }
        self.frames.insert(number, FrameRecord { from, to, sent: now, ..FrameRecord::default() });
    }

    /// It crosses a link.
    pub fn crossed(&mut self, frame: &Frame) {
        if let Some(record) = self.frames.get_mut(&frame.number) {
            record.crossings += 1;
            self.totals.most_crossings = self.totals.most_crossings.max(record.crossings);
        }
    }

    /// It arrives.
    pub fn delivered(&mut self, frame: &Frame, at: HostId, _now: Duration) {
        let Some(record) = self.frames.get_mut(&frame.number) else { return };
        let times = record.deliveries.entry(at).or_default();
        times.push(frame.crossed);
        self.totals.deliveries += 1;
        self.totals.repeated += u64::from(times.len() > 1);
    }

    /// A copy of it goes nowhere.
    pub fn dropped(&mut self, frame: &Frame, reason: Drop) {
        if let Some(record) = self.frames.get_mut(&frame.number) {
            record.drops.push(reason);
        }
    }

    /// Where a frame went.
    #[must_use]
    pub fn frame(&self, number: u64) -> Option<&FrameRecord> {
        self.frames.get(&number)
    }
}
