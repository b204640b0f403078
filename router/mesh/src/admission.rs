//! Who may begin a handshake: limits on what strangers cost.
//!
//! Handshakes cost arithmetic and memory before anybody has proved anything.
//! Limits of a source come first, so that one source cannot use up what all
//! share; half of what is shared is kept for peers known already.

use hashbrown::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Handshakes under way, at most.
pub const HALF_OPEN: usize = 64;
/// Handshakes under way from one source (IPv4 /32, IPv6 /64), at most.
pub const HALF_OPEN_PER_SOURCE: usize = 4;
/// New handshakes a second in all.
const RATE: f64 = 30.0;
/// New handshakes a second of one source, after the burst.
const SOURCE_RATE: f64 = 2.0;
/// Handshakes of one source at once.
const SOURCE_BURST: f64 = 5.0;
/// First attempts (of sources not seen for a minute) a second, beside the others.
const FIRST_RATE: f64 = 10.0;
/// Time after which a source counts as new.
const FORGET: Duration = Duration::from_secs(60);
/// Sources remembered, at most.
const SOURCES: usize = 4096;

/// A handshake under way; give it back with [`Admission::done`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// Why a connection is closed before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The source has its share of handshakes under way.
    SourceHalfOpen,
    /// The source comes too often.
    SourceRate,
    /// All together come too often.
    Rate,
    /// Every place is taken by peers that are known.
    HalfOpen,
}

/// A connection was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Of the new handshake.
    pub ticket: Ticket,
    /// A handshake to end for it: the oldest of the source with most.
    pub evicted: Option<Ticket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    const fn full(burst: f64, now: Duration) -> Self {
        Self { tokens: burst, at: now }
    }

    fn take(&mut self, rate: f64, burst: f64, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(burst);
        self.at = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[derive(Debug)]
struct HalfOpen {
    ticket: Ticket,
    source: IpAddr,
    known: bool,
}

/// State of all sources.
#[derive(Debug)]
pub struct Admission {
    /// In order of their beginning.
    half_open: Vec<HalfOpen>,
    sources: HashMap<IpAddr, Bucket>,
    strangers: Bucket,
    known: Bucket,
    first: Bucket,
    next_ticket: u64,
}

impl Admission {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            half_open: Vec::new(),
            sources: HashMap::new(),
            strangers: Bucket::full(RATE / 2.0, now),
            known: Bucket::full(RATE / 2.0, now),
            first: Bucket::full(FIRST_RATE, now),
            next_ticket: 0,
        }
    }

    /// A connection from `address`; `known`: a configured target or recent peer.
    ///
    /// # Errors
    /// [`Refusal`]: close it.
    pub fn admit(&mut self, address: IpAddr, known: bool, now: Duration) -> Result<Admitted, Refusal> {
        let source = source_of(address);
        if self.half_open.iter().filter(|open| open.source == source).count() >= HALF_OPEN_PER_SOURCE {
            return Err(Refusal::SourceHalfOpen);
        }
        let is_first = self.take_from_source(source, known, now)?;
        let share = if known { &mut self.known } else { &mut self.strangers };
        let passes = share.take(RATE / 2.0, RATE / 2.0, now)
            || (is_first && self.first.take(FIRST_RATE, FIRST_RATE, now));
        if !passes {
            return Err(Refusal::Rate);
        }
        let evicted = self.make_place(known)?;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.half_open.push(HalfOpen { ticket, source, known });
        Ok(Admitted { ticket, evicted })
    }

    /// True if the source was not seen for a minute.
    fn take_from_source(&mut self, source: IpAddr, known: bool, now: Duration) -> Result<bool, Refusal> {
        if let Some(bucket) = self.sources.get_mut(&source) {
            let is_first = now.saturating_sub(bucket.at) >= FORGET;
            return if bucket.take(SOURCE_RATE, SOURCE_BURST, now) {
                Ok(is_first)
            } else {
                Err(Refusal::SourceRate)
            };
        }
        if self.sources.len() >= SOURCES {
            self.sources.retain(|_, bucket| now.saturating_sub(bucket.at) < FORGET);
        }
        if self.sources.len() >= SOURCES {
            // Strangers fill the table; who is known does not pay for that.
            return if known { Ok(false) } else { Err(Refusal::Rate) };
        }
        let mut bucket = Bucket::full(SOURCE_BURST, now);
        bucket.take(SOURCE_RATE, SOURCE_BURST, now);
        self.sources.insert(source, bucket);
        Ok(true)
    }

    /// Half of the places are for known peers; a stranger may take the place of
    /// another stranger, a known peer that of anybody unknown.
    fn make_place(&mut self, known: bool) -> Result<Option<Ticket>, Refusal> {
        let strangers = self.half_open.iter().filter(|open| !open.known).count();
        let full = self.half_open.len() >= HALF_OPEN || (!known && strangers >= HALF_OPEN / 2);
        if !full {
            return Ok(None);
        }
        let count = |source: IpAddr| self.half_open.iter().filter(|open| open.source == source).count();
        let place = (0..self.half_open.len())
            .filter(|&place| !self.half_open[place].known)
            .max_by_key(|&place| (count(self.half_open[place].source), std::cmp::Reverse(place)))
            .ok_or(Refusal::HalfOpen)?;
        Ok(Some(self.half_open.remove(place).ticket))
    }

    /// The handshake is over, whatever came of it.
    pub fn done(&mut self, ticket: Ticket) {
        self.half_open.retain(|open| open.ticket != ticket);
    }

    /// Handshakes under way.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }
}

/// What counts as one source: an IPv4 address, an IPv6 /64.
#[must_use]
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn v4(last: u16) -> IpAddr {
        let [a, b] = last.to_be_bytes();
        IpAddr::from([10, 0, a, b])
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn one_source_has_four_handshakes_under_way_and_two_a_second() {
        let mut admission = Admission::new(at(0));
        let tickets: Vec<_> = (0..4).map(|_| admission.admit(v4(1), false, at(0)).unwrap().ticket).collect();
        assert_eq!(admission.admit(v4(1), false, at(0)), Err(Refusal::SourceHalfOpen));
        tickets.into_iter().for_each(|ticket| admission.done(ticket));
        let fifth = admission.admit(v4(1), false, at(0)).unwrap();
        admission.done(fifth.ticket);
        assert_eq!(admission.admit(v4(1), false, at(0)), Err(Refusal::SourceRate));
        assert!(admission.admit(v4(1), false, at(600)).is_ok());
    }

    #[test]
    fn addresses_of_one_v6_network_are_one_source() {
        let mut admission = Admission::new(at(0));
        for host in 1..=4 {
            admission.admit(format!("2001:db8::{host}").parse().unwrap(), false, at(0)).unwrap();
        }
        let fifth = admission.admit("2001:db8::99".parse().unwrap(), false, at(0));
        assert_eq!(fifth, Err(Refusal::SourceHalfOpen));
        assert!(admission.admit("2001:db8:0:1::1".parse().unwrap(), false, at(0)).is_ok());
    }

    #[test]
    fn eight_noisy_sources_leave_room_for_a_new_one_and_for_known_peers() {
        let mut admission = Admission::new(at(0));
        let mut open = std::collections::VecDeque::new();
        let mut let_in = 0;
        for millis in 0..10_000 {
            for source in 1..=8 {
                if let Ok(admitted) = admission.admit(v4(source), false, at(millis)) {
                    let_in += 1;
                    open.push_back(admitted.ticket);
                }
            }
            while open.len() > 20 {
                admission.done(open.pop_front().unwrap());
            }
        }
        assert!(let_in <= 8 * 25 + 60, "{let_in}");
        assert!(admission.admit(v4(99), false, at(10_000)).is_ok());
        assert!(admission.admit(v4(100), true, at(10_000)).is_ok());
    }

    #[test]
    fn a_full_house_ends_the_oldest_of_the_greediest_stranger_but_no_known_peer() {
        let mut admission = Admission::new(at(0));
        let mut now = 0;
        let mut first = None;
        for source in 0..HALF_OPEN as u16 / 2 {
            now += 100;
            let ticket = admission.admit(v4(source / 2), false, at(now)).unwrap().ticket;
            first.get_or_insert(ticket);
        }
        let next = admission.admit(v4(500), false, at(now + 100)).unwrap();
        assert_eq!(next.evicted, first);
        let mut all_known = Admission::new(at(0));
        for source in 0..HALF_OPEN as u16 {
            now += 100;
            all_known.admit(v4(source), true, at(now)).unwrap();
        }
        assert_eq!(all_known.admit(v4(900), true, at(now + 100)), Err(Refusal::HalfOpen));
        assert_eq!(all_known.half_open(), HALF_OPEN);
    }

    #[test]
    fn a_flood_of_sources_is_bounded() {
        let mut admission = Admission::new(at(0));
        for source in 0..20_000u32 {
            let [_, a, b, c] = source.to_be_bytes();
            let _ = admission.admit(IpAddr::from([20, a, b, c]), false, at(0));
        }
        assert!(admission.half_open() <= HALF_OPEN && admission.sources.len() <= SOURCES);
    }

    /// How long a wrong password is told from a right one, and the connection kept after that.
    const WRONG_LASTS: Duration = Duration::from_millis(1500);

    #[test]
    fn a_thousand_guesses_in_an_hour_are_all_counted_and_keep_nobody_out() {
        const GUESSES: u32 = 1000;
        // How many sources guess, in bursts of how many, and how many of a burst get to guess: four
        // of one source at once, whatever the burst; one that comes alone always.
        for (sources, burst, tried) in [(1, 1, 1), (8, 5, 4), (1, 50, 4), (200, 20, 4)] {
            let mut admission = Admission::new(Duration::ZERO);
            let mut under_way = std::collections::VecDeque::new();
            let (mut admitted, mut refused) = (0, 0);
            let genuine = v4(60_000);
            for guess in 0..GUESSES {
                let hour = Duration::from_secs(3600);
                let now = hour * (guess / burst * burst) / GUESSES;
                while under_way.front().is_some_and(|(until, _)| *until <= now) {
                    admission.done(under_way.pop_front().unwrap().1);
                }
                let source = v4(u16::try_from(guess / burst % sources).unwrap());
                match admission.admit(source, false, now) {
                    Ok(let_in) => {
                        assert_eq!(let_in.evicted, None);
                        admitted += 1;
                        under_way.push_back((now + WRONG_LASTS, let_in.ticket));
                    }
                    Err(refusal) => {
                        assert_eq!(refusal, Refusal::SourceHalfOpen);
                        refused += 1;
                    }
                }
                // In the middle of every burst.
                if guess % burst == burst / 2 {
                    let known = guess % 2 == 0;
                    let let_in = admission.admit(genuine, known, now).unwrap();
                    admission.done(let_in.ticket);
                }
            }
            let expected = GUESSES / burst * tried;
            assert_eq!((admitted, refused), (expected, GUESSES - expected), "{sources} in bursts of {burst}");
            under_way.into_iter().for_each(|(_, ticket)| admission.done(ticket));
            assert_eq!(admission.half_open(), 0);
        }
    }
}
