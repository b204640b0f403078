//! In steady state no frame costs an allocation.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "shards/rig/mod.rs"]
mod rig;

use rig::mesh::{Mesh, between};
use rig::{Options, Rig, frame, receive};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use weave_wire::checksum;
use weave_wire::packet::Transport;
use weave_wire::vnet::{Gso, VnetHeader};
use zerocopy::IntoBytes;

/// The system's allocator, and how often it was asked.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Held by the test that counts.
static ALONE: Mutex<()> = Mutex::new(());

/// Frames under way at once: enough for batches, less than any queue holds.
const WINDOW: usize = 50;

/// A super-frame of `count` TCP segments, its offload header first.
fn super_frame(count: usize) -> Vec<u8> {
    const SEGMENT: usize = 1000;
    let mut frame = frame(1, 14);
    frame.truncate(12);
    let len = (40 + count * SEGMENT) as u16;
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 80, 1, 2, 0, 0, 0, 1, 0, 0, 0, 7, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.resize(frame.len() + count * SEGMENT, 9);
    let at = Transport::find(&frame).unwrap();
    at.ipv4_mut(&mut frame).unwrap().complete_checksum();
    checksum::prepare(&mut frame, &at);
    let header = VnetHeader::super_frame(Gso::TcpV4, 54, SEGMENT as u16, 34, 16);
    [header.as_bytes(), &frame].concat()
}

/// Carries `count` times `bytes` from A to B; returns how much arrived, bytes.
fn carry(rig: &Rig, bytes: &[u8], count: usize, buffer: &mut [u8]) -> usize {
    let (from, to) = (&rig.a.taps[0], &rig.b.taps[0]);
    let mut arrived = 0;
    for _ in 0..count / WINDOW {
        for _ in 0..WINDOW {
            from.send(bytes).unwrap();
        }
        for _ in 0..WINDOW {
            arrived += receive(to, buffer).unwrap();
        }
    }
    arrived
}

#[test]
fn ten_thousand_frames_cost_no_allocation() {
    let _alone = ALONE.lock();
    let rig = Rig::new(Options::default());
    let mut buffer = vec![0; 70_000];
    let small = [VnetHeader::plain().as_bytes(), &frame(1, 64)].concat();
    let large = [VnetHeader::plain().as_bytes(), &frame(1, 1390)].concat();
    // Buffers of the queues grow to their size, stations are learned.
    for bytes in [&small, &large] {
        carry(&rig, bytes, 2 * WINDOW, &mut buffer);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for bytes in [&small, &large] {
        assert_eq!(carry(&rig, bytes, 5000, &mut buffer), 5000 * bytes.len());
    }
    let spent = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(spent, 0, "allocations for 10,000 frames");
}

#[test]
fn super_frames_cost_no_allocation() {
    let _alone = ALONE.lock();
    let rig = Rig::new(Options::default());
    let mut buffer = vec![0; 70_000];
    let super_frame = super_frame(40);
    let (from, to) = (&rig.a.taps[0], &rig.b.taps[0]);
    let mut before = 0;
    // A super-frame arrives whole or in a few pieces.
    for round in 0..110 {
        if round == 10 {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        from.send(&super_frame).unwrap();
        let mut payload = 0;
        while payload < 40_000 {
            payload += receive(to, &mut buffer).unwrap() - 64;
        }
        assert_eq!(payload, 40_000);
    }
    let spent = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(spent, 0, "allocations for 100 super-frames");
}

#[test]
fn a_relayed_frame_costs_no_allocation() {
    let _alone = ALONE.lock();
    let mesh = Mesh::line(&Options::default(), 3);
    mesh.attach(1, 3);
    let mut buffer = vec![0; 70_000];
    // For everybody so few that they are no storm.
    let frames = [(3, WINDOW), (0, WINDOW / 5)]
        .map(|(to, count)| ([VnetHeader::plain().as_bytes(), &between(1, to, 1, 1390)].concat(), count));
    let mut before = 0;
    for round in 0..110 {
        if round == 10 {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        for (frame, count) in &frames {
            for _ in 0..*count {
                mesh.side(1).taps[0].send(frame).unwrap();
            }
            for _ in 0..*count {
                assert_eq!(receive(&mesh.side(3).taps[0], &mut buffer).unwrap(), frame.len());
            }
        }
        // Those for everybody reached the relay's own tap, too.
        for _ in 0..WINDOW / 5 {
            receive(&mesh.side(2).taps[0], &mut buffer).unwrap();
        }
    }
    let spent = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(spent, 0, "allocations for 6,000 relayed frames");
}
