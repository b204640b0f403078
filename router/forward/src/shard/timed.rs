//! How long frames stay in the router: one in [`ONE_IN`] is timed.
//!
//! From the turn that took it from the tap until its datagrams are queued for the kernel, or it
//! was dropped. A turn reads the clock anyway; the end of one that timed a frame does once more.

use super::Shard;
use crate::clock::boot_time;
use std::time::Duration;

/// Super-frames and frames of which one is timed; a power of two.
const ONE_IN: u64 = 256;

/// The frame being timed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timed {
    buffer: u16,
    since: Duration,
    /// All of it is on its way.
    done: bool,
}

impl Shard {
    /// A frame came from the tap into `buffer`.
    #[inline]
    pub(super) fn time_read(&mut self, buffer: u16) {
        if self.counters.tap_reads.get() & (ONE_IN - 1) == 0 && self.timed.is_none() {
            self.timed = Some(Timed { buffer, since: self.tables.now, done: false });
        }
    }

    /// The frame in `buffer` is done with.
    #[inline]
    pub(super) fn time_done(&mut self, buffer: u16) {
        if let Some(timed) = self.timed.as_mut().filter(|timed| timed.buffer == buffer) {
            timed.done = true;
        }
    }

    /// What was built in this turn goes to the kernel now.
    #[inline]
    pub(super) fn time_turn(&mut self) {
        if let Some(timed) = self.timed.take_if(|timed| timed.done) {
            let time = boot_time().saturating_sub(timed.since);
            self.counters.frame_times.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Notes how full the shard is.
    pub(super) fn note_fill(&mut self) {
        let submissions = self.ring.unsubmitted();
        let fill = &self.counters.fill;
        fill.read_buffers.set(self.read.lent());
        fill.receive_buffers.set(self.receive.lent());
        fill.send_slots.set(self.sends.count_used());
        fill.parked.set(self.parked.len());
        fill.submissions.set(submissions);
        fill.completions.set(self.completions.len());
    }
}
