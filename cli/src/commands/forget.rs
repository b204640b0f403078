//! `weave forget`: peers not to reconnect to.

use weave_api::{Client, Target, client::TIME_LIMIT};

use crate::environment::Environment;
use crate::failure::{Failure, Result};

/// Takes `peers` out of the targets.
pub fn run(peers: Vec<Target>, environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    Client::connect(&run_dir, TIME_LIMIT)
        .and_then(|mut client| client.forget(peers))
        .map_err(|error| Failure::of_client("cannot forget peers", &run_dir, &error))
}
