//! `weave reload`: the password file again.

use weave_api::{Client, client::TIME_LIMIT};

use crate::environment::Environment;
use crate::failure::{Failure, Result};

/// Has the router read its password file again. Links that are up stay.
pub fn run(environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    Client::connect(&run_dir, TIME_LIMIT)
        .and_then(|mut client| client.reload())
        .map_err(|error| Failure::of_client("cannot reload", &run_dir, &error))
}
