//! Several callers at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Does `work` once for each number below `count`, by so many callers at once.
///
/// # Panics
/// When one of them does.
pub fn at_once(callers: usize, count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let caller = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            work(number);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..callers {
            // The end of the scope waits for it, and panics when it did.
            scope.spawn(caller);
        }
    });
}
