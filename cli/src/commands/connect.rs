//! `weave connect`: more peers to dial, or others.

use weave_api::{Client, Target, client::TIME_LIMIT};

use crate::environment::Environment;
use crate::failure::{Failure, Result};

/// Adds `peers` to the targets, or with `replace` makes them the targets.
pub fn run(peers: Vec<Target>, replace: bool, environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    Client::connect(&run_dir, TIME_LIMIT)
        .and_then(|mut client| client.connect_peers(peers, replace))
        .map_err(|error| Failure::of_client("cannot connect to peers", &run_dir, &error))
}
