//! The header a tap puts in front of each frame (`struct virtio_net_hdr`,
//! Linux `include/uapi/linux/virtio_net.h`; virtio 1.2 §5.1.6).

use zerocopy::byteorder::little_endian::U16;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header, bytes (`TUNSETVNETHDRSZ`).
pub const VNET_LEN: usize = size_of::<VnetHeader>();

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// How a super-frame is cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either.
    Udp,
}

/// The 10 bytes; the kernel is told to use little-endian (`TUNSETVNETLE` is its
/// default on little-endian machines, the only ones built for).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VnetHeader {
    flags: u8,
    gso_type: u8,
    header_len: U16,
    gso_size: U16,
    checksum_start: U16,
    checksum_offset: U16,
}

const _: () = assert!(VNET_LEN == 10);

impl VnetHeader {
    /// The header of a frame that asks for nothing.
    #[must_use]
    pub fn plain() -> Self {
        Self::new_zeroed()
    }

    /// The header of a frame whose transport checksum is to be completed from
    /// byte `start`, into the field `offset` bytes behind it.
    #[must_use]
    pub const fn checksum(start: u16, offset: u16) -> Self {
        Self {
            flags: NEEDS_CSUM,
            gso_type: GSO_NONE,
            header_len: U16::ZERO,
            gso_size: U16::ZERO,
            checksum_start: U16::new(start),
            checksum_offset: U16::new(offset),
        }
    }

    /// The header of a super-frame: `header_len` bytes of headers, payload in
    /// segments of `size` bytes.
    #[must_use]
    pub const fn super_frame(gso: Gso, header_len: u16, size: u16, start: u16, offset: u16) -> Self {
        let gso_type = match gso {
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        Self {
            flags: NEEDS_CSUM,
            gso_type,
            header_len: U16::new(header_len),
            gso_size: U16::new(size),
            checksum_start: U16::new(start),
            checksum_offset: U16::new(offset),
        }
    }

    /// Splits what a tap delivered into header and frame.
    #[must_use]
    pub fn split(bytes: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let (header, frame) = bytes.split_at_mut_checked(VNET_LEN)?;
        Some((Self::read_from_bytes(header).ok()?, frame))
    }

    /// Start and offset of the checksum the kernel left to us, if it did.
    #[must_use]
    pub fn checksum_request(&self) -> Option<(usize, usize)> {
        (self.flags & NEEDS_CSUM != 0)
            .then(|| (self.checksum_start.get().into(), self.checksum_offset.get().into()))
    }

    /// Kind and segment size of a super-frame; `Ok(None)` for a plain frame,
    /// `Err` with the type for one that was never asked for.
    ///
    /// # Errors
    /// The type byte, if this router did not offer that kind of segmentation.
    pub fn gso(&self) -> Result<Option<(Gso, usize)>, u8> {
        let gso = match self.gso_type & !GSO_ECN {
            GSO_NONE => return Ok(None),
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::Udp,
            other => return Err(other),
        };
        Ok(Some((gso, self.gso_size.get().into())))
    }
}
