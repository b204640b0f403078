//! Switches that only tests use: environment variables `WEAVE_TEST_…`.
//!
//! They make rare things frequent and present things absent; none that a release takes weakens what
//! is sealed or accepted. `launch` names on stderr each one that is set, but for the one that only
//! builds of tests take.

use std::str::FromStr;
use std::time::Duration;
use weave_crypto::Effort;
use weave_wire::link::handshake::{VERSION_MAX, VERSION_MIN, Versions};

/// Shortest spacing of two re-keys that a test may ask for.
const MIN_REKEY: Duration = Duration::from_millis(100);

/// The switches of one run; the default is production.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestKnobs {
    /// `WEAVE_TEST_REKEY_MS`: re-key this often, and let re-keys follow each
    /// other as closely; 100 ms or more.
    pub rekey_interval: Option<Duration>,
    /// `WEAVE_TEST_ABSENT`: features that the start-up probes report absent.
    pub absent: Vec<Feature>,
    /// `WEAVE_TEST_PROTOCOL`: speak the versions of the protocol from the oldest to this one, as
    /// a later release would.
    pub versions: Option<Versions>,
    /// `WEAVE_TEST_FEATURES`: say that this router has these optional abilities (`0x…`, one
    /// bit each), as an earlier release would.
    pub features: Option<u64>,
    /// `WEAVE_TEST_CHEAP_PASSWORD=1`, taken by builds of tests only: guesses of a password cost next
    /// to nothing, and so do launches.
    pub cheap_password: bool,
}

/// A kernel feature with a fall-back, so that each fall-back can be tested on a new kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// io_uring itself; without it a router refuses to start.
    IoUring,
    /// Provided-buffer rings (Linux 5.19); without them a router refuses to start.
    BufferRing,
    /// `IORING_OP_READ_MULTISHOT` (Linux 6.7).
    MultishotRead,
    /// A wait for several completions that ends early (Linux 6.12).
    MinWait,
    /// Multishot `recvmsg` (Linux 6.0); without it a router refuses to start.
    MultishotReceive,
    /// `UDP_SEGMENT`.
    UdpSegment,
    /// `UDP_GRO`.
    UdpGro,
    /// UDP super-frames across the tap (Linux 6.2).
    Uso,
    /// TCP super-frames across the tap.
    Tso,
}

impl Feature {
    /// All features with their names in `WEAVE_TEST_ABSENT`.
    pub const ALL: [(&'static str, Self); 9] = [
        ("io-uring", Self::IoUring),
        ("buffer-ring", Self::BufferRing),
        ("multishot-read", Self::MultishotRead),
        ("min-wait", Self::MinWait),
        ("multishot-receive", Self::MultishotReceive),
        ("udp-segment", Self::UdpSegment),
        ("udp-gro", Self::UdpGro),
        ("uso", Self::Uso),
        ("tso", Self::Tso),
    ];
}

/// A test switch with a value that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?} is not {expected}")]
pub struct TestKnobError {
    variable: &'static str,
    value: String,
    expected: &'static str,
}

impl FromStr for Feature {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, feature)| *feature).ok_or(())
    }
}

impl TestKnobs {
    /// How dear a guess of the password is.
    #[must_use]
    pub const fn effort(&self) -> Effort {
        if self.cheap_password { Effort::None } else { Effort::Full }
    }

    /// The variables that are switches.
    pub const VARIABLES: [&'static str; 4] =
        ["WEAVE_TEST_REKEY_MS", "WEAVE_TEST_ABSENT", "WEAVE_TEST_PROTOCOL", "WEAVE_TEST_FEATURES"];

    /// The one that releases refuse.
    const CHEAP_PASSWORD: &'static str = "WEAVE_TEST_CHEAP_PASSWORD";

    /// Reads the switches through `variable`, which answers like [`std::env::var`].
    ///
    /// # Errors
    /// When a value makes no sense: a test with a mistyped switch would test nothing.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, TestKnobError> {
        let [rekey, absent, protocol, features] = Self::VARIABLES;
        let mut knobs = Self::default();
        if let Some(value) = variable(rekey) {
            let interval =
                value.parse().ok().map(Duration::from_millis).filter(|interval| *interval >= MIN_REKEY);
            knobs.rekey_interval = Some(interval.ok_or(TestKnobError {
                variable: rekey,
                value,
                expected: "a number of milliseconds, 100 or more",
            })?);
        }
        if let Some(value) = variable(absent) {
            let features: Result<Vec<_>, ()> = value.split(',').map(str::parse).collect();
            knobs.absent = features.map_err(|()| TestKnobError {
                variable: absent,
                value,
                expected: "a list of features that can be absent",
            })?;
        }
        if let Some(value) = variable(protocol) {
            let max = value.parse().ok().filter(|max| (VERSION_MIN..=VERSION_MAX + 1).contains(max));
            let max = max.ok_or(TestKnobError {
                variable: protocol,
                value,
                expected: "a version of the protocol, the next one at most",
            })?;
            knobs.versions = Some(Versions { min: VERSION_MIN, max });
        }
        if let Some(value) = variable(features) {
            let expected = "a set of bits, as 0x0";
            let known = value.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
            knobs.features = Some(known.ok_or(TestKnobError { variable: features, value, expected })?);
        }
        if let Some(value) = variable(Self::CHEAP_PASSWORD) {
            knobs.cheap_password = cfg!(debug_assertions) && value == "1";
            if !knobs.cheap_password {
                let expected = "1 in a build of the tests";
                return Err(TestKnobError { variable: Self::CHEAP_PASSWORD, value, expected });
            }
        }
        Ok(knobs)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_set_is_production() {
        assert_eq!(TestKnobs::read(|_| None).unwrap(), TestKnobs::default());
    }

    #[test]
    fn each_switch_is_read() {
        let knobs = TestKnobs::read(|name| match name {
            "WEAVE_TEST_REKEY_MS" => Some("100".into()),
            "WEAVE_TEST_ABSENT" => Some("uso,multishot-read".into()),
            "WEAVE_TEST_PROTOCOL" => Some("2".into()),
            "WEAVE_TEST_FEATURES" => Some("0x0".into()),
            TestKnobs::CHEAP_PASSWORD if cfg!(debug_assertions) => Some("1".into()),
            _ => None,
        });
        let knobs = knobs.unwrap();
        assert_eq!(knobs.rekey_interval, Some(MIN_REKEY));
        assert_eq!(knobs.absent, [Feature::Uso, Feature::MultishotRead]);
        assert_eq!(knobs.features, Some(0));
        assert_eq!(knobs.cheap_password, cfg!(debug_assertions));
        assert_eq!(knobs.versions, Some(Versions { min: VERSION_MIN, max: VERSION_MAX + 1 }));
    }

    #[test]
    fn a_mistyped_switch_is_refused() {
        for value in ["", "99", "-1", "usso", "yes"] {
            for variable in TestKnobs::VARIABLES.into_iter().chain([TestKnobs::CHEAP_PASSWORD]) {
                assert!(TestKnobs::read(|name| (name == variable).then(|| value.into())).is_err());
            }
        }
    }
}
