//! Settings of network devices that exist only under /sys/class/net.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::error::{Error, Result};
use super::host::Host;

const MOUNT_POINT: &str = "/sys";
const NOTHING: Option<&str> = None;

/// Writes settings of a device of `host`. The mounted /sys shows the namespace it was mounted in,
/// so a thread mounts one of its own, which goes with it.
pub(super) fn write(host: &Host, device: &str, settings: &[(&str, String)]) -> Result<()> {
    host.run(|| {
        let mounted = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_SLAVE, NOTHING))
            .and_then(|()| mount(Some("sysfs"), MOUNT_POINT, Some("sysfs"), MsFlags::empty(), NOTHING));
        mounted.map_err(|error| Error::file("mount", MOUNT_POINT, error.into()))?;
        let directory = Path::new(MOUNT_POINT).join("class/net").join(device);
        for (name, value) in settings {
            let path = directory.join(name);
            fs::write(&path, value).map_err(|error| Error::file("write", path, error))?;
        }
        Ok(())
    })?
}
