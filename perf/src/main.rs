//! `weave-perf`: measures this overlay beside other tunnels on one machine.
//!
//! `weave-perf ab` builds the same two hosts for every tunnel, one after the other in a fresh
//! order each round, and prints medians, spread and ratios. `weave-perf relay` does the same with
//! a link and a way over a third host, `weave-perf dns` with names and dnsmasq.

mod ab;
mod dns;
mod relay;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Weave beside other tunnels.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare tunnels side by side on two simulated hosts (needs root).
    Ab(ab::Options),
    /// Compare a way over a relay with a direct link (needs root).
    Relay(relay::Options),
    /// Compare the DNS with dnsmasq (needs root, dnsmasq and dnsperf).
    Dns(dns::Options),
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Ab(options) => ab::run(&options),
        Command::Relay(options) => relay::run(&options),
        Command::Dns(options) => dns::run(&options),
    };
    match ended {
        Ok(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            // Nothing is left to tell it to when stderr is gone.
            let _ = writeln!(std::io::stderr(), "weave-perf: {error}");
            ExitCode::FAILURE
        }
    }
}
