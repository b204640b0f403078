//! Names: the DNS sidecar and the commands around it.

pub mod arguments;
pub mod guard;
pub mod launch;
pub mod names;
pub mod publish;
pub mod sidecar;

use std::path::Path;

use weave_api::names::{EXPOSED, EXTERN, OwnName, ShortId};
use weave_host::names::{DnsSettings, Held, Holder};

use crate::environment::Environment;
use crate::failure::{Failure, Result};

/// Whose address that of the sidecar itself is.
const SIDECAR: &str = "weave:dns";
/// Digits of an engine's id that are shown.
pub const ID_SHOWN: usize = 12;

/// How the DNS of this host was launched last.
pub fn settings(environment: &Environment) -> Result<DnsSettings> {
    settings_in(&environment.state_dir()?)
}

fn settings_in(state_dir: &Path) -> Result<DnsSettings> {
    let settings = DnsSettings::read(state_dir)
        .map_err(|error| Failure::because("cannot read how the DNS was launched", error))?;
    Ok(settings.unwrap_or_default())
}

/// A name of this host as others read it.
fn own_name(held: Held) -> OwnName {
    let container = match held.holder {
        Holder::Container(container) => container,
        Holder::Host => EXPOSED.to_owned(),
        Holder::Outside => EXTERN.to_owned(),
    };
    OwnName { name: held.name, address: held.address, container }
}

/// The names of this host as `status` shows them.
pub fn own_names(environment: &Environment) -> Result<Vec<OwnName>> {
    let own = weave_host::names::own(&environment.state_dir()?)
        .map_err(|error| Failure::because("cannot read the names of this host", error))?;
    Ok(own.names.into_iter().map(own_name).collect())
}

/// A container in a line: 12 digits of an engine's, otherwise as it was named.
pub fn shown(container: &str) -> &str {
    let is_engine = ShortId::of(container) != ShortId::default();
    container.get(..ID_SHOWN).filter(|_| is_engine).unwrap_or(container)
}
