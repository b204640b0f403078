//! Sockets over which this router tells other daemons of this host what other hosts say: names to the
//! DNS sidecar, addresses to the keeper.

use super::core::Event;
use crate::rt::{self, UnixListener, UnixStream};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use weave_api::REPLY_MAX;
use weave_api::frame::encode;
use weave_api::names::Says;
use weave_api::server::{REQUEST_TIME_LIMIT, hello_frame};
use weave_api::updates::{FRAME_ENTRIES, READERS_MAX, Update};
use weave_wire::{HostName, MacAddr};

/// Changes that wait for a reader, at most; one that is further behind begins anew.
const CHANGES: usize = 256;
// All that is said of one name fits one frame.
const _: () = assert!(weave_mesh::MAX_NAME_ADDRESSES < FRAME_ENTRIES);
/// Wait after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What others say of names; nothing: the name is gone.
pub(super) type Names = BTreeMap<HostName, Vec<Says>>;
/// At which station an address is attached elsewhere; `None`: at none any more.
pub(super) type Addresses = BTreeMap<IpAddr, Option<MacAddr>>;

/// What is told of a key.
pub(super) trait Told: Clone + Serialize {
    /// Entries it counts as in a frame, less than [`FRAME_ENTRIES`].
    fn entries(&self) -> usize;
}

impl Told for Vec<Says> {
    fn entries(&self) -> usize {
        self.len().max(1)
    }
}

impl Told for Option<MacAddr> {
    fn entries(&self) -> usize {
        1
    }
}

/// The readers of one socket, as the core sees them.
#[derive(Debug)]
pub(super) struct Readers<K, V>(Vec<rt::Sender<BTreeMap<K, V>>>);

impl<K, V> Default for Readers<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Clone, V: Clone> Readers<K, V> {
    /// Takes one in, with all there is to tell. Where there are too many the first is cut off: one
    /// that is gone is not seen to be before it is told something.
    pub(super) fn add(&mut self, reader: rt::Sender<BTreeMap<K, V>>, all: BTreeMap<K, V>) {
        self.0.retain(|reader| !reader.is_closed());
        if reader.try_send(all).is_ok() {
            self.0.push(reader);
            self.0.drain(..self.0.len().saturating_sub(READERS_MAX));
        }
    }

    /// True if nobody listens.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells all of a change; who has no room for it is cut off.
    pub(super) fn tell(&mut self, change: &BTreeMap<K, V>) {
        self.0.retain(|reader| reader.try_send(change.clone()).is_ok());
    }
}

/// Readers of a socket that are served or have yet to be found gone, at most: each may hold all there
/// is.
const SERVED_MAX: usize = 2 * READERS_MAX;

/// Serves readers until the runtime ends; `reads` is the event that one of them came.
pub(super) async fn serve<K, V>(
    listener: UnixListener,
    events: rt::Sender<Event>,
    reads: fn(rt::Sender<BTreeMap<K, V>>) -> Event,
) where
    K: Ord + Serialize + 'static,
    V: Told + 'static,
{
    let served = Rc::new(());
    loop {
        match listener.accept().await {
            Ok(_) if Rc::strong_count(&served) > SERVED_MAX => {
                tracing::debug!("a reader of updates is refused: {SERVED_MAX} are served");
            }
            Ok(stream) => {
                let (events, served) = (events.clone(), Rc::clone(&served));
                rt::spawn(async move {
                    if let Err(error) = tell(stream, events, reads).await {
                        tracing::debug!("a reader of updates: {error}");
                    }
                    drop(served);
                });
            }
            Err(error) => {
                tracing::debug!("accepting a reader of updates: {error}");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn tell<K: Ord + Serialize, V: Told>(
    mut stream: UnixStream,
    events: rt::Sender<Event>,
    reads: fn(rt::Sender<BTreeMap<K, V>>) -> Event,
) -> io::Result<()> {
    write(&mut stream, &hello_frame()).await?;
    let (sender, changes) = rt::bounded(CHANGES);
    let gone = |_| io::Error::other("the control core has ended");
    events.send(reads(sender)).await.map_err(gone)?;
    let mut complete = false;
    while let Ok(change) = changes.recv().await {
        for frame in frames(change) {
            write(&mut stream, &frame?).await?;
            rt::yield_now().await;
        }
        if !std::mem::replace(&mut complete, true) {
            write(&mut stream, &frame(&Update::<K, V>::Complete)?).await?;
        }
    }
    Ok(())
}

/// Cut so that none is too long, and made one by one: they may be many.
fn frames<K: Ord + Serialize, V: Told>(change: BTreeMap<K, V>) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    let mut left = change.into_iter().peekable();
    std::iter::from_fn(move || {
        let (mut set, mut count) = (BTreeMap::new(), 0);
        while let Some((key, told)) = left.next_if(|(_, told)| count + told.entries() < FRAME_ENTRIES) {
            count += told.entries();
            set.insert(key, told);
        }
        (!set.is_empty()).then(|| frame(&Update::Set(set)))
    })
}

fn frame<K: Ord + Serialize, V: Serialize>(update: &Update<K, V>) -> io::Result<Vec<u8>> {
    encode(update, REPLY_MAX).map_err(io::Error::other)
}

async fn write(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "the reader does not read"));
    rt::timeout(REQUEST_TIME_LIMIT, stream.write_all(bytes)).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weave_api::frame::Decoder;
    use weave_api::names::NamesUpdate;

    fn says(number: u8) -> Says {
        let address = [10, 2, 1, number].into();
        Says { origin: "02:00:00:00:00:01".parse().unwrap(), address, container: Default::default() }
    }

    #[test]
    fn many_names_are_cut_into_frames_that_hold_all_of_them() {
        let name = |n: usize| format!("name-{n}.weave.local").parse::<HostName>().unwrap();
        let full: Vec<Says> = (0..64).map(says).collect();
        let all: Names =
            (0..500).map(|n| (name(n), if n == 7 { Vec::new() } else { full.clone() })).collect();
        let mut decoder = Decoder::new(REPLY_MAX);
        let mut told = Names::new();
        for frame in frames(all.clone()) {
            decoder.push(&frame.unwrap());
            let NamesUpdate::Set(set) = decoder.next_value().unwrap().unwrap() else { panic!() };
            told.extend(set);
        }
        assert_eq!(told, all);
    }

    #[test]
    fn readers_that_are_gone_keep_no_new_one_out() {
        let mut readers = Readers::default();
        let receivers: Vec<_> = (0..READERS_MAX + 2)
            .map(|_| {
                let (sender, receiver) = rt::bounded(2);
                readers.add(sender, Names::new());
                receiver
            })
            .collect();
        readers.tell(&Names::new());
        let told: Vec<_> = receivers.iter().map(rt::Receiver::len).collect();
        assert_eq!(told, [&[1; 2][..], &[2; READERS_MAX]].concat());
        assert!(receivers[0].is_closed() && !receivers[2].is_closed());
    }

    #[test]
    fn a_reader_that_is_too_slow_is_cut_off() {
        let mut readers = Readers::default();
        let (sender, receiver) = rt::bounded(2);
        readers.add(sender, Names::new());
        let change = Names::from([("a.weave.local".parse().unwrap(), vec![says(1)])]);
        readers.tell(&change);
        assert!(!readers.is_empty());
        readers.tell(&change);
        assert!(readers.is_empty());
        assert_eq!(receiver.len(), 2);
        assert!(receiver.is_closed());
    }
}
