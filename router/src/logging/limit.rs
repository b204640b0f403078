//! Leaves lines out where there are too many of one kind.
//!
//! A line of one place in the source comes [`LINES`] times in [`WINDOW`] at most for each cause, the
//! peer or address that it is about, so that one noisy peer does not hide the others; and
//! [`LINES_OF_ALL`] times in all. What is left out is counted, and said when the window has ended.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Lines of one kind about one cause in one [`WINDOW`], at most.
const LINES: u32 = 50;
/// Lines of one kind about all causes in one [`WINDOW`], at most.
const LINES_OF_ALL: u32 = 500;
/// See [`LINES`].
const WINDOW: Duration = Duration::from_secs(10);
/// Pairs of kind and cause that are told apart at once; those of more causes count together.
const KINDS: usize = 1024;
/// Kinds of which it is said at the end of a window what was left out; the others are added up.
const SAID: usize = 32;
/// Longest text of a line that is kept to say what was left out, bytes.
const TEXT_MAX: usize = 120;
/// Fields that name whom a line is about, the best first.
const CAUSES: [&str; 5] = ["peer", "address", "remote", "target", "mac"];

static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Lines left out since the start.
pub(crate) fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Limit(Arc<Mutex<Table>>);

/// A place in the source, and the cause if it is told apart.
type Kind = (Identifier, Option<u64>);

#[derive(Debug, Default)]
struct Table {
    /// At most [`KINDS`] beside one for each place in the source, of which there are few.
    kinds: HashMap<Kind, Seen>,
    /// Lines of each place, whatever their cause.
    all: HashMap<Identifier, Seen>,
    /// Kinds with lines left out whose window ended; at most [`KINDS`].
    ended: Vec<Omitted>,
    /// A thread waits to say what was left out.
    telling: bool,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    lines: u32,
    omitted: Omitted,
}

/// Lines that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Omitted {
    lines: u64,
    /// The first of them.
    text: String,
    cause: String,
}

impl Seen {
    fn new(since: Instant) -> Self {
        Self { since, lines: 0, omitted: Omitted::default() }
    }

    fn has_ended(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }
}

impl Table {
    /// True if the line is to be written; else it counts as left out.
    fn admit(&mut self, place: &Identifier, line: &Line, now: Instant) -> bool {
        let kind = self.kind(place, line, now);
        let Self { kinds, all, ended, .. } = self;
        let own = kinds.entry(kind).or_insert_with(|| Seen::new(now));
        let all = all.entry(place.clone()).or_insert_with(|| Seen::new(now));
        for seen in [&mut *own, &mut *all] {
            if seen.has_ended(now) {
                keep(ended, std::mem::replace(seen, Seen::new(now)).omitted);
            }
        }
        if own.lines < LINES && all.lines < LINES_OF_ALL {
            own.lines += 1;
            all.lines += 1;
            return true;
        }
        if own.omitted.lines == 0 {
            own.omitted.text.clone_from(&line.text);
            own.omitted.cause.clone_from(&line.cause);
        }
        own.omitted.lines += 1;
        false
    }

    /// What a line counts as: where there are too many causes, their lines count together.
    fn kind(&mut self, place: &Identifier, line: &Line, now: Instant) -> Kind {
        let common = (place.clone(), None);
        if line.cause.is_empty() {
            return common;
        }
        let mut hasher = DefaultHasher::new();
        line.cause.hash(&mut hasher);
        let own = (place.clone(), Some(hasher.finish()));
        if self.kinds.contains_key(&own) {
            return own;
        }
        if self.kinds.len() >= KINDS {
            self.expire(now);
        }
        if self.kinds.len() < KINDS { own } else { common }
    }

    /// Forgets kinds whose window has ended.
    fn expire(&mut self, now: Instant) {
        let Self { kinds, ended, .. } = self;
        kinds.retain(|_, seen| {
            let stays = !seen.has_ended(now);
            if !stays {
                keep(ended, std::mem::take(&mut seen.omitted));
            }
            stays
        });
    }

    /// Takes what is to be said now; and whether more will be later.
    fn take_ended(&mut self, now: Instant) -> (Vec<Omitted>, bool) {
        self.expire(now);
        let more = self.kinds.values().any(|seen| seen.omitted.lines > 0);
        (std::mem::take(&mut self.ended), more)
    }
}

fn keep(ended: &mut Vec<Omitted>, omitted: Omitted) {
    if omitted.lines == 0 {
        return;
    }
    let is_full = ended.len() >= KINDS;
    match ended.last_mut().filter(|_| is_full) {
        Some(last) => last.lines += omitted.lines,
        None => ended.push(omitted),
    }
}

/// What counts of a line.
#[derive(Debug, Default)]
struct Line {
    text: String,
    /// Whom it is about; empty: nobody in particular.
    cause: String,
    /// Where the cause stands in [`CAUSES`].
    rank: usize,
}

impl Line {
    fn of(event: &Event<'_>) -> Self {
        let mut line = Self { rank: CAUSES.len(), ..Self::default() };
        event.record(&mut line);
        line
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.text, "{value:?}");
            let end = self.text.floor_char_boundary(TEXT_MAX);
            self.text.truncate(end);
        } else if let Some(rank) = CAUSES.iter().position(|name| *name == field.name())
            && rank < self.rank
        {
            self.rank = rank;
            self.cause = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // What is asked for by level is wanted whole.
        if *event.metadata().level() > tracing::Level::INFO {
            return true;
        }
        let line = Line::of(event);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.admit(&event.metadata().callsite(), &line, Instant::now()) {
            return true;
        }
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut table.telling, true) {
            let shared = Arc::clone(&self.0);
            // Not before there is something to say: privileges are given up before there is a second
            // thread, and no start writes so many lines.
            let started = std::thread::Builder::new().name("weave-log".into()).spawn(move || tell(&shared));
            table.telling = started.is_ok();
        }
        false
    }
}

/// Says at the end of each window what was left out, until nothing is.
fn tell(table: &Mutex<Table>) {
    loop {
        std::thread::sleep(WINDOW);
        let (ended, more) = {
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            let (ended, more) = table.take_ended(Instant::now());
            table.telling = more;
            (ended, more)
        };
        say(ended);
        if !more {
            return;
        }
    }
}

/// One line for each kind, those with the most lines first; one for all that are too many.
fn say(mut ended: Vec<Omitted>) {
    ended.sort_by_key(|omitted| std::cmp::Reverse(omitted.lines));
    let rest: u64 = ended.iter().skip(SAID).map(|omitted| omitted.lines).sum();
    for Omitted { lines, text, cause } in ended.into_iter().take(SAID) {
        let about = if cause.is_empty() { String::new() } else { format!(" about {cause}") };
        tracing::warn!(lines, "{lines} lines{about} like this one were left out: {text}");
    }
    if rest > 0 {
        tracing::warn!(lines = rest, "{rest} lines of other kinds were left out");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `write` logs through a limit, and that.
    fn logged(write: impl FnOnce()) -> (String, Arc<Mutex<Table>>) {
        let (written, limit) = (Lines::default(), Limit::default());
        let (writer, table) = (written.clone(), Arc::clone(&limit.0));
        let log = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(limit).with(log);
        tracing::subscriber::with_default(subscriber, write);
        (String::from_utf8(written.0.lock().unwrap().clone()).unwrap(), table)
    }

    fn count(text: &str, what: &str) -> u32 {
        text.lines().filter(|line| line.contains(what)).count().try_into().unwrap()
    }

    #[test]
    fn lines_of_one_kind_are_limited_and_others_are_not() {
        let before = left_out();
        let (text, _) = logged(|| {
            for number in 0..3 * LINES {
                tracing::warn!(number, "again");
                tracing::debug!("asked for");
            }
            tracing::warn!("once");
        });
        assert_eq!((count(&text, "again"), count(&text, "once")), (LINES, 1));
        assert_eq!(count(&text, "asked for"), 3 * LINES);
        assert!(left_out() - before >= u64::from(2 * LINES));
    }

    #[test]
    fn a_noisy_peer_hides_no_other_and_what_is_left_out_is_said() {
        let lost = |peer: &str| tracing::warn!(%peer, "link lost: reset");
        let (text, table) = logged(|| {
            (0..4 * LINES).for_each(|_| lost("noisy"));
            lost("quiet");
        });
        assert_eq!((count(&text, "noisy"), count(&text, "quiet")), (LINES, 1), "{text}");
        let (ended, more) = table.lock().unwrap().take_ended(Instant::now());
        assert!(ended.is_empty() && more, "the window lasts");
        let (ended, more) = table.lock().unwrap().take_ended(Instant::now() + WINDOW);
        assert!(!more);
        let (said, _) = logged(|| say(ended));
        let words = format!("{} lines about noisy like this one were left out: link lost: reset", 3 * LINES);
        assert_eq!((said.lines().count(), count(&said, &words)), (1, 1), "{said}");
    }

    #[test]
    fn all_causes_together_are_limited_and_so_is_what_is_kept_of_them() {
        let peers = 4 * KINDS as u32;
        let (text, table) = logged(|| {
            for peer in 0..peers {
                tracing::warn!(peer, "link lost");
            }
        });
        assert_eq!(count(&text, "link lost"), LINES_OF_ALL);
        let mut table = table.lock().unwrap();
        assert!(table.kinds.len() <= KINDS + 1, "{}", table.kinds.len());
        let (ended, _) = table.take_ended(Instant::now() + WINDOW);
        let lines: u64 = ended.iter().map(|omitted| omitted.lines).sum();
        assert_eq!(lines, u64::from(peers - LINES_OF_ALL));
        let (said, _) = logged(|| say(ended));
        assert_eq!(said.lines().count(), SAID + 1, "{said}");
    }

    #[test]
    fn a_kind_is_heard_again_after_a_while_and_what_it_lost_is_not_forgotten() {
        let (mut table, begin) = (Table::default(), Instant::now());
        let (place, line) = (Identifier(&CALLSITE), Line { text: "t".into(), ..Line::default() });
        assert_eq!((0..100).filter(|_| table.admit(&place, &line, begin)).count(), LINES as usize);
        assert!(table.admit(&place, &line, begin + WINDOW));
        let (ended, more) = table.take_ended(begin + WINDOW);
        assert_eq!(ended, [Omitted { lines: 50, text: "t".into(), cause: String::new() }]);
        assert!(!more);
    }

    struct Callsite;
    static CALLSITE: Callsite = Callsite;
    impl tracing::callsite::Callsite for Callsite {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}
        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("nobody asks")
        }
    }
}
