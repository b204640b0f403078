//! A container that sends frames for everybody as fast as it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::World;
use crate::raw::{OFFLOAD, RawSocket};
use crate::world::INTERFACE;

/// An EtherType for experiments (IEEE 802).
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
/// Length of the frames: the shortest of Ethernet.
const FRAME: usize = 60;

/// The flood at work; dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Begins to send from the first container of host `from`, each frame under the address that
    /// `source` gives for its number.
    #[must_use]
    pub fn start(world: &World, from: usize, source: impl Fn(u64) -> [u8; 6] + Send + 'static) -> Self {
        let socket = world.inside(from, || RawSocket::open(INTERFACE));
        let (over, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = {
            let (over, sent) = (Arc::clone(&over), Arc::clone(&sent));
            std::thread::spawn(move || {
                let mut frame = [0; OFFLOAD + FRAME];
                frame[OFFLOAD..OFFLOAD + 6].fill(0xff);
                frame[OFFLOAD + 12..OFFLOAD + 14].copy_from_slice(&EXPERIMENT);
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    frame[OFFLOAD + 6..OFFLOAD + 12].copy_from_slice(&source(number));
                    // What the kernel has no room for is the container's own trouble.
                    let taken = socket.send(&frame);
                    sent.fetch_add(u64::from(taken), Ordering::Relaxed);
                }
            })
        };
        Self { over, sent, thread: Some(thread) }
    }

    /// Frames that the kernel took so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; frames that the kernel took.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}
