//! What goes wrong in one run, drawn from its seed.
//!
//! Each run suffers from some kinds of faults only: a bug that needs one kind
//! much is not hidden by all the others ("swarm testing").

use crate::network::{HostId, Trouble};
use crate::random::Random;
use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Loss, delay, reordering and duplication everywhere.
    Noise,
    /// A way is cut, in one direction or both.
    Cuts,
    /// A way passes little.
    Clogs,
    /// The hosts fall apart into two sides.
    Partitions,
    /// Routers are killed, machines lose power; with and without their state.
    Crashes,
    /// Many routers start anew at once.
    Storms,
    /// Routers stand still.
    Pauses,
    /// Clocks leap.
    Leaps,
    /// Names and stations come, go and move.
    Changes,
    /// A host runs on a copy of another's state.
    Clones,
    /// Two hosts have one name.
    Twins,
    /// A member wants to do harm.
    Hostile,
    /// Some hosts are of a later version.
    Later,
}

/// All kinds.
pub const KINDS: [Kind; 13] = [
    Kind::Noise,
    Kind::Cuts,
    Kind::Clogs,
    Kind::Partitions,
    Kind::Crashes,
    Kind::Storms,
    Kind::Pauses,
    Kind::Leaps,
    Kind::Changes,
    Kind::Clones,
    Kind::Twins,
    Kind::Hostile,
    Kind::Later,
];

/// Something that is done to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing passes from the first host to the second.
    Cut(HostId, HostId),
    /// It does again.
    Heal(HostId, HostId),
    /// This way is in trouble.
    Trouble(HostId, HostId, Trouble),
    /// All ways are.
    Everywhere(Trouble),
    /// A router is killed.
    Kill(HostId),
    /// A machine loses its power.
    PowerOff(HostId),
    /// A router starts, after its state was lost or not.
    Start {
        /// Which.
        host: HostId,
        /// False if it lost its state.
        keeps_state: bool,
    },
    /// A router stands still.
    Freeze(HostId),
    /// It goes on.
    Thaw(HostId),
    /// A clock leaps.
    Leap(HostId, Duration),
    /// A container with a name and a station is attached.
    Attach(HostId),
    /// One is detached.
    Detach(HostId),
    /// One moves to another host.
    Move(HostId, HostId),
    /// A machine with a copy of another's state starts.
    Clone(HostId),
    /// A machine with the name of another, and another key, starts.
    Twin(HostId),
    /// Hostile members do something.
    Mischief,
    /// A host sends a frame: to another, or to all.
    Frame(HostId, Option<HostId>),
}

/// What happens when, in order.
pub type Plan = Vec<(Duration, Action)>;

/// Draws the plan of one run of `hosts` hosts in which faults last for `length`.
pub struct Planner<'a> {
    /// Of all chance.
    pub random: &'a mut Random,
    /// The hosts that faults meet.
    pub hosts: Vec<HostId>,
    /// How long there are faults.
    pub length: Duration,
    plan: Plan,
}

/// Shortest and longest time of a fault.
const FAULT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(25));

impl<'a> Planner<'a> {
    /// Nothing is planned.
    #[must_use]
    pub const fn new(random: &'a mut Random, hosts: Vec<HostId>, length: Duration) -> Self {
        Self { random, hosts, length, plan: Vec::new() }
    }

    /// The plan with faults of these kinds.
    #[must_use]
    pub fn plan(mut self, kinds: &[Kind]) -> Plan {
        for kind in kinds {
            self.add(*kind);
        }
        self.add_frames();
        self.plan.sort_by_key(|(at, _)| *at);
        self.plan
    }

    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Noise => self.noise(),
            Kind::Cuts => self.some(1, 12, Self::cut),
            Kind::Clogs => self.some(1, 6, Self::clog),
            Kind::Partitions => self.some(1, 2, Self::partition),
            Kind::Crashes => self.some(1, 6, Self::crash),
            Kind::Storms => self.some(1, 2, Self::storm),
            Kind::Pauses => self.some(1, 4, Self::pause),
            Kind::Leaps => self.some(1, 3, Self::leap),
            Kind::Changes => self.some(5, 40, Self::change),
            Kind::Clones => self.some(1, 1, |planner| {
                let (host, at) = (planner.host(), planner.moment());
                planner.put(at, Action::Clone(host));
            }),
            Kind::Twins => self.some(1, 1, |planner| {
                let (host, at) = (planner.host(), planner.moment());
                planner.put(at, Action::Twin(host));
            }),
            Kind::Hostile => self.some(40, 120, |planner| {
                let at = planner.moment();
                planner.put(at, Action::Mischief);
            }),
            // Who is of a later version is decided when hosts are made.
            Kind::Later => {}
        }
    }

    fn some(&mut self, low: usize, high: usize, mut what: impl FnMut(&mut Self)) {
        for _ in 0..self.random.within(low, high) {
            what(self);
        }
    }

    fn put(&mut self, at: Duration, action: Action) {
        self.plan.push((at, action));
    }

    fn moment(&mut self) -> Duration {
        self.random.time(Duration::ZERO, self.length)
    }

    /// When a fault begins, and when it ends: at the latest with all faults.
    fn span(&mut self) -> (Duration, Duration) {
        let begin = self.moment();
        let end = begin + self.random.time_of_any_size(FAULT.0, FAULT.1);
        (begin, end.min(self.length))
    }

    fn host(&mut self) -> HostId {
        self.random.pick(&self.hosts).copied().unwrap_or_default()
    }

    fn pair(&mut self) -> (HostId, HostId) {
        let (a, at) = (self.host(), self.random.below(self.hosts.len().saturating_sub(1)));
        let others: Vec<_> = self.hosts.iter().copied().filter(|host| *host != a).collect();
        (a, others.get(at).copied().unwrap_or(a))
    }

    fn noise(&mut self) {
        let trouble = Trouble {
            loss: u16::try_from(self.random.within(0, 200)).unwrap_or(0),
            duplicates: u16::try_from(self.random.within(0, 200)).unwrap_or(0),
            jitter: self.random.time_of_any_size(Duration::from_millis(1), Duration::from_millis(300)),
            rate: None,
        };
        self.put(Duration::ZERO, Action::Everywhere(trouble));
    }

    fn cut(&mut self) {
        let ((a, b), (begin, end)) = (self.pair(), self.span());
        let ways = match self.random.below(3) {
            0 => vec![(a, b)],
            _ => vec![(a, b), (b, a)],
        };
        for (from, to) in ways {
            self.put(begin, Action::Cut(from, to));
            self.put(end, Action::Heal(from, to));
        }
    }

    fn clog(&mut self) {
        let ((a, b), (begin, end)) = (self.pair(), self.span());
        let rate = Some(self.random.within(500, 50_000) as u64);
        self.put(begin, Action::Trouble(a, b, Trouble { rate, ..Trouble::default() }));
        self.put(end, Action::Trouble(a, b, Trouble::default()));
    }

    /// All ways between two sides are cut, at once or one by one, and healed in
    /// another order.
    fn partition(&mut self) {
        let mut hosts = self.hosts.clone();
        self.random.shuffle(&mut hosts);
        let (left, right) = hosts.split_at(self.random.within(1, hosts.len().saturating_sub(1).max(1)));
        let both = |a: &HostId, b: &HostId| [(*a, *b), (*b, *a)];
        let mut ways: Vec<_> = left.iter().flat_map(|a| right.iter().flat_map(move |b| both(a, b))).collect();
        let (begin, end) = self.span();
        let swizzled = self.random.chance(500);
        for action in [Action::Cut as fn(_, _) -> _, Action::Heal] {
            self.random.shuffle(&mut ways);
            let is_cut = matches!(action(HostId(0), HostId(0)), Action::Cut(..));
            for (at, (from, to)) in ways.iter().enumerate() {
                let share = if swizzled { at as f64 / (2 * ways.len()) as f64 } else { 0.0 };
                let later = (end - begin).mul_f64(share);
                let at = if is_cut { begin + later } else { end - later };
                self.put(at, action(*from, *to));
            }
        }
    }

    fn crash(&mut self) {
        let (host, (begin, end)) = (self.host(), self.span());
        let down = if self.random.chance(500) { Action::Kill(host) } else { Action::PowerOff(host) };
        let keeps_state = self.random.chance(700);
        self.put(begin, down);
        self.put(end, Action::Start { host, keeps_state });
    }

    fn storm(&mut self) {
        let at = self.moment();
        let share = u16::try_from(self.random.within(200, 1000)).unwrap_or(1000);
        for host in self.hosts.clone() {
            if self.random.chance(share) {
                let down = self.random.time(Duration::ZERO, Duration::from_millis(300));
                self.put(at, Action::Kill(host));
                let keeps_state = self.random.chance(950);
                self.put((at + down).min(self.length), Action::Start { host, keeps_state });
            }
        }
    }

    fn pause(&mut self) {
        let (host, (begin, end)) = (self.host(), self.span());
        self.put(begin, Action::Freeze(host));
        self.put(end, Action::Thaw(host));
    }

    fn leap(&mut self) {
        let (host, at) = (self.host(), self.moment());
        let by = self.random.time_of_any_size(Duration::from_millis(100), Duration::from_secs(7200));
        self.put(at, Action::Leap(host, by));
    }

    fn change(&mut self) {
        let (host, at) = (self.host(), self.moment());
        let action = match self.random.below(5) {
            0 | 1 => Action::Attach(host),
            2 | 3 => Action::Detach(host),
            _ => {
                let (from, to) = self.pair();
                Action::Move(from, to)
            }
        };
        self.put(at, action);
    }

    fn add_frames(&mut self) {
        self.some(100, 300, |planner| {
            let ((from, to), at) = (planner.pair(), planner.moment());
            let to = planner.random.chance(600).then_some(to);
            planner.put(at, Action::Frame(from, to));
        });
    }
}
