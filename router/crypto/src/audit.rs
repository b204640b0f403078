//! The nonce audit of test builds: no nonce is ever used twice under one key.
//!
//! A repeat would be fatal to AES-GCM and shows in no other test, so debug builds
//! (and others with the feature `nonce-audit`) watch every seal of the process,
//! however often a key is expanded again. Consecutive numbers take the memory of
//! one, so that 10^7 seals cost little.
//!
//! What one process cannot see, it writes down: with `WEAVE_TEST_NONCE_LOG` naming
//! a file, each process appends a line for every key it begins to seal with, and
//! one when that key goes. A key of two processes would repeat its first nonce.

use crate::Key;
use crate::aead::NONCE_LEN;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

type KeyId = [u8; 32];

static KEYS: LazyLock<Mutex<HashMap<KeyId, Arc<Mutex<Numbers>>>>> = LazyLock::new(Mutex::default);

/// A set of numbers as disjoint ranges that do not touch: first to last.
#[derive(Debug, Default)]
struct Numbers(BTreeMap<u128, u128>);

impl Numbers {
    /// False if `number` was in the set before.
    fn insert(&mut self, number: u128) -> bool {
        let mut range = (number, number);
        if let Some((&first, &last)) = self.0.range(..=number).next_back() {
            if number <= last {
                return false;
            }
            if last + 1 == number {
                range.0 = first;
            }
        }
        if let Some(last) = self.0.remove(&(number + 1)) {
            range.1 = last;
        }
        self.0.insert(range.0, range.1);
        true
    }
}

impl Numbers {
    /// How many there are.
    fn count(&self) -> u128 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }
}

/// The file of `WEAVE_TEST_NONCE_LOG`.
static LOG: LazyLock<Option<File>> = LazyLock::new(|| {
    let path = std::env::var_os("WEAVE_TEST_NONCE_LOG")?;
    Some(match File::options().create(true).append(true).open(&path) {
        Ok(file) => file,
        Err(error) => fail(&format!("opening WEAVE_TEST_NONCE_LOG={}: {error}", path.display())),
    })
});

/// One line: `begin` or `end`, process, key, nonces used so far.
fn log(event: &str, id: &KeyId, used: u128) {
    let Some(mut file) = LOG.as_ref() else { return };
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    // In one write, so that lines of several processes do not mix.
    let line = format!("{event} {} {id} {used}\n", std::process::id());
    if let Err(error) = file.write_all(line.as_bytes()) {
        fail(&format!("writing to WEAVE_TEST_NONCE_LOG: {error}"));
    }
}

/// Ends the process: whatever a thread that only panicked left behind would go on.
#[cfg(not(test))]
#[expect(clippy::print_stderr, reason = "the process ends here, whoever started it must learn why")]
fn fail(what: &str) -> ! {
    eprintln!("nonce audit: {what}");
    std::process::abort()
}

/// Panics, so that a test can see it.
#[cfg(test)]
fn fail(what: &str) -> ! {
    panic!("nonce audit: {what}")
}

/// Watches the nonces of one key.
#[derive(Debug)]
pub(crate) struct Audit {
    id: KeyId,
    numbers: Arc<Mutex<Numbers>>,
}

impl Audit {
    /// The watcher of `key`: the same one for equal keys, in the whole process.
    pub(crate) fn of(key: &Key) -> Self {
        let id = Sha256::new_with_prefix(b"weave nonce audit").chain_update(key.as_bytes());
        let id = id.finalize().into();
        let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = keys.entry(id).or_insert_with(|| {
            log("begin", &id, 0);
            Arc::default()
        });
        Self { id, numbers: Arc::clone(numbers) }
    }

    /// Records a nonce that is about to be used for sealing. Ends the process if
    /// it was used before: this is what the audit is for.
    pub(crate) fn record(&self, nonce: &[u8; NONCE_LEN]) {
        let number = nonce.iter().fold(0, |number, &byte| number << 8 | u128::from(byte));
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if !numbers.insert(number) {
            drop(numbers);
            fail(&format!("nonce {number:#x} used twice under one key"));
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let used = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).count();
        log("end", &self.id, used);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    #[should_panic(expected = "used twice")]
    fn a_repeat_is_caught_through_another_expansion_of_the_key() {
        let key = Key::from_bytes([0x5a; 32]);
        Audit::of(&key).record(&[1; NONCE_LEN]);
        Audit::of(&key).record(&[1; NONCE_LEN]);
    }

    #[test]
    fn consecutive_numbers_take_one_range() {
        let mut numbers = Numbers::default();
        assert!((0..10_000_u128).rev().all(|number| numbers.insert(number)));
        assert_eq!(numbers.0.len(), 1);
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(input in prop::collection::vec(0_u128..60, 0..200)) {
            let (mut numbers, mut set) = (Numbers::default(), HashSet::new());
            for number in input {
                prop_assert_eq!(numbers.insert(number), set.insert(number));
            }
        }
    }
}
