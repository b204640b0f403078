//! `weave forget`: peers not to reconnect to, names to be free again.

use weave_api::{Client, Target, client::TIME_LIMIT};
use weave_wire::PeerName;

use crate::environment::Environment;
use crate::failure::{Failure, Result};

/// Takes `peers` out of the targets, and frees `names` of the keys they are bound to.
pub fn run(peers: Vec<Target>, names: Vec<PeerName>, environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    let failed = |what| {
        let run_dir = &run_dir;
        move |error| Failure::of_client(what, run_dir, &error)
    };
    let mut client = Client::connect(&run_dir, TIME_LIMIT).map_err(failed("cannot forget peers"))?;
    // First what may be refused.
    if !names.is_empty() {
        client.forget_identities(names).map_err(failed("cannot free the name of a peer"))?;
    }
    if !peers.is_empty() {
        client.forget(peers).map_err(failed("cannot forget peers"))?;
    }
    Ok(())
}
