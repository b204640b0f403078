//! Names and numbers that identify peers, runs, sessions and stations.

use std::fmt;
use std::str::FromStr;

/// A text that is not what its type allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseNameError {
    text: String,
    expected: &'static str,
}

impl ParseNameError {
    /// `text`, cut for display, is not what was `expected`.
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

fn parse_six(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

fn format_six(bytes: &[u8; 6], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let [a, b, c, d, e, g] = bytes;
    write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
}

macro_rules! text_serde {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// The name of a peer: 48 bits, written like a MAC address. Zero means
/// "all peers" in an inner header and is no name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName([u8; 6]);

impl PeerName {
    /// The name made of `bytes`; `None` for all zeros, which names nobody.
    #[must_use]
    pub fn new(bytes: [u8; 6]) -> Option<Self> {
        (bytes != [0; 6]).then_some(Self(bytes))
    }

    /// The six bytes of the name, most significant first.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format_six(&self.0, f)
    }
}

impl FromStr for PeerName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_six(text).and_then(Self::new).ok_or_else(|| ParseNameError {
            text: text.into(),
            expected: "a peer name: six hexadecimal pairs like 02:1f:3a:00:c4:07, not all zero",
        })
    }
}

text_serde!(PeerName);

/// The address of a station on the Ethernet switch (IEEE 802, 48 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// True for broadcast and multicast addresses (the group bit).
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// True if a station may have this address: neither a group nor all zero.
    #[must_use]
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format_six(&self.0, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_six(text).map(Self).ok_or_else(|| ParseNameError {
            text: text.into(),
            expected: "a MAC address: six hexadecimal pairs like 02:1f:3a:00:c4:07",
        })
    }
}

text_serde!(MacAddr);

/// What operators call a peer: 1 to 63 of `A-Z a-z 0-9 . _ -`. Not unique.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nickname(String);

impl Nickname {
    /// Longest nickname, bytes.
    pub const MAX_LEN: usize = 63;

    /// The nickname as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nickname nearest to `text`: other characters become `-`, the rest
    /// is cut at 63 bytes, and nothing at all becomes `weave`.
    #[must_use]
    pub fn from_host_name(text: &str) -> Self {
        let mut name: String = text
            .chars()
            .take(Self::MAX_LEN)
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
            .collect();
        if name.is_empty() {
            name.push_str("weave");
        }
        Self(name)
    }
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Nickname {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(ParseNameError {
                text: text.chars().take(80).collect(),
                expected: "a nickname: 1 to 63 letters, digits, dots, underscores or hyphens",
            })
        }
    }
}

text_serde!(Nickname);

/// One run of a router: random at start, never kept. Orders two dials of one pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub u64);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Uid {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let value = (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
        value.map(Self).ok_or_else(|| ParseNameError {
            text: text.chars().take(80).collect(),
            expected: "a run id: 16 hexadecimal digits",
        })
    }
}

text_serde!(Uid);

/// Names a session at its receiver: random, one per link, direction and epoch,
/// shared by the lanes of that direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionIndex(pub u64);

impl fmt::Debug for SessionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_but_six_pairs_is_a_peer_name() {
        for bad in [
            "",
            "00:00:00:00:00:00",
            "1:2:3:4:5:6",
            "02:1f:3a:00:c4",
            "02:1f:3a:00:c4:07:",
            "+2:1f:3a:00:c4:07",
        ] {
            assert!(bad.parse::<PeerName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_nickname_has_no_other_characters() {
        for bad in ["", "a b", "a/b", "ü", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Nickname>().is_err(), "{bad:?}");
            assert!(Nickname::from_host_name(bad).as_str().parse::<Nickname>().is_ok());
        }
    }

    proptest! {
        #[test]
        fn names_survive_text(bytes: [u8; 6], uid: u64) {
            prop_assert_eq!(MacAddr(bytes).to_string().parse::<MacAddr>(), Ok(MacAddr(bytes)));
            prop_assert_eq!(Uid(uid).to_string().parse::<Uid>(), Ok(Uid(uid)));
            if let Some(name) = PeerName::new(bytes) {
                prop_assert_eq!(name.to_string().parse::<PeerName>(), Ok(name));
            }
        }

        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,100}") {
            let _ = text.parse::<PeerName>();
            let _ = text.parse::<MacAddr>();
            let _ = text.parse::<Nickname>();
            let _ = text.parse::<Uid>();
        }
    }
}
