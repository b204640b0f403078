//! `weave-sim`: meshes of many hosts under faults, from a seed.

mod commands;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Simulates meshes of many hosts.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds: hosts under faults, then without; see what must hold.
    Run(commands::run::Options),
    /// Measure what grows with the number of hosts, and how.
    Curve(commands::curve::Options),
    /// Cut ways at random; see how soon data passes again.
    Cuts(commands::cuts::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(options) => commands::run::run(&options),
        Command::Curve(options) => commands::curve::run(&options),
        Command::Cuts(options) => commands::cuts::run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing is left to tell it to when stderr is gone.
            let _ = writeln!(std::io::stderr(), "weave-sim: {error}");
            ExitCode::FAILURE
        }
    }
}
