//! What the kernel may answer to a send, also where no kernel at hand does.
//!
//! Each answer is put in the place of the true one: the kernel did send, so the receiver sees once
//! more what is sent again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::Shard;
use crate::command::{Command, LinkId, Mode, ReceiveSession, Report, Routes, SendSession};
use crate::counters::{Counters, DropReason};
use crate::group::{GroupConfig, build};
use crate::handover::Inbox;
use crate::io::ring::Operation;
use crate::io::{sends::SLOTS, socket};
use crate::shard::Door;
use crate::{CommandQueue, boot_time, probe};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg, setsockopt, sockopt};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use weave_crypto::{Key, Ring, SendKey};
use weave_wire::packet::Transport;
use weave_wire::vnet::{VNET_LEN, VnetHeader};
use weave_wire::{InnerHeader, Lane, OUTER_LEN, PeerName, SessionIndex, checksum};
use zerocopy::IntoBytes;

const LINK: LinkId = LinkId(0);
const WITHIN: Duration = Duration::from_secs(10);

/// A shard whose turns the test makes, and both its ends.
struct Bench {
    shard: Shard,
    tap: UnixDatagram,
    far: UdpSocket,
    /// Where the shard receives.
    address: SocketAddr,
    counters: Arc<Counters>,
    reports: async_channel::Receiver<Report>,
}

impl Bench {
    /// With a key of its own for each `key`.
    fn new(key: u8) -> Self {
        let (inner, tap) = UnixDatagram::pair().unwrap();
        // A super-frame may be larger than what a pair holds otherwise.
        setsockopt(&inner, sockopt::SndBufForce, &(1 << 20)).unwrap();
        let sockets = socket::open(Some(Ipv4Addr::LOCALHOST.into()), 0, 1, true).unwrap();
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, sockets.port));
        let config = GroupConfig {
            own_name: PeerName::new([2, 0, 0, 0, 0, 1]).unwrap(),
            mtu: 1376,
            sockets,
            taps: vec![OwnedFd::from(inner)],
            features: probe(&[]).unwrap(),
            join_tcp: true,
            join_udp: true,
            clear: true,
            cores: Vec::new(),
            completions: None,
        };
        let commands = CommandQueue::new().unwrap();
        let doors = [Door {
            commands,
            inbox: Inbox::new(),
            woken: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }]
        .into();
        let counters = Arc::new(Counters::default());
        let (reporter, reports) = async_channel::bounded(100);
        let mut shard =
            build(&config, 0, &doors, &Arc::default(), &[Arc::clone(&counters)], &reporter).unwrap();
        shard.ring.enable().unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.set_read_timeout(Some(WITHIN)).unwrap();
        let address = far.local_addr().unwrap();
        let routes = Arc::new(Routes { broadcast: vec![LINK], ..Routes::default() });
        shard.tables.begin_turn(boot_time());
        for command in [
            Command::SetRoutes(routes),
            Command::SetLink { link: LINK, address, counters: Arc::default() },
            Command::SetSend(Box::new(SendSession {
                link: LINK,
                epoch: 1,
                index: SessionIndex(1),
                mode: Mode::Clear,
                lane: Lane::data(0).unwrap(),
                key: Key::from_bytes([key; 32]),
                expires: boot_time() + Duration::from_secs(3600),
            })),
        ] {
            shard.run_command(command).unwrap();
        }
        let mut bench = Self { shard, tap, far, address: own, counters, reports };
        bench.shard.flush().unwrap();
        bench.answer(0);
        bench.received(1);
        bench
    }

    /// Lets the shard read `count` frames and send them at once; answers the send.
    fn send(&mut self, count: usize, answer: i32) {
        self.send_of(&vec![60; count], answer);
    }

    /// The same with frames of these lengths.
    fn send_of(&mut self, lengths: &[usize], answer: i32) {
        let count = lengths.len();
        for (number, &len) in lengths.iter().enumerate() {
            let mut frame = vec![0xff; len];
            frame[len - 1] = number as u8;
            self.tap.send(&[VnetHeader::plain().as_bytes(), &frame].concat()).unwrap();
        }
        let before = self.counters.tap_reads.get();
        while self.counters.tap_reads.get() < before + count as u64 {
            self.shard.arm().unwrap();
            self.shard.ring.wait().unwrap();
            self.shard.take_completions();
            while let Some(completion) = self.shard.completions.pop_front() {
                self.shard.handle(completion).unwrap();
            }
        }
        self.shard.flush().unwrap();
        self.shard.time_turn();
        self.answer(answer);
    }

    /// Waits for sends to be done and puts `answer` in place of the kernel's; returns how many.
    fn answer(&mut self, answer: i32) -> usize {
        let mut answered = 0;
        while answered == 0 {
            self.shard.ring.wait().unwrap();
            self.shard.take_completions();
            while let Some(completion) = self.shard.completions.pop_front() {
                if let Operation::Send(slot) = completion.operation {
                    assert!(completion.result > 0, "the kernel sent nothing: {}", completion.result);
                    self.shard.on_sent(slot, if answer == 0 { completion.result } else { -answer }).unwrap();
                    answered += 1;
                }
            }
        }
        answered
    }

    /// Takes `count` datagrams at the far end.
    fn received(&self, count: usize) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2000];
        (0..count)
            .map(|_| {
                let len = self.far.recv(&mut buffer).unwrap();
                buffer[..len].to_vec()
            })
            .collect()
    }
}

#[test]
fn every_error_of_a_send_is_counted_and_frees_its_slot() {
    let mut bench = Bench::new(1);
    for (reason, errors) in [
        (DropReason::SendQueueFull, &[libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM][..]),
        (DropReason::TooBig, &[libc::EMSGSIZE]),
        (
            DropReason::Unreachable,
            &[libc::ECONNREFUSED, libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ENETDOWN],
        ),
        (DropReason::SendError, &[libc::EPERM, libc::EACCES]),
    ] {
        for (count, &error) in (1..).zip(errors) {
            bench.send(5, error);
            assert_eq!(bench.counters.drops(reason), 5 * count, "{} after {error}", reason.name());
            assert_eq!(bench.shard.sends.free(), usize::from(SLOTS), "a slot is lost after {error}");
            bench.received(5);
        }
    }
    // One datagram has nothing to be segmented: repeating it would not help.
    bench.send(1, libc::EIO);
    assert_eq!(bench.counters.drops(DropReason::SendError), 5 * 2 + 1);
    assert_eq!(bench.counters.segmentation_refused.get(), 0);
    bench.received(1);
    bench.send(5, 0);
    assert_eq!(bench.counters.datagrams_sent.get(), 1 + 5);
}

#[test]
fn what_a_route_will_not_segment_goes_out_one_by_one_for_a_minute() {
    for (key, refusal) in [(2, libc::EIO), (3, libc::EINVAL)] {
        let mut bench = Bench::new(key);
        bench.send(5, refusal);
        let first = bench.received(5);
        // The same datagrams once more, none sealed again.
        let mut answered = 0;
        while answered < 5 {
            answered += bench.answer(0);
        }
        assert_eq!(bench.received(5), first);
        assert_eq!(bench.counters.segmentation_refused.get(), 1);
        assert_eq!(bench.counters.datagrams_sent.get(), 1 + 5);
        assert_eq!(bench.shard.sends.free(), usize::from(SLOTS));
        bench.shard.send_reports();
        assert_eq!(bench.reports.try_recv(), Ok(Report::SegmentationRefused(LINK)));

        // Not tried again at once.
        bench.send(5, 0);
        while bench.shard.sends.free() < usize::from(SLOTS) {
            bench.answer(0);
        }
        bench.received(5);
        assert!(!bench.shard.tables.may_segment(LINK));
        // But after a minute.
        let later = bench.shard.tables.now + Duration::from_secs(61);
        bench.shard.tables.begin_turn(later);
        bench.send(5, 0);
        bench.received(5);
        bench.shard.send_reports();
        assert_eq!(bench.reports.try_recv(), Ok(Report::SegmentationRetried(LINK)));
        assert_eq!(bench.counters.segmentation_refused.get(), 1);
    }
}

#[test]
fn segments_that_are_too_long_do_not_look_like_a_route_that_takes_none() {
    let mut bench = Bench::new(6);
    bench.send_of(&[60, 60, 60, 40], libc::EINVAL);
    bench.received(4);
    // As `udp_send_skb` said it before Linux 6.14; the last one is short enough.
    let mut answered = 0;
    while answered < 3 {
        answered += bench.answer(libc::EMSGSIZE);
    }
    while bench.shard.sends.free() < usize::from(SLOTS) {
        bench.answer(0);
    }
    assert!(bench.shard.tables.may_segment(LINK));
    bench.shard.send_reports();
    assert!(bench.reports.try_recv().is_err());
}

#[test]
fn a_shorter_datagram_at_the_end_of_a_batch_too_big_goes_out() {
    let mut bench = Bench::new(4);
    bench.send_of(&[60, 60, 60, 40], libc::EMSGSIZE);
    let first = bench.received(4);
    assert_eq!(bench.counters.drops(DropReason::TooBig), 3);
    assert_eq!(bench.answer(0), 1);
    assert_eq!(bench.received(1), first[3..]);
    assert_eq!(bench.counters.datagrams_sent.get(), 1 + 1);
    assert_eq!(bench.shard.sends.free(), usize::from(SLOTS));
    // It may be too big as well.
    bench.send_of(&[60, 40], libc::EMSGSIZE);
    bench.answer(libc::EMSGSIZE);
    assert_eq!(bench.counters.drops(DropReason::TooBig), 5);
    assert_eq!(bench.shard.sends.free(), usize::from(SLOTS));
}

#[test]
fn one_frame_in_256_is_timed_until_its_datagrams_are_queued() {
    let mut bench = Bench::new(5);
    let timed = |bench: &Bench| bench.counters.frame_times.get().0.iter().sum::<u64>();
    for sent in 1..=512 {
        bench.shard.tables.begin_turn(boot_time());
        bench.send(1, 0);
        bench.received(1);
        assert_eq!(timed(&bench), sent / 256, "after {sent} frames");
    }
    let (_, sum_ns) = bench.counters.frame_times.get();
    assert!((200..1_000_000_000).contains(&sum_ns), "{sum_ns} ns");
}

const SEGMENT: usize = 100;

/// A segment of a flow of UDP, the checksums complete.
fn segment(number: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((28 + SEGMENT as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 1, 2]);
    frame.extend((8 + SEGMENT as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend([number; SEGMENT]);
    let at = Transport::find(&frame).unwrap();
    at.ipv4_mut(&mut frame).unwrap().complete_checksum();
    checksum::prepare(&mut frame, &at);
    checksum::complete(&mut frame, &at);
    frame
}

/// Lets a shard receive datagrams of so many segments each in one turn; returns what it wrote to the tap.
fn received_in_one_turn(key: u8, groups: &[u8]) -> Vec<Vec<u8>> {
    let mut bench = Bench::new(key);
    let (peer, lane, session) =
        (PeerName::new([2, 0, 0, 0, 0, 2]).unwrap(), Lane::data(0).unwrap(), SessionIndex(2));
    let receive = ReceiveSession {
        link: LINK,
        peer,
        address: Ipv4Addr::LOCALHOST.into(),
        epoch: 1,
        index: session,
        mode: Mode::Clear,
        keys: vec![(lane, Key::from_bytes([key; 32]))],
        expires: boot_time() + Duration::from_secs(3600),
    };
    bench.shard.run_command(Command::InstallReceive(Box::new(receive))).unwrap();
    let mut sender: SendKey<Ring> = SendKey::new(&Key::from_bytes([key; 32]), session, lane);
    let SocketAddr::V4(to) = bench.address else { unreachable!() };
    let to: SockaddrIn = SocketAddrV4::into(to);
    let mut number = 0;
    for &count in groups {
        let datagrams: Vec<Vec<u8>> = (number..number + count)
            .map(|number| {
                let inner = InnerHeader::new(peer, None, None);
                let mut datagram = [&[0; OUTER_LEN], inner.as_bytes(), &segment(number)].concat();
                sender.frame_clear(&mut datagram).unwrap();
                datagram
            })
            .collect();
        number += count;
        let pieces: Vec<_> = datagrams.iter().map(|datagram| IoSlice::new(datagram)).collect();
        let len = datagrams[0].len() as u16;
        let merged = [ControlMessage::UdpGsoSegments(&len)];
        sendmsg(bench.far.as_raw_fd(), &pieces, &merged, MsgFlags::empty(), Some(&to)).unwrap();
    }
    while bench.shard.completions.iter().filter(|one| one.operation == Operation::Receive).count()
        < groups.len()
    {
        bench.shard.arm().unwrap();
        bench.shard.ring.wait().unwrap();
        bench.shard.take_completions();
    }
    while let Some(completion) = bench.shard.completions.pop_front() {
        bench.shard.handle(completion).unwrap();
    }
    bench.shard.finish().unwrap();
    bench.shard.ring.submit().unwrap();
    bench.tap.set_read_timeout(Some(WITHIN)).unwrap();
    let mut buffer = vec![0; 1 << 17];
    let (mut written, mut left) = (Vec::new(), usize::from(number));
    while left > 0 {
        let len = bench.tap.recv(&mut buffer).unwrap();
        let payload = &buffer[VNET_LEN + 42..len];
        assert_eq!(payload.len() % SEGMENT, 0);
        left -= payload.len() / SEGMENT;
        written.push(payload.to_vec());
    }
    // All buffers go back to the kernel.
    while bench.shard.receive.lent() > 0 {
        bench.shard.ring.wait().unwrap();
        bench.shard.take_completions();
        while let Some(completion) = bench.shard.completions.pop_front() {
            bench.shard.handle(completion).unwrap();
        }
    }
    written
}

#[test]
fn segments_are_joined_across_all_that_came_in_a_turn() {
    for (key, groups, written) in [
        (10, &[3][..], &[3][..]),
        (11, &[1, 1, 1, 1], &[4]),
        (12, &[45, 3, 16], &[64]),
        // A super-frame has 64 segments at most; the next goes on in the same buffer.
        (13, &[40, 40, 40, 40], &[64, 64, 32]),
        (14, &[1; 32], &[32]),
        (15, &[60, 10, 70, 1, 1], &[64, 64, 14]),
    ] {
        let frames = received_in_one_turn(key, groups);
        let lengths: Vec<usize> = frames.iter().map(|frame| frame.len() / SEGMENT).collect();
        assert_eq!(lengths, written, "{groups:?}");
        let all = frames.concat();
        let numbers: Vec<u8> = all.chunks(SEGMENT).map(|segment| segment[0]).collect();
        assert_eq!(numbers, (0..groups.iter().sum()).collect::<Vec<u8>>(), "{groups:?}");
        assert!(all.chunks(SEGMENT).all(|segment| segment.iter().all(|byte| *byte == segment[0])));
    }
}
