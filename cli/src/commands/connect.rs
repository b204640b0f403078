//! `weave connect`: more peers to dial, or others.

use weave_api::{Client, Target, client::TIME_LIMIT};

use weave_host::failpoint;

use crate::environment::Environment;
use crate::failure::{Failure, Result};

/// Adds `peers` to the targets, or with `replace` makes them the targets.
pub fn run(peers: Vec<Target>, replace: bool, environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    let connected = Client::connect(&run_dir, TIME_LIMIT).and_then(|mut client| {
        failpoint("ask the router");
        client.connect_peers(peers, replace)
    });
    failpoint("say what the router answered");
    connected.map_err(|error| Failure::of_client("cannot connect to peers", &run_dir, &error))
}
