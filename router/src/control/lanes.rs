//! What each lane carried, over links that are there and that were.

use std::sync::Arc;
use weave_forward::LinkCounters;

/// Frames that went one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) frames: u64,
    /// Of these frames.
    pub(super) bytes: u64,
}

/// What a shard sent on its lane, and received on the lanes of peers that it owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LaneSample {
    pub(super) sent: Carried,
    pub(super) received: Carried,
}

/// Of each shard; counters do not go back when a link goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Lanes(Vec<LaneSample>);

impl Lanes {
    /// Adds what the shards carried over one link.
    pub(super) fn add(&mut self, link: &[Arc<LinkCounters>]) {
        if self.0.len() < link.len() {
            self.0.resize(link.len(), LaneSample::default());
        }
        for (lane, counters) in self.0.iter_mut().zip(link) {
            lane.sent.frames += counters.frames_sent.get();
            lane.sent.bytes += counters.bytes_sent.get();
            lane.received.frames += counters.frames_received.get();
            lane.received.bytes += counters.bytes_received.get();
        }
    }

    /// Those of one shard.
    pub(super) fn of(&self, shard: usize) -> LaneSample {
        self.0.get(shard).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lost_link_carried_stays() {
        let link = |frames: u64| {
            let counters: Vec<Arc<LinkCounters>> = (0..2).map(|_| Arc::default()).collect();
            counters[1].frames_sent.add(frames);
            counters[1].bytes_received.add(10 * frames);
            counters
        };
        let mut past = Lanes::default();
        assert_eq!(past.of(1), LaneSample::default());
        past.add(&link(3));
        let mut all = past.clone();
        all.add(&link(4));
        let expected = |frames| LaneSample {
            sent: Carried { frames, bytes: 0 },
            received: Carried { frames: 0, bytes: 10 * frames },
        };
        assert_eq!((past.of(1), all.of(1), all.of(0)), (expected(3), expected(7), LaneSample::default()));
    }
}
