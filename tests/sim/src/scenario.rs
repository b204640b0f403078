//! One run: hosts, faults, and then none.

use crate::character::Character;
use crate::checks;
use crate::host::{MAX_LINKS, Settings};
use crate::hostile::Hostile;
use crate::later::Later;
use crate::network::HostId;
use crate::plan::{Action, KINDS, Kind, Planner};
use crate::random::Random;
use crate::world::{World, WorldConfig};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;
use weave_wire::MacAddr;
use weave_wire::link::gossip::NameEntry;

/// How long hosts may take to agree once all faults ended.
const AGREE_WITHIN: Duration = Duration::from_secs(20);
/// The same where clones fight for each other's links, or where a hostile member
/// spoke: what was missed is found by the next summaries, after up to 37.5 s.
const AGREE_AT_LAST: Duration = Duration::from_secs(120);
/// How often it is looked whether they do.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What must hold at all times is looked at so often.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// That a host is gone is found within 15 s; its state is kept for 10 minutes
/// more, and looked for twice a minute.
const COLLECTED_AFTER: Duration = Duration::from_secs(15 + 600 + 31);
/// How long a farewell takes to all, and its host to end.
const FAREWELL: Duration = Duration::from_millis(200);
/// Within that time nobody knows any more who said farewell.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(2);

/// Which run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Of all chance.
    pub seed: u64,
    /// Hosts, at least and at most.
    pub hosts: RangeInclusive<usize>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which run.
    pub seed: u64,
    /// Hosts in it.
    pub hosts: usize,
    /// Faults in it.
    pub kinds: Vec<Kind>,
    /// How long hosts took to agree.
    pub agreed_after: Option<Duration>,
    /// Simulated time.
    pub time: Duration,
    /// Stands for all that happened.
    pub trace: u64,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// How every host stood in the end.
    pub hosts_at_end: Vec<String>,
}

impl Outcome {
    /// True if all went well.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}

/// A run under way.
pub struct Run {
    /// The world.
    pub world: World,
    random: Random,
    hosts: Vec<HostId>,
    kinds: Vec<Kind>,
    blocked: BTreeSet<(HostId, HostId)>,
    discovery: bool,
    conn_limit: usize,
    next_container: u32,
    /// Two hosts ran on one state.
    has_clones: bool,
}

impl Scenario {
    /// Runs it to its end.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let mut run = Run::new(self);
        run.safety();
        let agreed_after = run.liveness();
        if agreed_after.is_some() {
            run.aftermath();
        }
        run.outcome(self.seed, agreed_after)
    }
}

impl Run {
    fn new(scenario: &Scenario) -> Self {
        let mut random = Random::new(scenario.seed);
        let world = World::new(&WorldConfig { seed: random.next_u64(), ..WorldConfig::default() });
        let count = random.within(*scenario.hosts.start(), *scenario.hosts.end());
        let mut kinds: Vec<_> = KINDS.into_iter().filter(|kind| random.chance(likelihood(*kind))).collect();
        if kinds.is_empty() {
            kinds.push(Kind::Cuts);
        }
        let discovery = random.chance(800);
        // Where all links are taken a clone gets in nowhere: its name can be reached already.
        let is_limited = random.chance(100) && !kinds.contains(&Kind::Clones);
        let conn_limit = if is_limited { random.within(4, 8) } else { MAX_LINKS };
        let mut run = Self {
            world,
            random,
            hosts: Vec::new(),
            kinds,
            blocked: BTreeSet::new(),
            discovery,
            conn_limit,
            next_container: 0,
            has_clones: false,
        };
        run.make_hosts(count);
        run
    }

    fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Each host names one that was there before it, so that all are connected.
    fn make_hosts(&mut self, count: usize) {
        let mut named = BTreeSet::new();
        for at in 0..count {
            let mut targets = BTreeSet::new();
            // Without discovery ways stay short only if there are some links more.
            let more = if self.discovery { self.random.below(2) } else { 2 };
            for _ in 0..=more {
                if at > 0 {
                    targets.insert(HostId(u16::try_from(self.random.below(at)).unwrap_or(0)));
                }
            }
            let addresses = targets.iter().map(|target| target.address()).collect();
            let settings =
                Settings { targets: addresses, discovery: self.discovery, conn_limit: self.conn_limit };
            let id = self.world.add(settings);
            named.extend(targets.iter().map(|target| (*target, id)));
            self.hosts.push(id);
            self.choose_character(id, at + 1 == count);
            for _ in 0..self.random.below(3) {
                self.attach(id);
            }
        }
        if self.random.chance(200) {
            self.block_some(&named);
        }
    }

    fn choose_character(&mut self, id: HostId, is_last: bool) {
        let Some(state) = self.world.slot(id).map(|slot| slot.state.clone()) else { return };
        if self.has(Kind::Later) && !is_last && self.random.chance(300) {
            self.world.set_character(id, Character::Later(Later::new(state.name, state.key)));
        } else if self.has(Kind::Hostile) && is_last {
            // Nobody names the last one: the others stay connected without it.
            // Who has not heard of a name takes it from whoever tells of it first: no
            // host may know less of others than the hostile one tells of them.
            let newcomers = [Kind::Crashes, Kind::Storms, Kind::Clones, Kind::Twins, Kind::Leaps];
            let may_squat = !newcomers.into_iter().any(|kind| self.has(kind));
            let hostile = Hostile::new(state.name, state.key, may_squat, self.random.fork());
            self.world.set_character(id, Character::Hostile(Box::new(hostile)));
            if let Some(slot) = self.world.slot_mut(id) {
                slot.is_member = false;
            }
        }
    }

    /// Some pairs of hosts of which neither names the other can never reach each other.
    fn block_some(&mut self, named: &BTreeSet<(HostId, HostId)>) {
        for a in self.hosts.clone() {
            for b in self.hosts.clone() {
                if a < b && !named.contains(&(a, b)) && self.random.chance(200) {
                    self.blocked.insert((a, b));
                    if self.random.chance(500) {
                        self.blocked.insert((b, a));
                    }
                }
            }
        }
        self.block();
    }

    fn block(&mut self) {
        for (from, to) in &self.blocked {
            self.world.network.cut(*from, *to);
        }
    }

    // The safety phase.

    fn safety(&mut self) {
        // Some begin with faults, some in peace.
        let calm = if self.random.chance(300) && !self.has(Kind::Hostile) { 0 } else { 8 };
        for id in self.hosts.clone() {
            let at = self.random.time(Duration::ZERO, Duration::from_secs(2));
            self.world.start_at(id, at);
        }
        self.pass(self.world.now() + Duration::from_secs(calm));
        let begin = self.world.now();
        let length = Duration::from_secs(self.random.within(10, 40) as u64);
        let mut random = self.random.fork();
        let honest = self.honest();
        let plan = Planner::new(&mut random, honest, length).plan(&self.kinds);
        for (at, action) in plan {
            self.pass(begin + at);
            self.apply(&action);
        }
        self.pass(begin + length);
    }

    fn honest(&self) -> Vec<HostId> {
        let is_member = |id: &HostId| self.world.slot(*id).is_some_and(|slot| slot.is_member);
        self.hosts.iter().copied().filter(is_member).collect()
    }

    /// Runs until `until`; looks at what must hold at all times.
    fn pass(&mut self, until: Duration) {
        while self.world.now() < until {
            let second = self.world.now().as_secs() + 1;
            self.world.run_until(until.min(CHECK_EVERY * u32::try_from(second).unwrap_or(u32::MAX)));
            if self.world.now() < until {
                self.look();
            }
        }
    }

    fn look(&mut self) {
        let true_observers = !self.has(Kind::Hostile);
        checks::always(&mut self.world, !self.has_clones, true_observers);
    }

    fn apply(&mut self, action: &Action) {
        match *action {
            Action::Cut(from, to) => self.world.network.cut(from, to),
            Action::Heal(from, to) => self.world.network.heal(from, to),
            Action::Trouble(from, to, trouble) => self.world.network.set_trouble(from, to, trouble),
            Action::Everywhere(trouble) => self.world.network.everywhere = trouble,
            Action::Kill(host) => self.world.kill(host),
            Action::PowerOff(host) => self.world.power_off(host),
            Action::Start { host, keeps_state } => {
                let runs = self.world.slot(host).is_some_and(|slot| slot.process.is_some());
                if !keeps_state && !runs {
                    self.world.lose_state(host);
                    self.choose_character_again(host);
                }
                self.world.start(host);
            }
            Action::Freeze(host) => self.world.freeze(host),
            Action::Thaw(host) => self.world.thaw(host),
            Action::Leap(host, by) => self.world.leap(host, by),
            Action::Attach(host) => self.attach(host),
            Action::Detach(host) => self.detach(host),
            Action::Move(from, to) => self.move_container(from, to),
            Action::Clone(host) => self.clone_host(host),
            Action::Twin(host) => self.twin(host),
            Action::Mischief => self.mischief(),
            Action::Frame(from, to) => {
                self.world.send_frame(from, to);
            }
        }
    }

    /// A host of a later version has another key now.
    fn choose_character_again(&mut self, id: HostId) {
        let Some(slot) = self.world.slot(id) else { return };
        let (name, key) = (slot.state.name, slot.state.key);
        if slot.is_later() {
            self.world.set_character(id, Character::Later(Later::new(name, key)));
        }
    }

    fn attach(&mut self, id: HostId) {
        self.next_container += 1;
        let number = self.next_container;
        let [_, b, c, d] = number.to_be_bytes();
        let Ok(name) = format!("c{number}.weave.local").parse() else { return };
        let address = [10, 32 + b, c, d].into();
        let Some(slot) = self.world.slot_mut(id) else { return };
        slot.attached.names.push(NameEntry { name, address, container: [1; 6] });
        slot.attached.stations.push((MacAddr([2, 0xcc, 0, b, c, d]), address));
        self.world.tell_attached(id);
    }

    fn detach(&mut self, id: HostId) {
        let Some(count) = self.world.slot(id).map(|slot| slot.attached.names.len()) else { return };
        let at = self.random.below(count);
        if let Some(slot) = self.world.slot_mut(id)
            && at < count
        {
            slot.attached.names.remove(at);
            slot.attached.stations.remove(at);
        }
        self.world.tell_attached(id);
    }

    /// A container moves, with its address and MAC; its old host is late.
    fn move_container(&mut self, from: HostId, to: HostId) {
        let Some(slot) = self.world.slot_mut(from) else { return };
        let (Some(name), Some(station)) = (slot.attached.names.pop(), slot.attached.stations.pop()) else {
            return;
        };
        if let Some(slot) = self.world.slot_mut(to) {
            slot.attached.names.push(name);
            slot.attached.stations.push(station);
        }
        self.world.tell_attached(to);
        let late = self.random.time(Duration::ZERO, Duration::from_millis(500));
        self.world.run_for(late);
        self.world.tell_attached(from);
    }

    fn clone_host(&mut self, of: HostId) {
        self.has_clones = true;
        let Some(slot) = self.world.slot(of) else { return };
        let (state, settings) = (slot.state_now(), slot.settings.clone());
        // It dials whom the first one dials, and another: the first one is itself.
        let other = self.hosts.iter().copied().find(|id| *id != of);
        let id = self.world.add_with(state, settings);
        if let (Some(clone), Some(other)) = (self.world.slot_mut(id), other) {
            clone.settings.targets.push(other.address());
        }
        self.hosts.push(id);
        self.world.start(id);
    }

    /// A machine that was given the name of another. Whom others know by either of the two is
    /// refused, so that it is one that nobody names: the rest stays connected without it.
    fn twin(&mut self, at: HostId) {
        let is_named = |id: &HostId| {
            let slots = self.hosts.iter().filter_map(|id| self.world.slot(*id));
            slots.into_iter().any(|slot| slot.settings.targets.contains(&id.address()))
        };
        let unnamed = self.hosts.iter().filter(|id| !is_named(id));
        let Some(of) = unnamed.copied().min_by_key(|id| (*id < at, *id)) else { return };
        let mut state = self.world.new_state();
        let Some(slot) = self.world.slot_mut(of) else { return };
        slot.is_member = false;
        state.name = slot.state_now().name;
        let targets = self.hosts.iter().filter(|id| **id != of).map(|id| id.address()).take(1).collect();
        let settings = Settings { targets, discovery: self.discovery, conn_limit: self.conn_limit };
        let id = self.world.add_with(state, settings);
        if let Some(twin) = self.world.slot_mut(id) {
            twin.is_member = false;
        }
        self.hosts.push(id);
        self.world.start(id);
    }

    fn mischief(&mut self) {
        for id in self.hostile() {
            self.world.with_host(id, crate::host::Host::mischief);
        }
    }

    fn hostile(&self) -> Vec<HostId> {
        let hostile = self.world.running().filter(|(_, host)| host.character.is_hostile());
        hostile.map(|(id, _)| id).collect()
    }

    // The liveness phase.

    /// All faults end; returns how long hosts took to agree.
    fn liveness(&mut self) -> Option<Duration> {
        self.world.network.heal_all();
        self.block();
        for id in self.hostile() {
            self.world.power_off(id);
            self.hosts.retain(|host| *host != id);
        }
        for id in self.hosts.clone() {
            self.world.thaw(id);
            self.world.start(id);
        }
        let is_slow = self.has_clones || self.has(Kind::Hostile);
        let limit = if is_slow { AGREE_AT_LAST } else { AGREE_WITHIN };
        let begin = self.world.now();
        let mut wrong = None;
        while self.world.now() < begin + limit {
            self.pass(self.world.now() + LOOK_EVERY);
            wrong = self.wrong();
            if wrong.is_none() {
                self.look();
                return Some(self.world.now() - begin);
            }
        }
        let wrong = wrong.unwrap_or_default();
        self.world.ledger.violation(format!("after {} s: {wrong}", limit.as_secs()));
        None
    }

    fn wrong(&self) -> Option<String> {
        checks::disagreement(&self.world).or_else(|| {
            let expects_full = self.discovery && self.blocked.is_empty() && self.conn_limit == MAX_LINKS;
            (expects_full && !checks::is_full_mesh(&self.world))
                .then(|| "some members have no link".to_owned())
        })
    }

    /// What must hold in a world that agrees.
    fn aftermath(&mut self) {
        // Former paths are accepted for 2 s.
        self.pass(self.world.now() + Duration::from_secs(3));
        // Hosts that bound a contested name to different keys see different ways through it.
        if !self.has(Kind::Twins) || checks::is_full_mesh(&self.world) {
            checks::traffic(&mut self.world);
        }
        let is_apart = self.has(Kind::Twins) || self.has(Kind::Hostile) || self.has_clones;
        if self.discovery && self.blocked.is_empty() && !is_apart && self.random.chance(300) {
            self.leave();
        }
        if self.world.members().count() <= 10 && self.random.chance(150) {
            self.abandon();
        }
        self.look();
    }

    /// A host leaves for good.
    fn leave(&mut self) {
        let Some((id, name)) = self.any_member() else { return };
        self.world.with_host(id, |host, now| host.mesh.farewell(now));
        self.world.run_for(FAREWELL);
        self.world.stop(id);
        self.hosts.retain(|host| *host != id);
        self.world.run_for(FORGOTTEN_WITHIN);
        let knows = |(_, host): &(HostId, &crate::host::Host)| host.mesh.peer(name).is_some();
        let who: Vec<_> = self.world.members().filter(knows).map(|(id, _)| id.0).collect();
        if !who.is_empty() {
            self.world.ledger.violation(format!("hosts {who:?} still know a host that said farewell"));
        }
    }

    /// A host is gone and does not come back.
    fn abandon(&mut self) {
        let Some((id, _)) = self.any_member() else { return };
        self.world.power_off(id);
        self.hosts.retain(|host| *host != id);
        self.pass(self.world.now() + COLLECTED_AFTER);
        checks::collected(&mut self.world);
    }

    fn any_member(&mut self) -> Option<(HostId, weave_wire::PeerName)> {
        let members: Vec<_> = self.world.members().map(|(id, host)| (id, host.state.name)).collect();
        self.random.pick(&members).copied()
    }

    fn outcome(self, seed: u64, agreed_after: Option<Duration>) -> Outcome {
        Outcome {
            seed,
            hosts: self.hosts.len(),
            kinds: self.kinds,
            agreed_after,
            time: self.world.now(),
            trace: self.world.trace.hash(),
            violations: self.world.ledger.violations().to_vec(),
            hosts_at_end: self.world.running().flat_map(|(_, host)| host.explain()).collect(),
        }
    }
}

/// How many runs of a thousand suffer from a kind of fault.
const fn likelihood(kind: Kind) -> u16 {
    match kind {
        Kind::Noise | Kind::Cuts | Kind::Changes => 500,
        Kind::Clogs | Kind::Partitions | Kind::Crashes => 350,
        Kind::Storms | Kind::Pauses | Kind::Leaps | Kind::Later => 200,
        Kind::Clones | Kind::Twins | Kind::Hostile => 150,
    }
}
