//! Measuring the network: a traffic generator, simulated hosts and the statistics over both.
//!
//! `weave demo` links this library, so it needs no other program (no iperf3) and few crates. The
//! program `weave-perf` in the same package compares whole tunnels side by side.
//!
//! * [`lab`]: hosts and containers as network namespaces of this machine.
//! * [`traffic`]: TCP throughput, UDP datagrams per second, round trips, ICMP echo.
//! * [`process`]: CPU time and memory of another process.
//! * [`machine`]: how busy the whole machine is.
//! * [`stats`]: medians and spread of repeated measurements.

pub mod lab;
pub mod machine;
pub mod process;
pub mod stats;
pub mod traffic;
