#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::cut::{Outgoing, classify};
use super::join::{Checksum, Joined, Run};
use proptest::prelude::*;
use weave_wire::checksum::{self, Sum};
use weave_wire::packet::{IpVersion, Protocol, Transport, tcp_flags};
use weave_wire::vnet::{Gso, VNET_LEN, VnetHeader};
use zerocopy::IntoBytes;

#[derive(Debug, Clone)]
struct Flow {
    version: IpVersion,
    protocol: Protocol,
    tagged: bool,
    options: bool,
    sequence: u32,
    id: u16,
    push: bool,
    payload: usize,
    segment: usize,
}

fn flows() -> impl Strategy<Value = Flow> {
    (any::<[bool; 5]>(), any::<u32>(), any::<u16>(), 2usize..=40, 1usize..=1400, any::<prop::sample::Index>())
        .prop_map(|([v4, tcp, tagged, options, push], sequence, id, count, segment, last)| {
            let payload = (count - 1) * segment + 1 + last.index(segment);
            Flow {
                version: if v4 { IpVersion::V4 } else { IpVersion::V6 },
                protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
                tagged,
                options,
                sequence,
                id,
                push,
                payload,
                segment,
            }
        })
}

/// A frame as a container's kernel makes it; its transport checksum is open.
fn build(flow: &Flow) -> (Vec<u8>, Transport) {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if flow.tagged {
        frame.extend([0x81, 0, 0, 5]);
    }
    let transport = match flow.protocol {
        Protocol::Tcp => 20 + if flow.options { 12 } else { 0 },
        Protocol::Udp => 8,
    };
    let len = u16::try_from(transport + flow.payload).unwrap();
    match flow.version {
        IpVersion::V4 => {
            frame.extend([8, 0, 0x45, 2]);
            frame.extend((len + 20).to_be_bytes());
            frame.extend(flow.id.to_be_bytes());
            frame.extend([0x40, 0, 64, flow.protocol.number(), 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        IpVersion::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 9]);
            frame.extend(len.to_be_bytes());
            frame.extend([flow.protocol.number(), 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0xfc; 16]);
        }
    }
    match flow.protocol {
        Protocol::Tcp => {
            frame.extend([0, 80, 1, 2]);
            frame.extend(flow.sequence.to_be_bytes());
            frame.extend([0, 0, 0, 7]);
            let flags = tcp_flags::ACK | if flow.push { tcp_flags::PSH } else { 0 };
            frame.extend([if flow.options { 0x80 } else { 0x50 }, flags, 1, 0, 0, 0, 0, 0]);
            if flow.options {
                frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
            }
        }
        Protocol::Udp => {
            frame.extend([0, 80, 1, 2]);
            frame.extend(len.to_be_bytes());
            frame.extend([0, 0]);
        }
    }
    frame.extend((0..flow.payload).map(|i| (i % 251) as u8));
    let at = Transport::find(&frame).unwrap();
    if let Some(header) = at.ipv4_mut(&mut frame) {
        header.complete_checksum();
    }
    checksum::prepare(&mut frame, &at);
    (frame, at)
}

fn super_header(flow: &Flow, at: &Transport) -> VnetHeader {
    let gso = match (flow.protocol, flow.version) {
        (Protocol::Tcp, IpVersion::V4) => Gso::TcpV4,
        (Protocol::Tcp, IpVersion::V6) => Gso::TcpV6,
        (Protocol::Udp, _) => Gso::Udp,
    };
    let offset = at.protocol.checksum_field().offset();
    VnetHeader::super_frame(gso, at.payload as u16, flow.segment as u16, at.l4 as u16, offset)
}

fn cut(flow: &Flow, complete: bool) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut frame, at) = build(flow);
    let Ok(Outgoing::Super(plan)) = classify(&super_header(flow, &at), &mut frame, complete) else {
        panic!("a super-frame of {} segments", flow.payload.div_ceil(flow.segment));
    };
    let segments = (0..plan.count())
        .map(|index| {
            let mut out = vec![0; plan.segment_len(index)];
            plan.write(&frame, index, &mut out);
            out
        })
        .collect();
    (frame, segments)
}

/// Joins segments as the receiving shard does; returns what the tap is given.
fn join(segments: &[Vec<u8>], state: Checksum) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut written = Vec::new();
    let mut index = 0;
    while index < segments.len() {
        let mut first = segments[index].clone();
        let at = Transport::find(&first).unwrap();
        let mut payloads = Vec::new();
        index += 1;
        let Some(mut run) = Run::begin(&first, &at, state) else {
            written.push((VnetHeader::plain(), first));
            continue;
        };
        while index < segments.len() {
            let outcome = run.offer(&first, &segments[index], state);
            if outcome == Joined::No {
                break;
            }
            payloads.extend_from_slice(&segments[index][run.payload_start()..]);
            index += 1;
            if outcome == Joined::Closed {
                break;
            }
        }
        let header = run.finish(&mut first);
        first.extend(payloads);
        written.push((header, first));
    }
    written
}

proptest! {
    #[test]
    fn joining_what_was_cut_gives_the_same_frame(flow in flows()) {
        let (frame, segments) = cut(&flow, false);
        let joined = join(&segments, Checksum::Requested);
        prop_assert_eq!(joined.len(), 1);
        let (header, bytes) = &joined[0];
        prop_assert_eq!(bytes, &frame);
        prop_assert_eq!(header, &super_header(&flow, &Transport::find(&frame).unwrap()));
    }

    #[test]
    fn a_super_frame_cut_again_has_short_segments_and_joins_to_the_same_payload(flow in flows(), room in 55usize..1500) {
        let (mut frame, at) = build(&flow);
        let header = super_header(&flow, &at);
        let Ok(Outgoing::Super(plan)) = classify(&header, &mut frame, true) else { panic!("a super-frame") };
        let again = plan.cut_to(room);
        if flow.protocol == Protocol::Udp || room <= at.payload {
            prop_assert!(again.is_none());
            return Ok(());
        }
        let again = again.unwrap();
        let mut payload = Vec::new();
        for index in 0..again.count() {
            prop_assert!(again.segment_len(index) <= room.min(plan.segment_len(0)));
            let mut segment = vec![0; again.segment_len(index)];
            again.write(&frame, index, &mut segment);
            let at = Transport::find(&segment).unwrap();
            prop_assert!(checksum::verify(&segment, &at));
            let tcp = at.tcp(&segment).unwrap();
            prop_assert_eq!(tcp.sequence(), flow.sequence.wrapping_add(payload.len() as u32));
            prop_assert_eq!(tcp.flags() & tcp_flags::PSH != 0, flow.push && index + 1 == again.count());
            payload.extend_from_slice(&segment[at.payload..]);
        }
        prop_assert_eq!(payload, &frame[at.payload..]);
    }

    #[test]
    fn joining_completed_segments_gives_the_same_frame(flow in flows()) {
        let (frame, segments) = cut(&flow, true);
        for segment in &segments {
            prop_assert!(checksum::verify(segment, &Transport::find(segment).unwrap()));
        }
        let joined = join(&segments, Checksum::Complete);
        prop_assert_eq!(joined.len(), 1);
        prop_assert_eq!(&joined[0].1, &frame);
    }

    #[test]
    fn a_segment_with_a_wrong_checksum_is_never_joined(flow in flows(), which: prop::sample::Index, byte: prop::sample::Index) {
        let (_, mut segments) = cut(&flow, true);
        let victim = which.index(segments.len());
        let at = Transport::find(&segments[victim]).unwrap();
        let position = at.payload + byte.index(at.end - at.payload);
        segments[victim][position] ^= 1;
        let joined = join(&segments, Checksum::Complete);
        prop_assert!(joined.iter().any(|(header, bytes)| *header == VnetHeader::plain() && *bytes == segments[victim]));
    }

    #[test]
    fn segments_have_headers_of_their_own(flow in flows()) {
        let (_, segments) = cut(&flow, false);
        let mut sequence = flow.sequence;
        for (index, segment) in segments.iter().enumerate() {
            let at = Transport::find(segment).unwrap();
            prop_assert_eq!(at.end, segment.len());
            let len = (at.end - at.payload) as u32;
            if let Some(tcp) = at.tcp(segment) {
                prop_assert_eq!(tcp.sequence(), sequence);
                let last = index + 1 == segments.len();
                prop_assert_eq!(tcp.flags() & tcp_flags::PSH != 0, last && flow.push);
            }
            sequence = sequence.wrapping_add(len);
            let mut completed = segment.clone();
            checksum::complete(&mut completed, &at);
            prop_assert!(checksum::verify(&completed, &at));
        }
    }

    #[test]
    fn a_segment_of_another_flow_or_out_of_order_does_not_join(flow in flows(), field in 0usize..64, bit in 0u8..8) {
        let (_, mut segments) = cut(&flow, false);
        let at = Transport::find(&segments[1]).unwrap();
        let field = field % at.payload;
        segments[1][field] ^= 1 << bit;
        prop_assume!(Transport::find(&segments[1]).is_some());
        let first = segments[0].clone();
        let mut run = Run::begin(&first, &Transport::find(&first).unwrap(), Checksum::Requested).unwrap();
        // Only the open checksum of the segment and PSH are not compared: both are remade.
        let free = at.checksum_field().contains(&field)
            || (at.protocol == Protocol::Tcp && field == at.l4 + 13 && 1 << bit == tcp_flags::PSH);
        prop_assert_eq!(run.offer(&first, &segments[1], Checksum::Requested) != Joined::No, free);
    }

    #[test]
    fn any_bytes_from_a_tap_are_cut_or_dropped(header: [u8; VNET_LEN], mut frame in prop::collection::vec(any::<u8>(), 0..200), v4: bool, tcp: bool, complete: bool) {
        if let Some(bytes) = frame.get_mut(12..24) {
            bytes[..3].copy_from_slice(if v4 { &[8, 0, 0x45] } else { &[0x86, 0xdd, 0x60] });
            if v4 { bytes[11] = if tcp { 6 } else { 17 }; }
        }
        let mut bytes = [&header[..], &frame].concat();
        let (vnet, frame) = VnetHeader::split(&mut bytes).unwrap();
        prop_assert_eq!(vnet.as_bytes(), &header);
        if let Ok(Outgoing::Super(plan)) = classify(&vnet, frame, complete) {
            for index in 0..plan.count() {
                let mut out = vec![0; plan.segment_len(index)];
                plan.write(frame, index, &mut out);
            }
        }
    }

    #[test]
    fn any_frames_join_or_do_not(a in prop::collection::vec(any::<u8>(), 14..150), b in prop::collection::vec(any::<u8>(), 0..150)) {
        if let Some(at) = Transport::find(&a) && let Some(mut run) = Run::begin(&a, &at, Checksum::Requested) {
            let _ = run.offer(&a, &b, Checksum::Requested);
            let _ = run.finish(&mut a.clone());
        }
    }
}

#[test]
fn a_run_ends_at_64_segments_and_at_64_kib() {
    for segment in [10, 1400] {
        let flow = Flow {
            version: IpVersion::V4,
            protocol: Protocol::Udp,
            tagged: false,
            options: false,
            sequence: 0,
            id: 9,
            push: false,
            payload: segment * 40,
            segment,
        };
        let (_, part) = cut(&flow, false);
        let mut segments = part.clone();
        for more in part {
            let mut more = more;
            let at = Transport::find(&more).unwrap();
            let header = at.ipv4_mut(&mut more).unwrap();
            header.set_id(header.id() + 40);
            header.complete_checksum();
            segments.push(more);
        }
        let joined = join(&segments, Checksum::Requested);
        assert!(joined.len() == 2, "{}", joined.len());
        for (_, bytes) in joined {
            assert!(bytes.len() <= super::MAX_SUPER_FRAME);
            assert!(Transport::find(&bytes).is_some());
        }
    }
}

#[test]
fn an_open_checksum_of_another_protocol_is_completed_here() {
    // SCTP-like: IPv4, protocol 132, a 16-bit sum asked for at offset 8.
    let mut frame = vec![0u8; 60];
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[17] = 46;
    frame[23] = 132;
    frame[40] = 0x12;
    let vnet = VnetHeader::checksum(34, 8);
    assert!(matches!(classify(&vnet, &mut frame, false), Ok(Outgoing::Whole(None))));
    assert_eq!(checksum::Sum::default().with(&frame[34..]).checksum(), [0, 0]);
}

/// A TCP super-frame over IPv6 behind a routing header of `routing` bytes, by way of another host: the
/// kernel's open checksum is over the last destination (RFC 8200 §8.1). With it the sum of that pseudo
/// header without the length.
fn routed(routing: usize, payload: usize) -> (Vec<u8>, VnetHeader, Sum) {
    let last = [0xee; 16];
    let tcp_len = 20 + payload;
    let mut frame = [&[2; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    frame.extend(((routing + tcp_len) as u16).to_be_bytes());
    frame.extend([43, 64]);
    frame.extend([0xfd; 16]);
    frame.extend([0xfc; 16]);
    // RFC 8754 §2: type 4, one segment left.
    let mut header = vec![0; routing];
    header[..4].copy_from_slice(&[6, (routing / 8 - 1) as u8, 4, 1]);
    header[8..24].copy_from_slice(&last);
    frame.extend(header);
    let l4 = frame.len();
    let pseudo = Sum::default().with(&[0xfd; 16]).with(&last).with_u16(6);
    frame.extend([0, 80, 1, 2, 0, 0, 0, 9, 0, 0, 0, 7, 0x50, tcp_flags::ACK, 1, 0]);
    frame.extend(pseudo.with_u16(tcp_len as u16).partial());
    frame.extend([0, 0]);
    frame.extend((0..payload).map(|i| (i % 251) as u8));
    (frame, VnetHeader::super_frame(Gso::TcpV6, l4 as u16 + 20, 1000, l4 as u16, 16), pseudo)
}

#[test]
fn checksums_behind_a_routing_header_are_those_of_the_last_destination() {
    // Behind byte 255 there is no request for it: completed in any network.
    for (routing, is_far) in [(40, false), (240, true)] {
        for (payload, complete) in [(3000, true), (3000, false), (700, true), (700, false)] {
            let (mut frame, vnet, pseudo) = routed(routing, payload);
            let l4 = 14 + 40 + routing;
            let sent = match classify(&vnet, &mut frame, complete).unwrap() {
                Outgoing::Super(plan) => (0..plan.count())
                    .map(|index| {
                        let mut out = vec![0; plan.segment_len(index)];
                        plan.write(&frame, index, &mut out);
                        assert_eq!(plan.request().is_none(), complete || is_far);
                        out
                    })
                    .collect(),
                Outgoing::Whole(request) => {
                    assert_eq!(request.is_none(), complete || is_far);
                    vec![frame]
                }
            };
            assert_eq!(sent.len(), payload.div_ceil(1000));
            for segment in sent {
                let transport = &segment[l4..];
                let pseudo = pseudo.with_u16(transport.len() as u16);
                if complete || is_far {
                    assert_eq!(pseudo.with(transport).checksum(), [0, 0], "{routing} {payload}");
                } else {
                    assert_eq!(transport[16..18], pseudo.partial(), "{routing} {payload}");
                }
            }
        }
    }
}

#[test]
fn an_open_checksum_behind_a_routing_header_is_completed_for_the_last_destination() {
    let (mut frame, _, pseudo) = routed(40, 100);
    let l4 = 14 + 40 + 40;
    let vnet = VnetHeader::checksum(l4 as u16, 16);
    assert!(matches!(classify(&vnet, &mut frame, true), Ok(Outgoing::Whole(None))));
    assert_eq!(pseudo.with_u16(120).with(&frame[l4..]).checksum(), [0, 0]);
}

#[test]
fn offload_fields_that_do_not_fit_the_frame_are_refused() {
    let flow = Flow {
        version: IpVersion::V4,
        protocol: Protocol::Tcp,
        tagged: false,
        options: true,
        sequence: 1,
        id: 1,
        push: true,
        payload: 3000,
        segment: 1000,
    };
    let (frame, at) = build(&flow);
    let offset = 16;
    let (l4, headers) = (at.l4 as u16, at.payload as u16);
    for bad in [
        VnetHeader::super_frame(Gso::TcpV6, headers, 1000, l4, offset),
        VnetHeader::super_frame(Gso::Udp, headers, 1000, l4, offset),
        VnetHeader::super_frame(Gso::TcpV4, headers, 0, l4, offset),
        VnetHeader::super_frame(Gso::TcpV4, headers, 1000, l4 + 1, offset),
        VnetHeader::checksum(60_000, 16),
    ] {
        assert!(classify(&bad, &mut frame.clone(), false).is_err(), "{bad:?}");
    }
}

#[test]
fn a_completed_sum_of_zero_is_sent_as_ones() {
    let mut frame = [&[2; 12][..], &[0x88, 0xb5], &[0; 20], &[0xff, 0xff, 0, 0]].concat();
    assert!(matches!(classify(&VnetHeader::checksum(34, 2), &mut frame, false), Ok(Outgoing::Whole(None))));
    assert_eq!(frame[36..], [0xff, 0xff]);
}

#[test]
fn a_super_frame_of_more_segments_than_tcp_makes_is_dropped() {
    for (segment, is_taken) in [(1, false), (30, false), (36, true), (1400, true)] {
        let flow = Flow {
            version: IpVersion::V4,
            protocol: Protocol::Tcp,
            tagged: false,
            options: false,
            sequence: 1,
            id: 1,
            push: false,
            payload: 65_000,
            segment,
        };
        let (mut frame, at) = build(&flow);
        let taken = classify(&super_header(&flow, &at), &mut frame, false);
        assert_eq!(taken.is_ok(), is_taken, "{segment}");
    }
}
