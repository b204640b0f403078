//! What is shown: the state of a moment and what happened since the one before.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weave_api::Status;
use weave_api::status::{Connection, ConnectionState};

/// The newest state, with the one before it.
#[derive(Debug)]
pub struct View {
    newest: (Status, Instant),
    before: Option<(Status, Instant)>,
    lost: Option<String>,
    order: Order,
    first: usize,
}

/// What links are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The peer's nickname.
    Name,
    /// What is sent and received.
    Rate,
    /// The round trip.
    RoundTrip,
}

/// One link.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The peer's nickname, or the address.
    pub peer: String,
    /// How it stands.
    pub state: ConnectionState,
    /// Whether data is sealed; unknown before the handshake.
    pub encrypted: Option<bool>,
    /// Round trip, microseconds.
    pub rtt_us: Option<u64>,
    /// Bits sent and received, a second.
    pub bits: (f64, f64),
    /// Frames sent and received, a second.
    pub frames: (f64, f64),
    /// Why it does not stand, or what is degraded.
    pub note: String,
}

/// Drops for one reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Drops {
    /// The reason.
    pub reason: String,
    /// All of them.
    pub total: u64,
    /// Those now, a second.
    pub rate: f64,
}

impl View {
    /// A first state.
    pub fn new(status: Status, at: Instant) -> Self {
        Self { newest: (status, at), before: None, lost: None, order: Order::Rate, first: 0 }
    }

    /// A newer state. Of another run there is nothing to compare with.
    pub fn add(&mut self, status: Status, at: Instant) {
        let same = status.uid == self.newest.0.uid;
        let before = std::mem::replace(&mut self.newest, (status, at));
        self.before = same.then_some(before);
        self.lost = None;
    }

    /// The router does not answer.
    pub fn lose(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// The newest state.
    pub const fn status(&self) -> &Status {
        &self.newest.0
    }

    /// Why there is no newer one, and how old it is.
    pub fn lost(&self, now: Instant) -> Option<(&str, Duration)> {
        Some((self.lost.as_deref()?, now.saturating_duration_since(self.newest.1)))
    }

    /// What links are ordered by.
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Orders by the next thing.
    pub const fn sort_next(&mut self) {
        self.order = match self.order {
            Order::Rate => Order::RoundTrip,
            Order::RoundTrip => Order::Name,
            Order::Name => Order::Rate,
        };
    }

    /// Moves the links shown by `rows`.
    pub const fn scroll(&mut self, rows: isize) {
        self.first = self.first.saturating_add_signed(rows);
    }

    /// The first link shown where `room` of `all` fit.
    pub fn first(&mut self, all: usize, room: usize) -> usize {
        self.first = self.first.min(all.saturating_sub(room));
        self.first
    }

    fn seconds(&self) -> Option<f64> {
        let (_, before) = self.before.as_ref()?;
        let seconds = self.newest.1.saturating_duration_since(*before).as_secs_f64();
        (seconds > 0.0).then_some(seconds)
    }

    /// All links, in order.
    pub fn rows(&self) -> Vec<Row> {
        let before: BTreeMap<_, _> = self
            .before
            .iter()
            .flat_map(|(status, _)| &status.connections)
            .filter_map(|link| Some((link.peer?, link)))
            .collect();
        let mut rows: Vec<Row> = self
            .newest
            .0
            .connections
            .iter()
            .map(|link| {
                let before = link.peer.and_then(|peer| before.get(&peer).copied());
                self.row(link, before)
            })
            .collect();
        let stands = |row: &Row| row.state != ConnectionState::Established;
        match self.order {
            Order::Name => rows.sort_by_key(|row| (stands(row), row.peer.clone())),
            Order::RoundTrip => rows.sort_by_key(|row| (stands(row), Reverse(row.rtt_us), row.peer.clone())),
            Order::Rate => rows.sort_by(|a, b| {
                let rates = (b.bits.0 + b.bits.1).total_cmp(&(a.bits.0 + a.bits.1));
                stands(a).cmp(&stands(b)).then(rates).then_with(|| a.peer.cmp(&b.peer))
            }),
        }
        rows
    }

    fn row(&self, link: &Connection, before: Option<&Connection>) -> Row {
        let rate = |of: fn(&Connection) -> u64| self.rate(of(link), before.map(of));
        let degraded = link.degraded.iter().map(|degraded| degraded.name.as_str()).collect::<Vec<_>>();
        Row {
            peer: link.nickname.as_ref().map_or_else(|| link.address.to_string(), ToString::to_string),
            state: link.state,
            encrypted: link.encrypted,
            rtt_us: link.rtt_us,
            bits: (8.0 * rate(|link| link.tx_bytes), 8.0 * rate(|link| link.rx_bytes)),
            frames: (rate(|link| link.tx_frames), rate(|link| link.rx_frames)),
            note: link.reason.clone().unwrap_or_else(|| degraded.join(" ")),
        }
    }

    /// How fast a counter rose; one that began anew did not.
    fn rate(&self, now: u64, before: Option<u64>) -> f64 {
        let Some(risen) = before.and_then(|before| now.checked_sub(before)) else { return 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        self.seconds().map_or(0.0, |seconds| risen as f64 / seconds)
    }

    /// Drops by reason: those that happen now first, then the most frequent.
    pub fn drops(&self) -> Vec<Drops> {
        let now = drops(&self.newest.0);
        let before = self.before.as_ref().map(|(status, _)| drops(status)).unwrap_or_default();
        let mut all: Vec<Drops> = now
            .into_iter()
            .map(|(reason, total)| {
                let rate = self.rate(total, Some(before.get(reason).copied().unwrap_or(0)));
                Drops { reason: reason.to_owned(), total, rate }
            })
            .collect();
        all.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(b.total.cmp(&a.total)));
        all
    }
}

/// All that were dropped for any reason, in all shards.
fn drops(status: &Status) -> BTreeMap<&str, u64> {
    let mut all = BTreeMap::new();
    for (reason, count) in status.shards.iter().flat_map(|shard| &shard.drops) {
        if *count > 0 {
            *all.entry(reason.as_str()).or_default() += count;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::sample;

    fn later(status: &Status, change: impl FnOnce(&mut Status)) -> Status {
        let mut status = status.clone();
        change(&mut status);
        status
    }

    #[test]
    fn rates_are_what_counters_rose_by_in_the_time_between() {
        let begin = Instant::now();
        let first = sample::status();
        let second = later(&first, |status| {
            for link in &mut status.connections {
                link.tx_bytes += 1_000_000;
                link.rx_frames += 500;
            }
        });
        let mut view = View::new(first.clone(), begin);
        assert!(view.rows().iter().all(|row| row.bits == (0.0, 0.0)), "nothing to compare with");
        view.add(second, begin + Duration::from_secs(2));
        let rows = view.rows();
        let known: Vec<_> = rows.iter().filter(|row| row.state == ConnectionState::Established).collect();
        assert!(!known.is_empty());
        assert!(
            known.iter().all(|row| row.bits == (4_000_000.0, 0.0) && row.frames == (0.0, 250.0)),
            "{rows:?}"
        );
        // Another run counts from zero: no rate.
        let third = later(&first, |status| status.uid = weave_wire::Uid(77));
        view.add(third, begin + Duration::from_secs(3));
        assert!(view.rows().iter().all(|row| row.bits == (0.0, 0.0)));
    }

    #[test]
    fn links_that_stand_come_first_in_every_order() {
        let mut view = View::new(sample::status(), Instant::now());
        for _ in 0..3 {
            let stands: Vec<_> =
                view.rows().iter().map(|row| row.state == ConnectionState::Established).collect();
            assert!(stands.is_sorted_by(|a, b| a >= b), "{stands:?} by {:?}", view.order());
            view.sort_next();
        }
        assert_eq!(view.order(), Order::Rate);
    }

    #[test]
    fn what_is_shown_never_begins_behind_the_end() {
        let mut view = View::new(sample::status(), Instant::now());
        view.scroll(50);
        assert_eq!(view.first(12, 10), 2);
        view.scroll(-50);
        assert_eq!(view.first(12, 10), 0);
        assert_eq!(view.first(3, 10), 0);
    }
}
