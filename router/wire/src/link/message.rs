//! Messages of an established TCP link.
//!
//! A message is its kind (u16), the length of its fields (u32) and tagged
//! fields. Unknown kinds and fields are ignored.

use super::ParseError;
use super::field::{Fields, fixed, once, put, required};
use super::gossip::{self, Gossip};
use crate::{Nickname, SessionIndex};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Length of the header of a message, bytes.
pub const HEADER_LEN: usize = 6;
/// Longest message, header included, bytes.
pub const MAX_LEN: usize = 1 << 20;
/// Longest text of a farewell, bytes.
pub const MAX_REASON_LEN: usize = 200;

const DESCRIBE: u16 = 1;
const OFFER: u16 = 2;
const ANSWER: u16 = 3;
const CONFIRM: u16 = 4;
const PING: u16 = 5;
const PONG: u16 = 6;
const BYE: u16 = 7;
const GOSSIP_SUMMARY: u16 = 8;
const GOSSIP_DIGESTS: u16 = 9;
const GOSSIP_PULL: u16 = 10;
const GOSSIP_PART: u16 = 11;

/// Length of a whole message, from its header.
///
/// # Errors
/// [`ParseError::TooLong`] over [`MAX_LEN`].
pub fn message_len(header: [u8; HEADER_LEN]) -> Result<usize, ParseError> {
    let [_, _, len @ ..] = header;
    let len = usize::try_from(u32::from_be_bytes(len))
        .ok()
        .and_then(|len| len.checked_add(HEADER_LEN))
        .unwrap_or(usize::MAX);
    if len > MAX_LEN { Err(ParseError::TooLong { len, limit: MAX_LEN }) } else { Ok(len) }
}

/// What a peer tells of itself first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Describe {
    /// What operators call it.
    pub nickname: Nickname,
    /// UDP and TCP port it listens on.
    pub port: u16,
    /// Where it sees the receiver of this message.
    pub observed: Option<IpAddr>,
}

/// A key of the next epoch, offered (by the side that begins) or answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyShare {
    /// Number of the epoch to come; the handshake made epoch 0.
    pub epoch: u32,
    /// Ephemeral X25519 public key.
    pub ephemeral: [u8; 32],
    /// What the sender will call the session in the headers sent to it.
    pub session: SessionIndex,
}

/// A message of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who the peer is; the first message each way.
    Describe(Describe),
    /// First message of a re-key, from the smaller UID.
    RekeyOffer(RekeyShare),
    /// Second: the answerer's receiving keys are in place.
    RekeyAnswer(RekeyShare),
    /// Third: so are the offerer's.
    RekeyConfirm {
        /// The epoch that begins.
        epoch: u32,
    },
    /// Asks for a [`Message::Pong`] with the same number.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// The sender closes the link, and why; text for a log, never more.
    Bye(String),
    /// What the sender tells of all peers.
    Gossip(Gossip),
}

mod tag {
    pub const NICKNAME: u16 = 1;
    pub const PORT: u16 = 2;
    pub const OBSERVED: u16 = 3;
    pub const EPOCH: u16 = 1;
    pub const EPHEMERAL: u16 = 2;
    pub const SESSION: u16 = 3;
    pub const NUMBER: u16 = 1;
    pub const REASON: u16 = 1;
}

impl Message {
    const fn kind(&self) -> u16 {
        match self {
            Self::Describe(_) => DESCRIBE,
            Self::RekeyOffer(_) => OFFER,
            Self::RekeyAnswer(_) => ANSWER,
            Self::RekeyConfirm { .. } => CONFIRM,
            Self::Ping(_) => PING,
            Self::Pong(_) => PONG,
            Self::Bye(_) => BYE,
            Self::Gossip(Gossip::Summary(_)) => GOSSIP_SUMMARY,
            Self::Gossip(Gossip::Digests(_)) => GOSSIP_DIGESTS,
            Self::Gossip(Gossip::Pull(_)) => GOSSIP_PULL,
            Self::Gossip(Gossip::Part(_)) => GOSSIP_PART,
        }
    }

    /// The message with its header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.kind().to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        match self {
            Self::Describe(describe) => {
                put(&mut out, tag::NICKNAME, describe.nickname.as_str().as_bytes());
                put(&mut out, tag::PORT, &describe.port.to_be_bytes());
                match describe.observed {
                    Some(IpAddr::V4(ip)) => put(&mut out, tag::OBSERVED, &ip.octets()),
                    Some(IpAddr::V6(ip)) => put(&mut out, tag::OBSERVED, &ip.octets()),
                    None => {}
                }
            }
            Self::RekeyOffer(share) | Self::RekeyAnswer(share) => {
                put(&mut out, tag::EPOCH, &share.epoch.to_be_bytes());
                put(&mut out, tag::EPHEMERAL, &share.ephemeral);
                put(&mut out, tag::SESSION, &share.session.0.to_be_bytes());
            }
            Self::RekeyConfirm { epoch } => put(&mut out, tag::EPOCH, &epoch.to_be_bytes()),
            Self::Ping(number) | Self::Pong(number) => {
                put(&mut out, tag::NUMBER, &number.to_be_bytes());
            }
            Self::Bye(reason) => put(&mut out, tag::REASON, cut(reason).as_bytes()),
            Self::Gossip(gossip) => gossip::encode(gossip, &mut out),
        }
        // No message of these comes near 4 GiB.
        let len = (out.len() - HEADER_LEN) as u32;
        out[2..HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        out
    }

    /// The message in `bytes`, header included; `None` for a kind this version
    /// does not know.
    ///
    /// # Errors
    /// [`ParseError`] if the bytes are not exactly one message.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ParseError> {
        let (header, fields) = bytes.split_first_chunk().ok_or(ParseError::Truncated { what: "a header" })?;
        if message_len(*header)? != bytes.len() {
            return Err(ParseError::Truncated { what: "its fields" });
        }
        let [a, b, ..] = *header;
        let message = match u16::from_be_bytes([a, b]) {
            DESCRIBE => Self::Describe(parse_describe(fields)?),
            OFFER => Self::RekeyOffer(parse_share(fields)?),
            ANSWER => Self::RekeyAnswer(parse_share(fields)?),
            CONFIRM => Self::RekeyConfirm { epoch: u32::from_be_bytes(sole(fields, tag::EPOCH, "epoch")?) },
            PING => Self::Ping(u64::from_be_bytes(sole(fields, tag::NUMBER, "number")?)),
            PONG => Self::Pong(u64::from_be_bytes(sole(fields, tag::NUMBER, "number")?)),
            BYE => Self::Bye(parse_reason(fields)?),
            GOSSIP_SUMMARY => Self::Gossip(gossip::parse_summary(fields)?),
            GOSSIP_DIGESTS => Self::Gossip(gossip::parse_digests(fields)?),
            GOSSIP_PULL => Self::Gossip(gossip::parse_pull(fields)?),
            GOSSIP_PART => Self::Gossip(gossip::parse_part(fields)?),
            _ => return Ok(None),
        };
        Ok(Some(message))
    }
}

/// `text`, cut to the limit at a character boundary.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_REASON_LEN)]
}

/// The one field of fixed length that a message needs.
fn sole<const N: usize>(fields: &[u8], wanted: u16, what: &'static str) -> Result<[u8; N], ParseError> {
    let mut slot = None;
    for field in Fields::new(fields) {
        let (tag, value) = field?;
        if tag == wanted {
            once(&mut slot, fixed(value, what)?, what)?;
        }
    }
    required(slot, what)
}

fn parse_share(fields: &[u8]) -> Result<RekeyShare, ParseError> {
    Ok(RekeyShare {
        epoch: u32::from_be_bytes(sole(fields, tag::EPOCH, "epoch")?),
        ephemeral: sole(fields, tag::EPHEMERAL, "ephemeral key")?,
        session: SessionIndex(u64::from_be_bytes(sole(fields, tag::SESSION, "session index")?)),
    })
}

fn parse_describe(fields: &[u8]) -> Result<Describe, ParseError> {
    let (mut nickname, mut observed) = (None, None);
    for field in Fields::new(fields) {
        match field? {
            (tag::NICKNAME, value) => {
                let what = "nickname";
                let text = std::str::from_utf8(value).map_err(|_| ParseError::Invalid { what })?;
                let name = text.parse().map_err(|_| ParseError::Invalid { what })?;
                once(&mut nickname, name, what)?;
            }
            (tag::OBSERVED, value) => once(&mut observed, parse_ip(value)?, "observed address")?,
            _ => {}
        }
    }
    Ok(Describe {
        nickname: required(nickname, "nickname")?,
        port: u16::from_be_bytes(sole(fields, tag::PORT, "port")?),
        observed,
    })
}

fn parse_reason(fields: &[u8]) -> Result<String, ParseError> {
    let mut reason = None;
    for field in Fields::new(fields) {
        if let (tag::REASON, value) = field? {
            let limit = MAX_REASON_LEN;
            if value.len() > limit {
                return Err(ParseError::TooLong { len: value.len(), limit });
            }
            let text = String::from_utf8_lossy(value).replace(char::is_control, " ");
            once(&mut reason, text, "reason")?;
        }
    }
    Ok(reason.unwrap_or_default())
}

/// Address (4 or 16 bytes) and port.
pub(super) fn encode_address(address: SocketAddr) -> Vec<u8> {
    let mut out = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    out.extend_from_slice(&address.port().to_be_bytes());
    out
}

pub(super) fn parse_address(value: &[u8]) -> Result<SocketAddr, ParseError> {
    let what = "address";
    let (ip, port) = value.split_last_chunk().ok_or(ParseError::Invalid { what })?;
    Ok(SocketAddr::new(parse_ip(ip)?, u16::from_be_bytes(*port)))
}

fn parse_ip(ip: &[u8]) -> Result<IpAddr, ParseError> {
    let what = "address";
    Ok(if let Ok(octets) = <[u8; 4]>::try_from(ip) {
        IpAddr::V4(Ipv4Addr::from(octets))
    } else {
        IpAddr::V6(Ipv6Addr::from(fixed::<16>(ip, what)?))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn messages() -> impl Strategy<Value = Message> {
        let share = any::<(u32, [u8; 32], u64)>().prop_map(|(epoch, ephemeral, index)| RekeyShare {
            epoch,
            ephemeral,
            session: SessionIndex(index),
        });
        let describe = ("[A-Za-z0-9._-]{1,63}", any::<(u16, Option<IpAddr>)>()).prop_map(
            |(nickname, (port, observed))| {
                Message::Describe(Describe { nickname: nickname.parse().unwrap(), port, observed })
            },
        );
        prop_oneof![
            describe,
            share.clone().prop_map(Message::RekeyOffer),
            share.prop_map(Message::RekeyAnswer),
            any::<u32>().prop_map(|epoch| Message::RekeyConfirm { epoch }),
            any::<u64>().prop_map(Message::Ping),
            any::<u64>().prop_map(Message::Pong),
            "[ -~]{0,200}".prop_map(Message::Bye),
            super::super::gossip::tests::gossip().prop_map(Message::Gossip),
        ]
    }

    /// A header of this kind and the fields behind it.
    fn message(kind: u16, fields: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend(u32::try_from(fields.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(fields);
        bytes
    }

    #[test]
    fn unknown_kinds_and_fields_are_ignored() {
        assert_eq!(Message::parse(&message(999, b"anything")), Ok(None));
        let mut fields = Vec::new();
        put(&mut fields, 77, b"new");
        put(&mut fields, tag::NUMBER, &5_u64.to_be_bytes());
        assert_eq!(Message::parse(&message(PING, &fields)), Ok(Some(Message::Ping(5))));
    }

    #[test]
    fn a_field_twice_or_missing_is_refused() {
        let mut fields = Vec::new();
        assert!(Message::parse(&message(PING, &fields)).is_err());
        put(&mut fields, tag::NUMBER, &5_u64.to_be_bytes());
        put(&mut fields, tag::NUMBER, &5_u64.to_be_bytes());
        assert!(Message::parse(&message(PING, &fields)).is_err());
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_its_header() {
        let longest = u32::try_from(MAX_LEN - HEADER_LEN).unwrap();
        let [a, b, c, d] = longest.to_be_bytes();
        assert_eq!(message_len([0, 1, a, b, c, d]), Ok(MAX_LEN));
        let [a, b, c, d] = (longest + 1).to_be_bytes();
        assert!(message_len([0, 1, a, b, c, d]).is_err());
        assert!(message_len([0xff; 6]).is_err());
    }

    #[test]
    fn a_farewell_is_cut_and_cannot_steer_a_terminal() {
        let bytes = Message::Bye("é".repeat(300)).encode();
        let Ok(Some(Message::Bye(text))) = Message::parse(&bytes) else { panic!("no farewell") };
        assert_eq!(text.len(), MAX_REASON_LEN);
        let bytes = Message::Bye("a\x1b[2J\nb".into()).encode();
        assert_eq!(Message::parse(&bytes), Ok(Some(Message::Bye("a [2J b".into()))));
    }

    proptest! {
        #[test]
        fn messages_survive_the_wire(message in messages()) {
            prop_assert_eq!(Message::parse(&message.encode()), Ok(Some(message)));
        }

        #[test]
        fn any_fields_parse_without_panic(
            kind in 0_u16..13, fields in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = Message::parse(&message(kind, &fields));
            let _ = Message::parse(&fields);
        }

        #[test]
        fn mutated_messages_parse_without_panic(message in messages(), at: prop::sample::Index, byte: u8) {
            let mut bytes = message.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Message::parse(&bytes);
        }
    }
}
