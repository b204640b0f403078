//! Tells sidecar and router of changes in the records.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use weave_api::names::{OwnNames, own_file, prepare};

use super::own_name;
use crate::commands::attach::tell_router;
use crate::environment::Environment;
use crate::failure::Result;
use crate::output;
use crate::running::{self, NAMES_LOCK};

/// How long who writes is waited for: it takes a few milliseconds.
const LOCKED_WITHIN: Duration = Duration::from_secs(5);

/// Tells both; what cannot be told now they find out by themselves.
pub fn tell(environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    write(&run_dir, &environment.state_dir()?);
    tell_router(&run_dir);
    Ok(())
}

/// Writes the names of this host for the sidecar.
pub fn write(run_dir: &Path, state_dir: &Path) {
    if let Err(error) = try_write(run_dir, state_dir) {
        output::warn(format_args!("the DNS was not told of this host's names: {error}"));
    }
}

fn try_write(run_dir: &Path, state_dir: &Path) -> io::Result<()> {
    prepare(run_dir)?;
    // Whoever reads last writes last. Not on the directory, which the sidecar can open, and so keep locked.
    let _lock = running::lock(&run_dir.join(NAMES_LOCK), LOCKED_WITHIN)?;
    let own = weave_host::names::own(state_dir).map_err(io::Error::other)?;
    let names = own.names.into_iter().map(own_name).collect();
    let text = serde_json::to_vec(&OwnNames { names, subnets: own.subnets, exposed: own.exposed })?;
    let path = own_file(run_dir);
    if fs::read(&path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let temporary = path.with_extension("tmp");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
    file.set_permissions(fs::Permissions::from_mode(0o640))?;
    file.write_all(&text)?;
    fs::rename(&temporary, &path)
}
