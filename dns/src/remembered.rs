//! What resolvers answered, for as long as it holds.

use std::collections::hash_map::RandomState;
use std::time::{Duration, Instant};

use hickory_server::proto::rr::{LowerName, Record, RecordType};
use hickory_server::proto::serialize::binary::BinEncodable;
use lru::LruCache;

use crate::answer::Answer;

/// Answers, at most.
const ANSWERS_MAX: usize = 10_000;
/// Memory of all answers, bytes: a hundred of the largest that fit a message, or 10,000 common ones.
const BYTES_MAX: usize = 16 << 20;
/// How long one is kept at most.
const TIME_MAX: Duration = Duration::from_secs(300);

/// What was asked, of the class IN.
pub(crate) type Key = (LowerName, RecordType);

/// Answers by what was asked. Where there is no room, the one that was used longest ago goes.
#[derive(Debug)]
pub(crate) struct RememberedAnswers {
    // Names are chosen by who asks: the keyed hasher of the standard library.
    answers: LruCache<Key, Remembered, RandomState>,
    bytes: usize,
}

#[derive(Debug)]
struct Remembered {
    answer: Answer,
    at: Instant,
    lasts: Duration,
    bytes: usize,
}

impl Default for RememberedAnswers {
    fn default() -> Self {
        Self { answers: LruCache::unbounded_with_hasher(RandomState::new()), bytes: 0 }
    }
}

impl RememberedAnswers {
    /// The answer to the same question at `now`, with what is left of its time.
    pub(crate) fn get(&mut self, key: &Key, now: Instant) -> Option<Answer> {
        let remembered = self.answers.get(key)?;
        let age = now.saturating_duration_since(remembered.at);
        if age >= remembered.lasts {
            self.remove(key);
            return None;
        }
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let mut answer = remembered.answer.clone();
        for record in answer.records.iter_mut().chain(&mut answer.soa) {
            record.ttl = record.ttl.saturating_sub(seconds);
        }
        Some(answer)
    }

    /// Keeps an answer, if it says how long it holds. Returns how many went for it that still held.
    pub(crate) fn keep(&mut self, key: Key, answer: &Answer, now: Instant) -> u64 {
        let records = || answer.records.iter().chain(&answer.soa);
        let lasts = records().map(|record| record.ttl).min().unwrap_or(0);
        // That there is nothing holds as long as a SOA says (RFC 2308, 5).
        let is_known =
            !answer.soa.is_empty() || answer.records.iter().any(|record| record.record_type() == key.1);
        if !is_known || lasts == 0 {
            return 0;
        }
        let bytes = size_of::<(Key, Remembered)>() + records().map(record_bytes).sum::<usize>();
        self.remove(&key);
        let mut gone = 0;
        while self.answers.len() >= ANSWERS_MAX || self.bytes + bytes > BYTES_MAX {
            let Some((_, oldest)) = self.answers.pop_lru() else { return gone };
            self.bytes -= oldest.bytes;
            gone += u64::from(now.saturating_duration_since(oldest.at) < oldest.lasts);
        }
        let lasts = Duration::from_secs(lasts.into()).min(TIME_MAX);
        self.bytes += bytes;
        self.answers.put(key, Remembered { answer: answer.clone(), at: now, lasts, bytes });
        gone
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.answers.clear();
        self.bytes = 0;
    }

    fn remove(&mut self, key: &Key) {
        if let Some(old) = self.answers.pop(key) {
            self.bytes -= old.bytes;
        }
    }
}

/// Memory of a record: what it says and, about twice that, its names and data.
fn record_bytes(record: &Record) -> usize {
    size_of::<Record>() + record.to_bytes().map_or(0, |encoded| 2 * encoded.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use hickory_server::proto::rr::rdata::{A, TXT};
    use hickory_server::proto::rr::{Name, RData};

    use super::*;

    fn key(n: usize, kind: RecordType) -> Key {
        (LowerName::from(Name::from_ascii(format!("n{n}.test.")).unwrap()), kind)
    }

    fn answer(n: usize, ttl: u32) -> Answer {
        let name = Name::from(key(n, RecordType::A).0);
        let record = Record::from_rdata(name, ttl, RData::A(A(Ipv4Addr::LOCALHOST)));
        Answer { records: vec![record], ..Answer::default() }
    }

    #[test]
    fn an_answer_holds_for_its_time_and_says_what_is_left() {
        let (mut remembered, now) = (RememberedAnswers::default(), Instant::now());
        let a = key(1, RecordType::A);
        remembered.keep(a.clone(), &answer(1, 10), now);
        let later = remembered.get(&a, now + Duration::from_secs(4)).unwrap();
        assert_eq!(later.records[0].ttl, 6);
        assert_eq!(remembered.get(&key(1, RecordType::AAAA), now), None);
        assert_eq!(remembered.get(&a, now + Duration::from_secs(10)), None);
        assert_eq!(remembered.bytes, 0, "what is over goes");
        remembered.keep(a.clone(), &answer(1, 1_000_000), now);
        assert_eq!(remembered.get(&a, now + TIME_MAX), None, "five minutes at most");
    }

    #[test]
    fn what_says_no_time_or_nothing_of_what_was_asked_is_not_kept() {
        let (mut remembered, now) = (RememberedAnswers::default(), Instant::now());
        remembered.keep(key(1, RecordType::A), &answer(1, 0), now);
        remembered.keep(key(1, RecordType::AAAA), &answer(1, 10), now);
        remembered.keep(key(2, RecordType::A), &Answer::default(), now);
        assert!(remembered.answers.is_empty());
    }

    #[test]
    fn a_flood_of_names_leaves_those_that_are_used() {
        let (mut remembered, now) = (RememberedAnswers::default(), Instant::now());
        let used = key(0, RecordType::A);
        remembered.keep(used.clone(), &answer(0, 300), now);
        let mut gone = 0;
        for n in 1..2 * ANSWERS_MAX {
            gone += remembered.keep(key(n, RecordType::A), &answer(n, 300), now);
            assert!(remembered.get(&used, now).is_some());
        }
        assert_eq!(remembered.answers.len(), ANSWERS_MAX);
        assert_eq!(gone, ANSWERS_MAX as u64);
        assert_eq!(remembered.bytes, remembered.answers.iter().map(|(_, kept)| kept.bytes).sum::<usize>());
    }

    #[test]
    fn large_answers_take_no_more_memory_than_the_limit() {
        let (mut remembered, now) = (RememberedAnswers::default(), Instant::now());
        let text = TXT::new(vec!["x".repeat(255); 200]);
        for n in 0..2000 {
            let name = Name::from(key(n, RecordType::TXT).0);
            let records = vec![Record::from_rdata(name, 300, RData::TXT(text.clone()))];
            remembered.keep(key(n, RecordType::TXT), &Answer { records, ..Answer::default() }, now);
            assert!(remembered.bytes <= BYTES_MAX);
        }
        let kept = remembered.answers.len();
        assert!((100..200).contains(&kept), "{kept}");
        remembered.clear();
        assert_eq!(remembered.keep(key(1, RecordType::A), &answer(1, 10), now), 0);
    }

    #[test]
    fn an_answer_that_is_kept_again_counts_once() {
        let (mut remembered, now) = (RememberedAnswers::default(), Instant::now());
        remembered.keep(key(1, RecordType::A), &answer(1, 10), now);
        let bytes = remembered.bytes;
        remembered.keep(key(1, RecordType::A), &answer(1, 20), now);
        assert_eq!((remembered.bytes, remembered.answers.len()), (bytes, 1));
    }
}
