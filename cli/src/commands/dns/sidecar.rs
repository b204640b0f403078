//! `weave dns`: the sidecar itself, in this process.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc;

use ipnet::IpNet;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use weave_api::names::{DNS_PORT, SIDECAR_ID, prepare, sidecar_socket};
use weave_dns::{Beat, SidecarConfig};
use weave_host::attach::{AttachOptions, PROBE_WAIT};
use weave_host::records::Records;
use weave_host::{Namespace, Netlink};
use weave_router::config::LogLevel;
use weave_router::logging;

use super::{SIDECAR, launch};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::root;
use crate::running::{Claim, Daemon};

/// What it says when it is asked.
pub const READY: &str = "ready\n";
/// Signs in the time after which a service manager takes it for dead.
const BEATS: u32 = 3;
/// Names the resolvers of the host.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Answers until it is ended. What keeps it from starting goes to standard output, for who started it.
pub fn run(environment: &Environment) -> Result<()> {
    let ran = serve(
        environment,
        || {},
        || {
            let _ = output::print(READY);
            // Who waits for the end of this output has waited enough.
            let null = fs::OpenOptions::new().write(true).open("/dev/null");
            let _ = null.map(|null| rustix::stdio::dup2_stdout(&null));
        },
        // What its parent was told of a service manager is not said to it.
        || None,
    );
    if let Err(failure) = &ran {
        let _ = output::print(format_args!("{failure}\n"));
    }
    ran
}

/// A sign for the service manager (`WatchdogSec=`, sd_watchdog_enabled(3)), if one waits for it. A thread of
/// its own speaks to the manager, which may be slow to listen.
pub fn beat() -> Option<Beat> {
    let every = sd_notify::watchdog_enabled()? / BEATS;
    let (works, said) = mpsc::sync_channel(1);
    let speak = move || {
        while said.recv().is_ok() {
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
                tracing::debug!("the service manager is not told that the DNS works: {error}");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("weave-dns-beat".into()).spawn(speak) {
        tracing::error!("the service manager will not be told that the DNS works: {error}");
        return None;
    }
    Some(Beat { every, give: Box::new(move || _ = works.try_send(())) })
}

/// Answers until it is ended. `attached` is called once it has its address on the network, with all
/// privileges; `ready` when it is asked, without any, and before it `beat`, for the sign that it gives.
pub fn serve(
    environment: &Environment,
    attached: impl FnOnce(),
    ready: impl FnOnce(),
    beat: impl FnOnce() -> Option<Beat>,
) -> Result<()> {
    root::require("dns")?;
    let failed = |error: std::io::Error| Failure::because("cannot start the DNS", error);
    let (run_dir, state_dir) = (environment.run_dir()?, environment.state_dir()?);
    let settings = super::settings(environment)?;
    let _ = rustix::process::setsid();
    prepare(&run_dir).map_err(failed)?;
    let _claim = Claim::take(&run_dir, Daemon::Dns)?;
    let _ = std::env::set_current_dir("/");
    let (level, quieter) = if settings.debug {
        (LogLevel::Debug, "")
    } else {
        (LogLevel::Info, "hickory_net=warn,hickory_resolver=warn")
    };
    logging::start(level, quieter);
    let commands = listen_to_commands(&run_dir).map_err(failed)?;
    // The namespace lives as long as its sockets do.
    let own_sockets = match settings.cidr {
        Some(cidr) => vec![own_sockets(cidr, &state_dir, environment)?],
        None => Vec::new(),
    };
    let config = SidecarConfig {
        run_dir,
        domain: settings.domain,
        ttl_s: settings.ttl_s,
        cache: settings.cache,
        engine_bridge: environment.engine_bridge()?,
        listen: settings.listen,
        port: DNS_PORT,
        resolv_conf: RESOLV_CONF.into(),
        own_sockets,
        commands,
    };
    attached();
    drop_privileges();
    weave_dns::run(config, ready, beat()).map_err(failed)
}

fn listen_to_commands(run_dir: &Path) -> std::io::Result<UnixListener> {
    let path = sidecar_socket(run_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Sockets in a namespace that is attached like a container: the host itself stays off that network.
fn own_sockets(cidr: IpNet, state_dir: &Path, environment: &Environment) -> Result<(UdpSocket, TcpListener)> {
    let failed =
        |error: weave_host::Error| Failure::because(format_args!("cannot give the DNS {cidr}"), error);
    let mtu = environment.mtu_if_set()?.map(u32::from);
    let namespace = Namespace::create(SIDECAR).map_err(failed)?;
    let mut host = Netlink::open().map_err(failed)?;
    let mut records = Records::open(state_dir).map_err(failed)?;
    launch::remove_interfaces(&mut host, &mut records).map_err(failed)?;
    let options = AttachOptions { mac: None, mtu, probe: Some(PROBE_WAIT) };
    records.attach(&mut host, SIDECAR, &namespace, &[cidr], &options).map_err(failed)?;
    let address = SocketAddr::new(cidr.addr(), DNS_PORT);
    namespace
        .run(|| weave_dns::bind(address))
        .map_err(failed)?
        .map_err(|error| Failure::because(format_args!("cannot give the DNS {address}"), error))
}

/// Becomes a user who owns nothing and may bind port 53. Where there is no such user (a user
/// namespace), it stays who it is.
fn drop_privileges() {
    let user = (Uid::from_raw(SIDECAR_ID), Gid::from_raw(SIDECAR_ID));
    let became = rustix::thread::set_keep_capabilities(true)
        .map_err(std::io::Error::from)
        .and_then(|()| Ok(setgroups(&[user.1])?))
        .and_then(|()| Ok(setgid(user.1)?))
        .and_then(|()| Ok(setuid(user.0)?));
    let only = CapabilitySet::NET_BIND_SERVICE;
    let sets = CapabilitySets { effective: only, permitted: only, inheritable: CapabilitySet::empty() };
    let kept = rustix::thread::set_capabilities(None, sets).map_err(std::io::Error::from);
    let sealed = rustix::thread::set_no_new_privs(true).map_err(std::io::Error::from);
    if let Err(error) = became.and(kept).and(sealed) {
        tracing::warn!("privileges stay that are not needed: {error}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::mount::{MsFlags, mount, umount};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::signal::kill;
    use nix::unistd::Pid;
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    use std::io;
    use std::os::unix::fs::chown;
    use std::process::Command;

    /// Set where all threads of the process may become another user.
    const ALONE: &str = "WEAVE_TEST_BECOMES_ANOTHER";
    const HERE: &str = "commands::dns::sidecar::tests::a_sidecar_binds_its_port_and_is_refused_the_rest";

    /// What a sidecar has no use for, and what comes of it; `directory` is root's.
    fn tried(directory: &Path) -> Vec<(&'static str, io::Result<()>)> {
        let interface = Netlink::open().and_then(|mut netlink| netlink.set_loopback_up());
        let interface = interface.map_err(|error| {
            if let weave_host::Error::Kernel { source, .. } = error {
                source
            } else {
                io::Error::other(error)
            }
        });
        let packets = socket(AddressFamily::PACKET, SocketType::RAW, None);
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP));
        let (file, owner) = (directory.join("file"), Some(SIDECAR_ID));
        let there = directory.join("there");
        let tmpfs = mount(Some("none"), &there, Some("tmpfs"), MsFlags::empty(), None::<&str>);
        vec![
            ("change an interface", interface),
            ("open a socket for packets", packets.map(drop).map_err(Into::into)),
            ("open a raw socket", raw.map(drop).map_err(Into::into)),
            ("write a file of root", fs::write(&file, "written")),
            ("give it away", chown(&file, owner, owner)),
            ("make a file where root's are", fs::write(directory.join("other"), "")),
            ("mount", tmpfs.map_err(Into::into)),
            ("make a namespace", unshare(CloneFlags::CLONE_NEWUTS).map_err(Into::into)),
            ("signal a process of root", kill(Pid::parent(), None).map_err(Into::into)),
            ("become root", setuid(Uid::from_raw(0)).map_err(Into::into)),
        ]
    }

    fn is_refused(directory: &Path) {
        for (what, result) in tried(directory) {
            let kind = result.err().map(|error| error.kind());
            assert_eq!(kind, Some(io::ErrorKind::PermissionDenied), "{what}");
        }
    }

    #[test]
    fn a_sidecar_binds_its_port_and_is_refused_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        if std::env::var_os(ALONE).is_none() {
            let mut alone = Command::new(std::env::current_exe().unwrap());
            let ran = alone.args(["--exact", HERE, "--nocapture"]).env(ALONE, "1").output().unwrap();
            let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        // Root can do it all, so that what is refused later is refused for the lack of privileges.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(directory.path().join("there")).unwrap();
        for (what, result) in tried(directory.path()) {
            result.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        umount(&directory.path().join("there")).unwrap();
        chown(directory.path().join("file"), Some(0), Some(0)).unwrap();
        fs::remove_file(directory.path().join("other")).unwrap();

        drop_privileges();
        weave_dns::bind(([127, 0, 0, 1], DNS_PORT).into()).unwrap();
        is_refused(directory.path());
        // Threads inherit it, and so would programs.
        std::thread::scope(|scope| scope.spawn(|| is_refused(directory.path())).join()).unwrap();
        let status = Command::new("cat").arg("/proc/self/status").output().unwrap().stdout;
        let status = String::from_utf8(status).unwrap();
        for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65534\t65534\t65534\t65534"] {
            assert!(status.contains(line), "{line} of a program in {status}");
        }
    }
}
