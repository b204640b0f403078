//! A bound on things done for others, a second.

use std::time::Duration;

/// How often something was done in this second.
#[derive(Debug, Default)]
pub(super) struct PerSecond {
    second: u64,
    count: u32,
}

impl PerSecond {
    /// Takes note of one more at `now`; false if there were `limit` in its second.
    pub(super) const fn admit(&mut self, now: Duration, limit: u32) -> bool {
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            self.count = 0;
        }
        let admitted = self.count < limit;
        self.count += admitted as u32;
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_the_limit_says_are_admitted_in_a_second() {
        let mut done = PerSecond::default();
        for second in [5, 6, 9] {
            let admitted = (0..1000).filter(|_| done.admit(Duration::from_secs(second), 100)).count();
            assert_eq!(admitted, 100);
        }
    }
}
