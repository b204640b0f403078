//! What is due when.

use super::{Mesh, receive::CHECK_PULLS};
use crate::output::{Signer, Timer};
use std::time::Duration;

/// How often it is looked for what can be collected.
pub(super) const COLLECT_EVERY: Duration = Duration::from_secs(30);

impl<S: Signer> Mesh<S> {
    /// When [`Self::handle_timeout`] must be called, and why.
    pub fn poll_timeout(&self) -> Option<(Duration, Timer)> {
        let summary = (!self.links.is_empty()).then_some(self.summary_at);
        let timers = [
            (self.own.publish_at(), Timer::Publish),
            (self.announce_at, Timer::Announce),
            (self.check_pulls_at, Timer::Pulls),
            (self.routes_at, Timer::Routes),
            (self.index_at, Timer::Index),
            (self.paths.deadline(), Timer::FormerPaths),
            (summary, Timer::Summary),
            (Some(self.collect_at), Timer::Collect),
        ];
        timers.into_iter().filter_map(|(at, timer)| at.map(|at| (at, timer))).min()
    }

    /// Does all that is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if is_due(self.routes_at) {
            self.recompute(now);
        }
        if is_due(self.index_at) {
            self.index_some(now);
        }
        if is_due(self.paths.deadline()) {
            self.paths.expire(now);
            self.refresh_routes();
        }
        if is_due(self.own.publish_at()) {
            self.publish(now);
        }
        if is_due(self.announce_at) {
            self.flush_announcements();
        }
        if is_due(self.check_pulls_at) {
            self.check_pulls(now);
        }
        if is_due(Some(self.summary_at)) {
            self.send_summaries(now);
        }
        if is_due(Some(self.collect_at)) {
            self.collect(now);
        }
    }

    fn check_pulls(&mut self, now: Duration) {
        self.counters.unanswered += self.wants.expire(now);
        self.check_pulls_at = self.wants.is_waiting().then(|| now.saturating_add(CHECK_PULLS));
        self.wants_changed = true;
        self.ask(now);
    }

    fn collect(&mut self, now: Duration) {
        self.collect_at = now.saturating_add(COLLECT_EVERY);
        for name in self.store.collect(now) {
            self.counters.collected += 1;
            if self.topology.remove(name) {
                self.routes_dirty(now);
            }
        }
        self.after_drops(now);
    }
}
