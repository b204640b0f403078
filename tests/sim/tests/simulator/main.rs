//! Meshes of simulated hosts.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod broken;
mod cuts;
mod growth;
mod hundred;
mod names;
mod same_seed;
mod seeds;
