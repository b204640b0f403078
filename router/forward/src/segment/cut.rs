//! From a super-frame of the tap to segments that fit one datagram each.

use crate::counters::DropReason;
use weave_wire::checksum::{self, Sum};
use weave_wire::inner::ChecksumRequest;
use weave_wire::packet::{Protocol, Transport, tcp_flags};
use weave_wire::vnet::{Gso, VnetHeader};
use weave_wire::{ETHERNET_LEN, packet::IpVersion};

/// What the tap delivered, read and checked.
#[derive(Debug, Clone, Copy)]
pub enum Outgoing {
    /// One frame, sent as it is, with the request to complete its checksum.
    Whole(Option<ChecksumRequest>),
    /// A super-frame.
    Super(SuperFrame),
}

impl Outgoing {
    /// Frames that it is or becomes.
    #[must_use]
    pub fn frames(&self) -> usize {
        match self {
            Self::Whole(_) => 1,
            Self::Super(plan) => plan.count(),
        }
    }
}

/// Segments of a super-frame, at most: one of more would keep a shard from all else for too long. TCP
/// of Linux makes no more: 65,535 bytes in segments of 36, a `tcp_min_snd_mss` of 48 with time stamps.
const SEGMENTS_MAX: usize = 65_535 / 36 + 1;

/// A TCP or UDP packet that is to be cut into segments.
#[derive(Debug, Clone, Copy)]
pub struct SuperFrame {
    at: Transport,
    segment: usize,
    first_id: u16,
    first_sequence: u32,
    /// Length of the TCP header, in its upper half, as it stands before the flags.
    data_offset: u8,
    flags: u8,
    /// Of the pseudo header without the length.
    pseudo: Sum,
    /// Of what is the same in all transport headers.
    same: Sum,
    /// `None`: checksums are completed here.
    request: Option<ChecksumRequest>,
}

/// Reads what the tap delivered: `vnet` is its header, `frame` what follows.
/// With `complete`, a checksum the kernel left open is completed here (links
/// without authentication carry no open checksums).
///
/// # Errors
/// The reason to drop the frame: too short, or offload fields that do not fit it.
pub fn classify(vnet: &VnetHeader, frame: &mut [u8], complete: bool) -> Result<Outgoing, DropReason> {
    if frame.len() < ETHERNET_LEN {
        return Err(DropReason::FrameTooShort);
    }
    let gso = vnet.gso().map_err(|_| DropReason::BadOffload)?;
    match (gso, vnet.checksum_request()) {
        (None, None) => Ok(Outgoing::Whole(None)),
        (None, Some((start, offset))) => Ok(Outgoing::Whole(request(frame, start, offset, complete)?)),
        (Some(_), None) => Err(DropReason::BadOffload),
        (Some((gso, size)), Some((start, _))) => {
            let super_frame = SuperFrame::read(frame, gso, size, start, complete)?;
            if super_frame.count() > 1 {
                return Ok(Outgoing::Super(super_frame));
            }
            // A "super-frame" of one segment: an ordinary frame.
            super_frame.write_checksum(frame);
            Ok(Outgoing::Whole(super_frame.request))
        }
    }
}

/// The request to complete the checksum that starts at `start`, if TCP or UDP
/// is found there; any other checksum is completed at once.
fn request(
    frame: &mut [u8],
    start: usize,
    offset: usize,
    complete: bool,
) -> Result<Option<ChecksumRequest>, DropReason> {
    if let Some(at) = Transport::find(frame).filter(|at| at.l4 == start && at.end == frame.len())
        && usize::from(at.protocol.checksum_field().offset()) == offset
        && let Some(request) = at.checksum_request()
    {
        if !complete {
            return Ok(Some(request));
        }
        if !at.has_options {
            checksum::complete(frame, &at);
            return Ok(None);
        }
    }
    // As the kernel's skb_checksum_help() does: the field holds the start value (with a routing header
    // that of the last destination, RFC 8200 §8.1), and a sum of zero becomes ones, since zero means
    // "none" in UDP, which IPv6 refuses.
    let mut sum = Sum::default().with(frame.get(start..).ok_or(DropReason::BadOffload)?).checksum();
    if sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    let field = start + offset;
    frame.get_mut(field..field + 2).ok_or(DropReason::BadOffload)?.copy_from_slice(&sum);
    Ok(None)
}

impl SuperFrame {
    fn read(
        frame: &[u8],
        gso: Gso,
        segment: usize,
        start: usize,
        complete: bool,
    ) -> Result<Self, DropReason> {
        let at = Transport::find(frame).ok_or(DropReason::BadOffload)?;
        let fits = match gso {
            Gso::TcpV4 => at.protocol == Protocol::Tcp && at.version == IpVersion::V4,
            Gso::TcpV6 => at.protocol == Protocol::Tcp && at.version == IpVersion::V6,
            Gso::Udp => at.protocol == Protocol::Udp,
        };
        let count = at.end.saturating_sub(at.payload).checked_div(segment);
        let is_bounded = count.is_some_and(|count| count <= SEGMENTS_MAX);
        if !fits || at.l4 != start || at.end != frame.len() || !is_bounded {
            return Err(DropReason::BadOffload);
        }
        let request = if complete { None } else { at.checksum_request() };
        let tcp = at.tcp(frame);
        Ok(Self {
            at,
            segment,
            first_id: at.ipv4(frame).map_or(0, |header| header.id()),
            first_sequence: tcp.map_or(0, |header| header.sequence()),
            data_offset: if tcp.is_some() { frame[at.l4 + 12] } else { 0 },
            flags: tcp.map_or(0, |header| header.flags()),
            pseudo: pseudo_header(frame, &at),
            same: sum_of_same(&frame[at.l4..at.payload], at.protocol),
            request,
        })
    }

    /// The same packet, to be cut so that no segment is longer than `room` as a frame,
    /// bytes. `None` if its headers alone are not shorter, or if it is UDP: each of its
    /// segments is a datagram of the sender's, not to be cut.
    #[must_use]
    pub fn cut_to(self, room: usize) -> Option<Self> {
        let segment = room.checked_sub(self.at.payload).filter(|segment| *segment > 0)?;
        (self.at.protocol == Protocol::Tcp).then(|| Self { segment: segment.min(self.segment), ..self })
    }

    const fn payload_len(&self) -> usize {
        self.at.end - self.at.payload
    }

    /// Number of segments, at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        self.payload_len().div_ceil(self.segment).max(1)
    }

    /// Length of segment `index` as a frame, bytes.
    #[must_use]
    pub fn segment_len(&self, index: usize) -> usize {
        self.at.payload + self.segment.min(self.payload_len() - index * self.segment)
    }

    /// The checksum request of every segment; `None` if their checksums are complete.
    #[must_use]
    pub const fn request(&self) -> Option<ChecksumRequest> {
        self.request
    }

    /// Writes segment `index` of `frame` to `out`, which is
    /// [`segment_len`](Self::segment_len) long. Its checksum field holds its checksum, or with a
    /// [request](Self::request) the sum of its pseudo header.
    #[inline]
    pub fn write(&self, frame: &[u8], index: usize, out: &mut [u8]) {
        let at = Transport { end: out.len(), ..self.at };
        let offset = index * self.segment;
        out[..at.payload].copy_from_slice(&frame[..at.payload]);
        #[expect(clippy::cast_possible_truncation, reason = "a super-frame has at most 65,535 bytes")]
        let (index16, offset32, ip_len) = (index as u16, offset as u32, (at.end - at.l3) as u16);
        #[expect(clippy::cast_possible_truncation, reason = "as above")]
        let transport_len = (at.end - at.l4) as u16;
        if let Some(header) = at.ipv4_mut(out) {
            header.set_total_len(ip_len);
            header.set_id(self.first_id.wrapping_add(index16));
            if at.has_options {
                complete_with_options(out, &at);
            } else {
                header.complete_checksum();
            }
        } else if let Some(header) = at.ipv6_mut(out) {
            header.set_payload_len(ip_len - weave_wire::packet::Ipv6Header::LEN as u16);
        }
        let sequence = self.first_sequence.wrapping_add(offset32);
        let flags = self.flags_of(index);
        if let Some(header) = at.tcp_mut(out) {
            header.set_sequence(sequence);
            header.set_flags(flags);
        } else if let Some(header) = at.udp_mut(out) {
            header.set_len(transport_len);
        }
        let payload = &frame[at.payload + offset..at.payload + offset + (at.end - at.payload)];
        let pseudo = self.pseudo.with_u16(transport_len);
        let sum = if self.request.is_some() {
            pseudo.partial()
        } else {
            // Of what was read, not of what is written: that would wait for all stores before it.
            let header = self.header_sum(sequence, flags, transport_len);
            at.protocol.sent(pseudo.with_sum(header).with(payload))
        };
        out[at.checksum_field()].copy_from_slice(&sum);
        // Last, for the same reason.
        out[at.payload..].copy_from_slice(payload);
    }

    /// Writes the checksum field of all of `frame` as [`write`](Self::write) does that of a segment.
    fn write_checksum(&self, frame: &mut [u8]) {
        let Self { at, pseudo, .. } = self;
        #[expect(clippy::cast_possible_truncation, reason = "a super-frame has at most 65,535 bytes")]
        let pseudo = pseudo.with_u16((at.end - at.l4) as u16);
        frame[at.checksum_field()].fill(0);
        let sum = match self.request {
            Some(_) => pseudo.partial(),
            None => at.protocol.sent(pseudo.with(&frame[at.l4..at.end])),
        };
        frame[at.checksum_field()].copy_from_slice(&sum);
    }

    /// The flags of segment `index`, if it is of TCP.
    fn flags_of(&self, index: usize) -> u8 {
        let mut flags = self.flags;
        if index + 1 < self.count() {
            flags &= !(tcp_flags::FIN | tcp_flags::PSH);
        }
        if index > 0 {
            flags &= !tcp_flags::CWR;
        }
        flags
    }

    /// The sum of the transport header of a segment whose checksum field is zero: that of all
    /// segments, and what differs.
    #[inline]
    fn header_sum(&self, sequence: u32, flags: u8, len: u16) -> Sum {
        match self.at.protocol {
            Protocol::Tcp => {
                #[expect(clippy::cast_possible_truncation, reason = "halves")]
                let (high, low) = ((sequence >> 16) as u16, sequence as u16);
                let offset_and_flags = u16::from_be_bytes([self.data_offset, flags]);
                self.same.with_u16(high).with_u16(low).with_u16(offset_and_flags)
            }
            Protocol::Udp => self.same.with_u16(len),
        }
    }
}

/// The sum of the pseudo header of a super-frame without the length.
///
/// Where a routing header or option says where else the packet goes, the last destination counts,
/// not that of the IP header (RFC 8200 §8.1): it is taken from what the kernel left in the field, the
/// sum of the pseudo header with the length of the whole.
fn pseudo_header(frame: &[u8], at: &Transport) -> Sum {
    if !at.has_options {
        return checksum::pseudo_header(frame, at, 0);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a super-frame has at most 65,535 bytes")]
    let len = (at.end - at.l4) as u16;
    Sum::default().with(&frame[at.checksum_field()]).with_u16(!len)
}

/// The sum of those fields of a transport header that are the same in all segments of a super-frame.
fn sum_of_same(header: &[u8], protocol: Protocol) -> Sum {
    match protocol {
        // All but sequence number, data offset, flags and checksum (RFC 9293 §3.1).
        Protocol::Tcp => {
            Sum::default().with(&header[..4]).with(&header[8..12]).with(&header[14..16]).with(&header[18..])
        }
        Protocol::Udp => Sum::default().with(&header[..4]),
    }
}

/// The header checksum of an IPv4 header with options (RFC 791 §3.1).
#[cold]
fn complete_with_options(frame: &mut [u8], at: &Transport) {
    let field = at.l3 + 10..at.l3 + 12;
    frame[field.clone()].fill(0);
    let sum = Sum::default().with(&frame[at.l3..at.l4]).checksum();
    frame[field].copy_from_slice(&sum);
}
