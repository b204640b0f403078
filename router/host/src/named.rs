//! Named namespaces, kept the way `ip netns` keeps them: a bind mount in
//! [`NAMED_DIR`], so that iproute2 and we see each other's.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Error, Result};
use crate::namespace::{NAMED_DIR, Namespace, NamespaceSpec, in_thread};

const NOTHING: Option<&str> = None;

/// Makes the namespace `name` and opens it.
///
/// # Errors
/// When the name is bad or taken, or the caller lacks CAP_SYS_ADMIN.
pub fn create(name: &str) -> Result<Namespace> {
    let spec: NamespaceSpec = format!("netns:{name}").parse()?;
    prepare_directory()?;
    let path = Path::new(NAMED_DIR).join(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&path)
        .map_err(|error| Error::kernel("create namespace", &spec, error))?;
    let made = in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| Error::kernel("create namespace", &spec, error))?;
        mount(Some("/proc/thread-self/ns/net"), &path, NOTHING, MsFlags::MS_BIND, NOTHING)
            .map_err(|error| Error::kernel("mount namespace", &spec, error))
    });
    match made.and_then(|()| Namespace::open(&spec)) {
        Ok(namespace) => Ok(namespace),
        Err(error) => Err(error.after_undo(remove(name))),
    }
}

/// Removes the name; the namespace itself lives as long as anything uses it.
/// A name that is not there is no error.
///
/// # Errors
/// When the name is bad or the caller lacks CAP_SYS_ADMIN.
pub fn remove(name: &str) -> Result<()> {
    let spec: NamespaceSpec = format!("netns:{name}").parse()?;
    let path = Path::new(NAMED_DIR).join(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: not a mount point, left over from a creation that failed.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(error) => return Err(Error::kernel("unmount namespace", &spec, error)),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::kernel("remove namespace", &spec, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The directory must be a shared mount of its own, so that a name made or
/// removed in one mount namespace is made or removed in all (ip-netns(8)).
fn prepare_directory() -> Result<()> {
    let failed = |error: std::io::Error| Error::kernel("prepare", NAMED_DIR, error);
    fs::DirBuilder::new().recursive(true).mode(0o755).create(NAMED_DIR).map_err(failed)?;
    let share = || mount(NOTHING, NAMED_DIR, NOTHING, MsFlags::MS_SHARED | MsFlags::MS_REC, NOTHING);
    match share() {
        // EINVAL: not a mount point yet.
        Err(Errno::EINVAL) => {}
        Ok(()) => return Ok(()),
        Err(error) => return Err(failed(error.into())),
    }
    mount(Some(NAMED_DIR), NAMED_DIR, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)
        .and_then(|()| share())
        .map_err(|error| failed(error.into()))
}
