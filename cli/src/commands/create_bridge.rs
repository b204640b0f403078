//! `weave create-bridge`: the bridge alone, as the original's command of this name.

use weave_host::{Netlink, bridge};

use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::root;

/// Makes the bridge if it is absent.
pub fn run(environment: &Environment) -> Result<()> {
    let mtu = u32::from(environment.mtu()?);
    root::require_network("create-bridge")?;
    Netlink::open()
        .and_then(|mut host| {
            // One that is there stays as it is.
            let present = bridge::mtu_of(host.link(bridge::BRIDGE)?.as_ref());
            bridge::ensure(&mut host, present.unwrap_or(mtu))
        })
        .map_err(|error| Failure::because("cannot create the bridge", error))?;
    Ok(())
}
