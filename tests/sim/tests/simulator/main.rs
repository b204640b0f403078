//! Meshes of simulated hosts.
#![allow(clippy::unwrap_used)]

mod broken;
mod cuts;
mod growth;
mod hundred;
mod names;
mod same_seed;
mod seeds;
