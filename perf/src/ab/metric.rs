//! What is measured of every tunnel.

use std::collections::BTreeMap;

use serde::Serialize;

/// One measured quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// One TCP stream.
    Tcp1,
    /// Four TCP streams together.
    Tcp4,
    /// Datagrams of 64 bytes payload delivered.
    UdpSmall,
    /// Datagrams that fill the MTU delivered.
    UdpLarge,
    /// Median round trip.
    RoundTripP50,
    /// 99th percentile of round trips.
    RoundTripP99,
    /// CPU time of both routers over what one TCP stream delivered.
    CpuPerGigabyte,
    /// Resident memory of the larger router after all this.
    Memory,
    /// Memory of all programs of the fuller host at its highest, page cache included; only where
    /// hosts are limited.
    HostMemory,
    /// Programs of both hosts that were ended for lack of memory; only where hosts are limited.
    Killed,
    /// Share of the 64-byte datagrams sent that did not arrive.
    UdpSmallLoss,
    /// Share of the MTU-size datagrams sent that did not arrive.
    UdpLargeLoss,
    /// Share of the machine that was busy before the tunnel was started: with other programs.
    Background,
}

/// All of them, in the order of the table.
pub const METRICS: [Metric; 13] = [
    Metric::Tcp1,
    Metric::Tcp4,
    Metric::UdpSmall,
    Metric::UdpLarge,
    Metric::RoundTripP50,
    Metric::RoundTripP99,
    Metric::CpuPerGigabyte,
    Metric::Memory,
    Metric::HostMemory,
    Metric::Killed,
    Metric::UdpSmallLoss,
    Metric::UdpLargeLoss,
    Metric::Background,
];

/// What one tunnel did in one round; what could not be measured is missing.
pub type Sample = BTreeMap<Metric, f64>;

impl Metric {
    /// Head of its column, two lines.
    pub fn heading(self) -> [&'static str; 2] {
        match self {
            Self::Tcp1 => ["TCP 1", "Gbit/s"],
            Self::Tcp4 => ["TCP 4", "Gbit/s"],
            Self::UdpSmall => ["UDP 64 B", "k/s"],
            Self::UdpLarge => ["UDP MTU", "k/s"],
            Self::RoundTripP50 => ["RTT p50", "us"],
            Self::RoundTripP99 => ["RTT p99", "us"],
            Self::CpuPerGigabyte => ["CPU", "s/GB"],
            Self::Memory => ["memory", "MiB"],
            Self::HostMemory => ["host", "MiB"],
            Self::Killed => ["killed", ""],
            Self::UdpSmallLoss => ["64 B lost", "%"],
            Self::UdpLargeLoss => ["MTU lost", "%"],
            Self::Background => ["others", "%"],
        }
    }

    /// Unit of a sample, as the JSON names it.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp4 => "Gbit/s",
            Self::UdpSmall | Self::UdpLarge => "datagrams/s",
            Self::RoundTripP50 | Self::RoundTripP99 => "us",
            Self::CpuPerGigabyte => "s/GB",
            Self::Memory | Self::HostMemory => "bytes",
            Self::Killed => "programs",
            Self::UdpSmallLoss | Self::UdpLargeLoss | Self::Background => "share",
        }
    }

    /// What a sample is divided by to be shown in its column.
    pub fn scale(self) -> f64 {
        match self {
            Self::UdpSmall | Self::UdpLarge => 1e3,
            Self::Memory | Self::HostMemory => f64::from(1 << 20),
            Self::UdpSmallLoss | Self::UdpLargeLoss | Self::Background => 0.01,
            Self::Tcp1
            | Self::Tcp4
            | Self::RoundTripP50
            | Self::RoundTripP99
            | Self::CpuPerGigabyte
            | Self::Killed => 1.0,
        }
    }

    /// Digits after the point in its column.
    pub fn digits(self) -> usize {
        match self {
            Self::Tcp1 | Self::Tcp4 | Self::CpuPerGigabyte => 2,
            Self::Memory | Self::HostMemory => 1,
            Self::UdpSmall
            | Self::UdpLarge
            | Self::RoundTripP50
            | Self::RoundTripP99
            | Self::Killed
            | Self::UdpSmallLoss
            | Self::UdpLargeLoss
            | Self::Background => 0,
        }
    }

    /// Whether it is there only where hosts are limited.
    pub fn is_of_limits(self) -> bool {
        matches!(self, Self::HostMemory | Self::Killed)
    }

    /// Whether a ratio of two tunnels says something about them. (A loss is a choice of the
    /// generator: it offers all it can. Other programs are not theirs. Page cache is the kernel's.)
    pub fn is_compared(self) -> bool {
        !matches!(
            self,
            Self::HostMemory | Self::Killed | Self::UdpSmallLoss | Self::UdpLargeLoss | Self::Background
        )
    }
}
