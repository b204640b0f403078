//! `weave log-level`: how much the router logs, while it runs.

use weave_api::{Client, client::TIME_LIMIT};
use weave_router::config::LogLevel;

use crate::environment::Environment;
use crate::failure::{Failure, Result};

/// Has the router log as much as `level` says.
pub fn run(level: LogLevel, environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    Client::connect(&run_dir, TIME_LIMIT)
        .and_then(|mut client| client.log_level(level.as_str()))
        .map_err(|error| Failure::of_client("cannot change how much is logged", &run_dir, &error))
}
