//! What the parts of a peer's state say.
//!
//! Each is a sequence of tagged fields like a message; unknown tags are skipped.

use super::super::field::{Fields, fixed, once, put, required};
use super::super::message::{encode_address, parse_address};
use super::ParseError;
use super::part::peer_name;
use crate::{HostName, MacAddr, Nickname, PeerName};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Largest number of addresses of a peer.
pub const MAX_HOST_ADDRESSES: usize = 16;
/// Largest number of links of a peer.
pub const MAX_LINKS: usize = 512;
/// Largest number of addresses of a station.
pub const MAX_STATION_ADDRESSES: usize = 64;

mod tag {
    pub const NICKNAME: u16 = 1;
    pub const PORT: u16 = 2;
    pub const ADDRESS: u16 = 3;
    pub const LINKS: u16 = 4;
    pub const FAREWELL: u16 = 5;
    pub const SEALED_ONLY: u16 = 6;
    pub const FEATURES: u16 = 7;
    pub const STATION: u16 = 1;
    pub const NAME: u16 = 1;
}

/// A link as one of its ends tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnouncedLink {
    /// The other end.
    pub peer: PeerName,
    /// True if data crosses it in clear.
    pub unencrypted: bool,
    /// True if the peer that announces it dialled.
    pub outbound: bool,
    /// What a frame's passage costs, at least 1.
    pub cost: u16,
}

impl AnnouncedLink {
    const LEN: usize = 9;
    const UNENCRYPTED: u8 = 1;
    const OUTBOUND: u8 = 2;

    fn flags(&self) -> u8 {
        (u8::from(self.unencrypted) * Self::UNENCRYPTED) | (u8::from(self.outbound) * Self::OUTBOUND)
    }

    fn encode(&self) -> [u8; Self::LEN] {
        let [a, b, c, d, e, f] = self.peer.to_bytes();
        let [high, low] = self.cost.max(1).to_be_bytes();
        [a, b, c, d, e, f, self.flags(), high, low]
    }

    fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, ParseError> {
        let [a, b, c, d, e, f, flags, high, low] = *bytes;
        let cost = u16::from_be_bytes([high, low]);
        if cost == 0 {
            return Err(ParseError::Invalid { what: "cost of a link" });
        }
        let peer = peer_name([a, b, c, d, e, f], "end of a link")?;
        let (unencrypted, outbound) = (flags & Self::UNENCRYPTED != 0, flags & Self::OUTBOUND != 0);
        Ok(Self { peer, unencrypted, outbound, cost })
    }
}

/// The peer itself: part 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPart {
    /// What operators call it.
    pub nickname: Nickname,
    /// UDP and TCP port it listens on.
    pub port: u16,
    /// Where it thinks it can be reached, at most [`MAX_HOST_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// Its links that pass data, at most [`MAX_LINKS`], by rising name of the other end.
    pub links: Vec<AnnouncedLink>,
    /// The peer leaves for good: its name is free again.
    pub farewell: bool,
    /// Its frames, for one peer or for all, go by links only that are not unencrypted.
    pub sealed_only: bool,
    /// Its optional abilities, one bit each ([`features`](super::super::handshake::features)).
    pub features: u64,
}

impl HostPart {
    /// The content of the part.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.links.len() * AnnouncedLink::LEN);
        put(&mut out, tag::NICKNAME, self.nickname.as_str().as_bytes());
        put(&mut out, tag::PORT, &self.port.to_be_bytes());
        for address in self.addresses.iter().take(MAX_HOST_ADDRESSES) {
            put(&mut out, tag::ADDRESS, &encode_address(*address));
        }
        let mut links = self.links.clone();
        links.sort_by_key(|link| link.peer);
        links.dedup_by_key(|link| link.peer);
        let links: Vec<u8> = links.iter().take(MAX_LINKS).flat_map(AnnouncedLink::encode).collect();
        put(&mut out, tag::LINKS, &links);
        if self.farewell {
            put(&mut out, tag::FAREWELL, &[]);
        }
        if self.sealed_only {
            put(&mut out, tag::SEALED_ONLY, &[]);
        }
        if self.features != 0 {
            put(&mut out, tag::FEATURES, &self.features.to_be_bytes());
        }
        out
    }

    /// The part with this content.
    ///
    /// # Errors
    /// [`ParseError`] if the content breaks a rule of the format.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let (mut nickname, mut port, mut links) = (None, None, None);
        let (mut addresses, mut farewell, mut sealed_only) = (Vec::new(), false, false);
        let mut features = None;
        for field in Fields::new(content) {
            match field? {
                (tag::NICKNAME, value) => once(&mut nickname, parse_text(value, "nickname")?, "nickname")?,
                (tag::PORT, value) => {
                    once(&mut port, u16::from_be_bytes(fixed(value, "port")?), "port")?;
                }
                (tag::ADDRESS, value) => push(&mut addresses, parse_address(value)?, MAX_HOST_ADDRESSES)?,
                (tag::LINKS, value) => once(&mut links, parse_links(value)?, "links")?,
                (tag::FAREWELL, _) => farewell = true,
                (tag::SEALED_ONLY, _) => sealed_only = true,
                (tag::FEATURES, value) => {
                    once(&mut features, u64::from_be_bytes(fixed(value, "features")?), "features")?;
                }
                _ => {}
            }
        }
        Ok(Self {
            nickname: required(nickname, "nickname")?,
            port: required(port, "port")?,
            addresses,
            links: required(links, "links")?,
            farewell,
            sealed_only,
            features: features.unwrap_or_default(),
        })
    }
}

fn parse_text<T: std::str::FromStr>(value: &[u8], what: &'static str) -> Result<T, ParseError> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(ParseError::Invalid { what })
}

fn push<T>(list: &mut Vec<T>, value: T, limit: usize) -> Result<(), ParseError> {
    if list.len() == limit {
        return Err(ParseError::Invalid { what: "number of addresses" });
    }
    list.push(value);
    Ok(())
}

fn parse_links(value: &[u8]) -> Result<Vec<AnnouncedLink>, ParseError> {
    let what = "links";
    let entries = super::entries(value, MAX_LINKS, what)?;
    let links = entries.iter().map(AnnouncedLink::parse).collect::<Result<Vec<_>, _>>()?;
    if links.is_sorted_by(|a, b| a.peer < b.peer) { Ok(links) } else { Err(ParseError::Invalid { what }) }
}

/// An address of a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StationAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its subnet's prefix, bits: at most 32 (IPv4) or 128.
    pub prefix: u8,
    /// The owner's claim on it; the highest wins.
    pub claim: u32,
}

/// A station attached at the owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StationEntry {
    /// Its MAC address, never a group address.
    pub mac: MacAddr,
    /// The owner's claim on it; the highest wins.
    pub claim: u32,
    /// Its addresses, at most [`MAX_STATION_ADDRESSES`].
    pub addresses: Vec<StationAddress>,
}

impl StationEntry {
    /// Length in the content of a part, bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let addresses = self.addresses.iter().take(MAX_STATION_ADDRESSES);
        FIELD_HEADER_LEN + 10 + addresses.map(|a| 5 + encode_ip(a.address).len()).sum::<usize>()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.mac.0.to_vec();
        out.extend_from_slice(&self.claim.to_be_bytes());
        for address in self.addresses.iter().take(MAX_STATION_ADDRESSES) {
            out.push(address.prefix);
            out.extend_from_slice(&address.claim.to_be_bytes());
            out.extend_from_slice(&encode_ip(address.address));
        }
        out
    }

    fn parse(value: &[u8]) -> Result<Self, ParseError> {
        let what = "station";
        let (mac, rest) = value.split_first_chunk().ok_or(ParseError::Invalid { what })?;
        let (claim, mut rest) = rest.split_first_chunk().ok_or(ParseError::Invalid { what })?;
        let mac = MacAddr(*mac);
        if !mac.is_station() {
            return Err(ParseError::Invalid { what });
        }
        let mut addresses = Vec::new();
        while !rest.is_empty() {
            let ([prefix, claim @ ..], after) =
                rest.split_first_chunk::<5>().ok_or(ParseError::Invalid { what })?;
            let (address, after) = split_ip(after).ok_or(ParseError::Invalid { what })?;
            if *prefix > if address.is_ipv4() { 32 } else { 128 } {
                return Err(ParseError::Invalid { what: "length of a prefix" });
            }
            let claim = u32::from_be_bytes(*claim);
            push(&mut addresses, StationAddress { address, prefix: *prefix, claim }, MAX_STATION_ADDRESSES)?;
            rest = after;
        }
        Ok(Self { mac, claim: u32::from_be_bytes(*claim), addresses })
    }
}

const FIELD_HEADER_LEN: usize = 6;

/// Family (4 or 6) and address.
fn encode_ip(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => [&[4], ip.octets().as_slice()].concat(),
        IpAddr::V6(ip) => [&[6], ip.octets().as_slice()].concat(),
    }
}

/// Splits off what [`encode_ip`] wrote.
fn split_ip(bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    match bytes.split_first()? {
        (4, rest) => rest.split_first_chunk().map(|(ip, rest)| (Ipv4Addr::from(*ip).into(), rest)),
        (6, rest) => rest.split_first_chunk().map(|(ip, rest)| (Ipv6Addr::from(*ip).into(), rest)),
        _ => None,
    }
}

/// Some of the stations attached at the owner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StationsPart {
    /// The stations.
    pub entries: Vec<StationEntry>,
}

impl StationsPart {
    /// The content of the part.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.entries.iter().for_each(|entry| put(&mut out, tag::STATION, &entry.encode()));
        out
    }

    /// The part with this content.
    ///
    /// # Errors
    /// [`ParseError`] if the content breaks a rule of the format.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        Ok(Self { entries: parse_entries(content, tag::STATION, StationEntry::parse)? })
    }
}

/// All fields with this tag.
fn parse_entries<T>(
    content: &[u8],
    wanted: u16,
    parse: impl Fn(&[u8]) -> Result<T, ParseError>,
) -> Result<Vec<T>, ParseError> {
    let mut entries = Vec::new();
    for field in Fields::new(content) {
        let (tag, value) = field?;
        if tag == wanted {
            entries.push(parse(value)?);
        }
    }
    Ok(entries)
}

/// A name of a container of the owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameEntry {
    /// The name.
    pub name: HostName,
    /// An address it stands for.
    pub address: IpAddr,
    /// First six bytes of the container's id.
    pub container: [u8; 6],
}

impl NameEntry {
    /// Length in the content of a part, bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        FIELD_HEADER_LEN + 6 + encode_ip(self.address).len() + self.name.as_str().len()
    }

    fn encode(&self) -> Vec<u8> {
        [self.container.as_slice(), &encode_ip(self.address), self.name.as_str().as_bytes()].concat()
    }

    fn parse(value: &[u8]) -> Result<Self, ParseError> {
        let what = "name";
        let (container, rest) = value.split_first_chunk().ok_or(ParseError::Invalid { what })?;
        let (address, name) = split_ip(rest).ok_or(ParseError::Invalid { what })?;
        Ok(Self { name: parse_text(name, what)?, address, container: *container })
    }
}

/// Some of the names of the owner's containers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamesPart {
    /// The names.
    pub entries: Vec<NameEntry>,
}

impl NamesPart {
    /// The content of the part.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.entries.iter().for_each(|entry| put(&mut out, tag::NAME, &entry.encode()));
        out
    }

    /// The part with this content.
    ///
    /// # Errors
    /// [`ParseError`] if the content breaks a rule of the format.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        Ok(Self { entries: parse_entries(content, tag::NAME, NameEntry::parse)? })
    }
}

#[cfg(test)]
mod tests;
