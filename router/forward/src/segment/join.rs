//! From consecutive segments of a flow to one super-frame for the tap.
//!
//! The rules are those of the kernel's GRO (`tcp_gro_receive`,
//! `udp_gro_receive`, `inet_gro_receive`), but stricter: no options of IP, and
//! of TCP only ACK with PSH at the end.

use super::{MAX_SEGMENTS, MAX_SUPER_FRAME};
use weave_wire::checksum::{self, Sum};
use weave_wire::packet::{IpVersion, Ipv4Header, Ipv6Header, Protocol, Transport, tcp_flags};
use weave_wire::vnet::{Gso, VnetHeader};

/// State of the checksum of a frame that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The sender vouches for the bytes and asks to complete the field.
    Requested,
    /// The field is as its sender left it: verified before anything is joined.
    Complete,
}

/// What became of a segment offered to a [`Run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// Part of the run; more may follow.
    Open,
    /// Part of the run and its last one.
    Closed,
    /// Not part of the run.
    No,
}

/// How the IPv4 identification goes on along a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// One segment only: not known.
    Unknown,
    Rising,
    Fixed,
}

/// A run of segments, begun with its first frame, of which only positions and
/// numbers are kept. The bytes stay where they are.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    at: Transport,
    checksum: Checksum,
    /// Payload of each segment but the last, bytes.
    segment: usize,
    /// Payload of all segments, bytes.
    total: usize,
    count: usize,
    next_sequence: u32,
    first_id: u16,
    ids: Ids,
    push: bool,
}

impl Run {
    /// Begins a run with `frame`; `None` if no segment could ever join it.
    /// `at` is where its transport header was found.
    #[must_use]
    #[inline]
    pub fn begin(frame: &[u8], at: &Transport, checksum: Checksum) -> Option<Self> {
        let payload = frame.len() - at.payload;
        if payload == 0 || at.has_options || at.end != frame.len() {
            return None;
        }
        let mut run = Self {
            at: *at,
            checksum,
            segment: payload,
            total: payload,
            count: 1,
            next_sequence: 0,
            first_id: 0,
            ids: Ids::Unknown,
            push: false,
        };
        match at.version {
            IpVersion::V4 => {
                let header = at.ipv4(frame)?;
                if !header_sums_up(frame, at) {
                    return None;
                }
                run.first_id = header.id();
            }
            IpVersion::V6 => run.ids = Ids::Fixed,
        }
        match at.protocol {
            Protocol::Tcp => {
                let header = at.tcp(frame)?;
                if header.flags() != tcp_flags::ACK {
                    return None;
                }
                #[expect(clippy::cast_possible_truncation, reason = "shorter than a frame")]
                let len = payload as u32;
                run.next_sequence = header.sequence().wrapping_add(len);
            }
            Protocol::Udp => {
                if at.udp(frame)?.len() != frame.len() - at.l4 {
                    return None;
                }
            }
        }
        if checksum == Checksum::Complete && !checksum::verify(frame, at) {
            return None;
        }
        Some(run)
    }

    /// Offers the next frame to the run whose first frame is `first`.
    #[inline]
    pub fn offer(&mut self, first: &[u8], frame: &[u8], checksum: Checksum) -> Joined {
        let at = &self.at;
        if frame.len() <= at.payload || checksum != self.checksum {
            return Joined::No;
        }
        let payload = frame.len() - at.payload;
        if payload > self.segment
            || self.count == MAX_SEGMENTS
            || at.payload + self.total + payload > MAX_SUPER_FRAME
            || !self.same_flow(first, frame)
        {
            return Joined::No;
        }
        let at = Transport { end: frame.len(), ..self.at };
        let Some(ids) = self.ids_with(frame, &at) else { return Joined::No };
        let mut closes = payload < self.segment;
        if at.protocol == Protocol::Tcp {
            let Some(header) = at.tcp(frame) else { return Joined::No };
            let flags = header.flags();
            if header.sequence() != self.next_sequence || flags & !tcp_flags::PSH != tcp_flags::ACK {
                return Joined::No;
            }
            closes |= flags & tcp_flags::PSH != 0;
        } else if at.udp(frame).is_none_or(|header| header.len() != frame.len() - at.l4) {
            return Joined::No;
        }
        if checksum == Checksum::Complete && !checksum::verify(frame, &at) {
            return Joined::No;
        }
        self.ids = ids;
        self.count += 1;
        self.total += payload;
        #[expect(clippy::cast_possible_truncation, reason = "shorter than a frame")]
        let len = payload as u32;
        self.next_sequence = self.next_sequence.wrapping_add(len);
        self.push = closes && at.tcp(frame).is_some_and(|header| header.flags() & tcp_flags::PSH != 0);
        if closes || self.count == MAX_SEGMENTS { Joined::Closed } else { Joined::Open }
    }

    /// True if all header fields that must be equal are: addresses of Ethernet,
    /// VLAN tags, IP and transport, TTL, TOS, flow label, and for TCP
    /// acknowledgement, window and options.
    fn same_flow(&self, first: &[u8], frame: &[u8]) -> bool {
        let at = &self.at;
        let same = |from: usize, to: usize| match (first.get(from..to), frame.get(from..to)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        };
        let ip = match at.version {
            IpVersion::V4 => same(0, at.l3 + 2) && same(at.l3 + 6, at.l3 + 10) && same(at.l3 + 12, at.l4 + 4),
            IpVersion::V6 => same(0, at.l3 + 4) && same(at.l3 + 6, at.l4 + 4),
        };
        ip && match at.protocol {
            Protocol::Tcp => {
                same(at.l4 + 8, at.l4 + 13) && same(at.l4 + 14, at.l4 + 16) && same(at.l4 + 18, at.payload)
            }
            Protocol::Udp => true,
        }
    }

    /// How identifications go on if `frame` joins; `None` if it must not, or if
    /// its lengths or header checksum are wrong.
    fn ids_with(&self, frame: &[u8], at: &Transport) -> Option<Ids> {
        let ip_len = frame.len() - at.l3;
        match at.version {
            IpVersion::V4 => {
                let header = at.ipv4(frame)?;
                if header.total_len() != ip_len || !header_sums_up(frame, at) {
                    return None;
                }
                #[expect(clippy::cast_possible_truncation, reason = "at most MAX_SEGMENTS")]
                let rising = header.id() == self.first_id.wrapping_add(self.count as u16);
                let fixed = header.id() == self.first_id && header.dont_fragment();
                match self.ids {
                    Ids::Unknown if rising => Some(Ids::Rising),
                    Ids::Unknown if fixed => Some(Ids::Fixed),
                    Ids::Rising if rising => Some(Ids::Rising),
                    Ids::Fixed if fixed => Some(Ids::Fixed),
                    Ids::Unknown | Ids::Rising | Ids::Fixed => None,
                }
            }
            IpVersion::V6 => {
                // The length field is outside what `same_flow` compares.
                let (header, _) =
                    <Ipv6Header as zerocopy::FromBytes>::ref_from_prefix(frame.get(at.l3..)?).ok()?;
                (header.payload_len() == ip_len - Ipv6Header::LEN).then_some(Ids::Fixed)
            }
        }
    }

    /// Where the payload of every segment starts in its frame.
    #[must_use]
    pub const fn payload_start(&self) -> usize {
        self.at.payload
    }

    /// Segments in the run, 1 to [`MAX_SEGMENTS`].
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Ends the run: makes the headers of `first` those of the super-frame and
    /// returns the header for the tap. The payloads follow in their order.
    #[must_use]
    #[inline]
    pub fn finish(&self, first: &mut [u8]) -> VnetHeader {
        let at = &self.at;
        #[expect(clippy::cast_possible_truncation, reason = "lengths are bounded by MAX_SUPER_FRAME")]
        let (l4, headers, segment) = (at.l4 as u16, at.payload as u16, self.segment as u16);
        let offset = at.protocol.checksum_field().offset();
        if self.count == 1 {
            return match self.checksum {
                Checksum::Requested => VnetHeader::checksum(l4, offset),
                Checksum::Complete => VnetHeader::plain(),
            };
        }
        let end = at.payload + self.total;
        #[expect(clippy::cast_possible_truncation, reason = "bounded by MAX_SUPER_FRAME")]
        let (ip_len, transport_len) = ((end - at.l3) as u16, (end - at.l4) as u16);
        if let Some(header) = at.ipv4_mut(first) {
            header.set_total_len(ip_len);
            header.complete_checksum();
        } else if let Some(header) = at.ipv6_mut(first) {
            header.set_payload_len(ip_len - Ipv6Header::LEN as u16);
        }
        let gso = match (at.protocol, at.version) {
            (Protocol::Tcp, IpVersion::V4) => Gso::TcpV4,
            (Protocol::Tcp, IpVersion::V6) => Gso::TcpV6,
            (Protocol::Udp, _) => Gso::Udp,
        };
        if let Some(header) = at.tcp_mut(first) {
            header.set_flags(header.flags() | if self.push { tcp_flags::PSH } else { 0 });
        } else if let Some(header) = at.udp_mut(first) {
            header.set_len(transport_len);
        }
        let sum = checksum::pseudo_header(first, at, end - at.l4).partial();
        if let Some(field) = first.get_mut(at.checksum_field()) {
            field.copy_from_slice(&sum);
        }
        VnetHeader::super_frame(gso, headers, segment, l4, offset)
    }
}

/// True if the checksum of an IPv4 header without options is right.
fn header_sums_up(frame: &[u8], at: &Transport) -> bool {
    frame
        .get(at.l3..at.l3 + Ipv4Header::LEN)
        .is_some_and(|header| Sum::default().with(header).checksum() == [0, 0])
}
