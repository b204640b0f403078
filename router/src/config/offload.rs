//! The parts of the fast path that `--offload` switches off.

use std::fmt;
use std::str::FromStr;

/// Which super-frame offloads a router may use. What the kernel lacks is off anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// Many datagrams in one send (`UDP_SEGMENT`).
    pub gso: bool,
    /// Many datagrams in one receive (`UDP_GRO`).
    pub gro: bool,
    /// UDP super-frames across the tap (`TUN_F_USO4`, `TUN_F_USO6`).
    pub uso: bool,
    /// TCP super-frames across the tap (`TUN_F_TSO4`, `TUN_F_TSO6`).
    pub tso: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self { gso: true, gro: true, uso: true, tso: true }
    }
}

/// A text that names no offloads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of no-gso, no-gro, no-uso, no-tso")]
pub struct ParseOffloadsError {
    text: String,
}

impl FromStr for Offloads {
    type Err = ParseOffloadsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut offloads = Self::default();
        for part in text.split(',') {
            match part {
                "no-gso" => offloads.gso = false,
                "no-gro" => offloads.gro = false,
                "no-uso" => offloads.uso = false,
                "no-tso" => offloads.tso = false,
                other => return Err(ParseOffloadsError { text: other.chars().take(80).collect() }),
            }
        }
        Ok(offloads)
    }
}

impl fmt::Display for Offloads {
    /// The list that [`Offloads::from_str`] reads; empty when everything is on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let parts = [(self.gso, "no-gso"), (self.gro, "no-gro"), (self.uso, "no-uso"), (self.tso, "no-tso")];
        for (_, name) in parts.iter().filter(|(on, _)| !on) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_part_is_switched_off_by_its_name() {
        let offloads: Offloads = "no-gro,no-tso".parse().unwrap();
        assert_eq!(offloads, Offloads { gso: true, gro: false, uso: true, tso: false });
        assert_eq!(offloads.to_string(), "no-gro,no-tso");
    }

    #[test]
    fn an_unknown_part_is_refused() {
        for text in ["", "gso", "no-gso,", "no-gso no-gro", "no-lro"] {
            assert!(text.parse::<Offloads>().is_err(), "{text:?}");
        }
    }
}
