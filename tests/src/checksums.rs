//! Whether every checksum in a captured frame is right.
//!
//! Written for the tests alone (RFC 1071, 791, 8200, 9293, 768, 792, 4443), so that a mistake in
//! the code under test is not repeated here.

use std::collections::BTreeMap;

use crate::packets::{Frame, Offload};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;

/// What was checked, by protocol; and what was wrong.
#[derive(Debug, Default)]
pub struct Checked {
    /// Correct checksums seen, by `ip`, `tcp4`, `udp6`, `icmp4`, `fragmented udp4` and so on.
    pub right: BTreeMap<String, usize>,
    /// Of these, how many the kernel had still to finish.
    pub unfinished: usize,
    /// What is wrong, with the head of the frame.
    pub wrong: Vec<String>,
}

/// Checks all frames of a capture. Fragments are put together and checked whole; those whose
/// packet is not complete in the capture count as wrong.
#[must_use]
pub fn check(frames: &[Frame]) -> Checked {
    let mut checked = Checked::default();
    let mut fragments = Fragments::new();
    for frame in frames {
        if let Err(why) = check_frame(frame, &mut checked, &mut fragments) {
            checked.wrong.push(format!("{why}: {}", head(&frame.bytes)));
        }
    }
    for (key, mut parts) in fragments {
        parts.sort();
        let mut whole = Vec::new();
        for (at, _, part) in &parts {
            if *at == whole.len() {
                whole.extend_from_slice(part);
            }
        }
        let complete = parts.last().is_some_and(|(at, more, part)| !more && at + part.len() == whole.len());
        let (version, protocol) = (key[0], key[1]);
        let addresses = &key[2..key.len() - 4];
        if !complete {
            checked.wrong.push(format!("fragments of a packet that is not complete: {parts:?}"));
        } else if let Err(why) =
            check_whole(version, protocol, addresses, &whole, "fragmented ", &mut checked)
        {
            checked.wrong.push(format!("{why} in {} fragments: {}", parts.len(), head(&whole)));
        }
    }
    checked
}

fn head(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().take(80).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes, {}", bytes.len(), hex.join(""))
}

type Fragments = BTreeMap<Vec<u8>, Vec<(usize, bool, Vec<u8>)>>;

fn check_frame(frame: &Frame, checked: &mut Checked, fragments: &mut Fragments) -> Result<(), String> {
    let bytes = &frame.bytes;
    let mut at = 12;
    let mut ethertype = word(bytes, at)?;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        at += 4;
        ethertype = word(bytes, at)?;
    }
    at += 2;
    let packet = bytes.get(at..).ok_or("cut in the header")?;
    match ethertype {
        0x0800 => {
            let length = usize::from(packet.first().ok_or("empty")? & 15) * 4;
            let header = packet.get(..length).ok_or("IPv4 header cut")?;
            // A super-frame's length may not fit the field; it has none longer here.
            let total = usize::from(word(packet, 2)?);
            let payload = packet.get(length..total).ok_or("IPv4 packet cut")?;
            if sum(&[header]) != 0xffff {
                return Err("IPv4 header checksum".into());
            }
            *checked.right.entry("ip".into()).or_default() += 1;
            let flags = word(packet, 6)?;
            let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
            let addresses = &packet[12..20];
            if offset > 0 || more {
                let key = [&[4, packet[9]], addresses, &packet[4..6], &[0, 0]].concat();
                no_offload(frame)?;
                fragments.entry(key).or_default().push((offset, more, payload.to_vec()));
                return Ok(());
            }
            transport(frame, at + length, 4, packet[9], addresses, payload, checked)
        }
        0x86dd => {
            let total = 40 + usize::from(word(packet, 4)?);
            let payload = packet.get(40..total).ok_or("IPv6 packet cut")?;
            let addresses = &packet[8..40];
            match packet[6] {
                0 => {
                    // Hop-by-hop options of MLD.
                    let skip = 8 + usize::from(payload[1]) * 8;
                    transport(frame, at + 40 + skip, 6, payload[0], addresses, &payload[skip..], checked)
                }
                FRAGMENT => {
                    let field = word(payload, 2)?;
                    let (offset, more) = (usize::from(field & 0xfff8), field & 1 != 0);
                    let key = [&[6, payload[0]], addresses, &payload[4..8]].concat();
                    no_offload(frame)?;
                    fragments.entry(key).or_default().push((offset, more, payload[8..].to_vec()));
                    Ok(())
                }
                protocol => transport(frame, at + 40, 6, protocol, addresses, payload, checked),
            }
        }
        _ => Ok(()),
    }
}

fn no_offload(frame: &Frame) -> Result<(), String> {
    if frame.offload.flags & Offload::NEEDS_CSUM != 0 {
        return Err("a fragment whose checksum is left to the kernel".into());
    }
    Ok(())
}

fn transport(
    frame: &Frame,
    at: usize,
    version: u8,
    protocol: u8,
    addresses: &[u8],
    payload: &[u8],
    checked: &mut Checked,
) -> Result<(), String> {
    let offload = frame.offload;
    let unfinished = offload.flags & Offload::NEEDS_CSUM != 0;
    if !unfinished {
        if offload.gso_type != 0 && matches!(protocol, TCP | UDP) {
            return Err(format!("a super-frame with a finished checksum, {offload:?}"));
        }
        return check_whole(version, protocol, addresses, payload, "", checked);
    }
    let field = match protocol {
        TCP => 16,
        UDP => 6,
        other => return Err(format!("the checksum of protocol {other} left to the kernel, {offload:?}")),
    };
    if (usize::from(offload.csum_start), offload.csum_offset) != (at, field) {
        return Err(format!("checksum asked for in the wrong place ({at}+{field} is right), {offload:?}"));
    }
    let expected = match (protocol, version) {
        (TCP, 4) => 1,
        (TCP, _) => 4,
        (_, _) => 5,
    };
    if offload.gso_type & 0x7f != 0 && offload.gso_type & 0x7f != expected {
        return Err(format!("a super-frame of the wrong kind, {offload:?}"));
    }
    // What the sender leaves in the field: the sum of the pseudo header, not inverted.
    let pseudo = sum(&[addresses, &pseudo_tail(protocol, payload.len())]);
    let found = word(payload, usize::from(field))?;
    if found != pseudo && found != !pseudo {
        return Err(format!("pseudo header sum {found:04x}, {pseudo:04x} is right"));
    }
    if found != pseudo {
        return Err(format!("inverted pseudo header sum {found:04x}"));
    }
    checked.unfinished += 1;
    *checked.right.entry(name(version, protocol)).or_default() += 1;
    Ok(())
}

fn check_whole(
    version: u8,
    protocol: u8,
    addresses: &[u8],
    payload: &[u8],
    prefix: &str,
    checked: &mut Checked,
) -> Result<(), String> {
    let tail = pseudo_tail(protocol, payload.len());
    let good = match (version, protocol) {
        (_, TCP) | (6, ICMPV6) => sum(&[addresses, &tail, payload]) == 0xffff,
        (_, UDP) => {
            let stated = word(payload, 6)?;
            // None at all is allowed over IPv4 only, and nobody sends it here.
            stated != 0 && sum(&[addresses, &tail, payload]) == 0xffff
        }
        (4, ICMP) => sum(&[payload]) == 0xffff,
        (_, _) => return Ok(()),
    };
    if !good {
        return Err(format!("checksum of {prefix}{}", name(version, protocol)));
    }
    *checked.right.entry(format!("{prefix}{}", name(version, protocol))).or_default() += 1;
    Ok(())
}

fn name(version: u8, protocol: u8) -> String {
    let protocol = match protocol {
        TCP => "tcp",
        UDP => "udp",
        ICMP | ICMPV6 => "icmp",
        _ => "other",
    };
    format!("{protocol}{version}")
}

/// The part of the pseudo header after the addresses, the same sum for both versions of IP.
fn pseudo_tail(protocol: u8, length: usize) -> [u8; 8] {
    let length = (length as u32).to_be_bytes();
    [length[0], length[1], length[2], length[3], 0, 0, 0, protocol]
}

/// The one's complement sum of the parts, each of even length but the last.
#[must_use]
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

fn word(bytes: &[u8], at: usize) -> Result<u16, String> {
    let pair = bytes.get(at..at + 2).ok_or("cut short")?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP 10.0.0.1:1 to 10.0.0.2:2, "hi", as a kernel sent it.
    fn datagram() -> Frame {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        bytes.extend([0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let header = !sum(&[&bytes[14..]]);
        bytes[24..26].copy_from_slice(&header.to_be_bytes());
        bytes.extend([0, 1, 0, 2, 0, 10, 0, 0, b'h', b'i']);
        let whole = !sum(&[&bytes[26..34], &[0, 17, 0, 10], &bytes[34..]]);
        bytes[40..42].copy_from_slice(&whole.to_be_bytes());
        Frame { bytes, offload: Offload::default(), outgoing: false }
    }

    #[test]
    fn every_changed_byte_behind_the_ethernet_header_is_found() {
        assert!(check(&[datagram()]).wrong.is_empty());
        for at in 14..datagram().bytes.len() {
            let mut frame = datagram();
            frame.bytes[at] ^= 0x40;
            assert!(!check(&[frame]).wrong.is_empty(), "byte {at}");
        }
    }

    #[test]
    fn an_unfinished_checksum_must_hold_the_sum_of_the_pseudo_header() {
        let mut frame = datagram();
        frame.offload =
            Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..frame.offload };
        assert_eq!(check(std::slice::from_ref(&frame)).wrong.len(), 1);
        let pseudo = sum(&[&frame.bytes[26..34], &[0, 17, 0, 10]]);
        frame.bytes[40..42].copy_from_slice(&pseudo.to_be_bytes());
        let checked = check(std::slice::from_ref(&frame));
        assert_eq!((checked.wrong.len(), checked.unfinished), (0, 1), "{checked:?}");
        frame.offload.csum_start += 4;
        assert_eq!(check(&[frame]).wrong.len(), 1);
    }
}
