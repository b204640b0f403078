//! What is counted.

use std::cell::Cell;
use std::collections::BTreeMap;

macro_rules! counters {
    ($($name:ident: $doc:literal,)*) => {
        /// Counters of the sidecar.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(#[doc = $doc] pub(crate) $name: Cell<u64>,)*
        }

        impl Counters {
            /// All of them by name.
            pub(crate) fn all(&self) -> BTreeMap<String, u64> {
                BTreeMap::from([$((stringify!($name).to_owned(), self.$name.get()),)*])
            }
        }
    };
}

counters! {
    queries: "Questions read.",
    answered: "Questions answered from memory.",
    remembered: "Questions answered as the resolvers did before.",
    forgotten: "Answers of resolvers that still held and made room for others.",
    forwarded: "Questions that the resolvers were asked.",
    forward_failed: "Those without an answer.",
    forward_full: "Those refused because too many waited, in all or of one source.",
    refused: "Questions of those who may not ask, or that nobody answers.",
    malformed: "Messages that are no questions.",
    unsent: "Answers that found no room in the socket.",
    truncated: "Answers that did not fit a datagram.",
    tcp_full: "Connections closed because there were too many.",
}

/// Counts one more.
pub(crate) fn count(counter: &Cell<u64>) {
    add(counter, 1);
}

/// Counts so many more.
pub(crate) fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get().saturating_add(more));
}
