//! `weave reset`: stops the router and removes every trace of weave from this host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use weave_api::{Client, names};
use weave_host::Netlink;
use weave_host::firewall::{Firewall, Guard};
use weave_host::reset::{STATE_FILES, remove_interfaces};
use weave_host::store::{StateDir, StateLock};
use weave_host::{detached, exposed, failpoint, forwarding, keeper_socket, records};

use super::stop::stop;
use super::{dns, keeper};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::root;
use crate::running::{self, Daemon, Running};

/// Time a daemon that was killed has to be gone.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// Longest state file that is looked at, bytes.
const FILE_MAX: u64 = 1 << 20;

/// Stops and removes everything; what cannot be removed does not keep the rest.
pub fn run(environment: &Environment) -> Result<()> {
    let (run_dir, state_dir) = (environment.run_dir()?, environment.state_dir()?);
    root::require("reset")?;
    failpoint("stop the router");
    stop(&run_dir, Client::leave)?;
    // One that does not end as it should is killed below.
    let dns = dns::launch::end(None, environment);
    failpoint("end the keeper");
    keeper::end(&run_dir)?;
    // What other commands begin meanwhile comes after; what they began before is ended, too.
    let lock = lock_state(&state_dir)?;
    end_late(&run_dir)?;
    let interfaces = Netlink::open()
        .and_then(|mut host| remove_interfaces(&mut host).and(forwarding::put_back(&state_dir, &mut host)))
        .map_err(|error| Failure::because("cannot remove every interface", error));
    let rules = Firewall::find()
        .map_or(Ok(()), Firewall::remove)
        .and(Guard::remove())
        .map_err(|error| Failure::because("cannot remove every rule", error));
    let state = remove_state(&state_dir);
    let late = end_late(&run_dir);
    let run = remove_run(&run_dir)
        .map_err(|error| Failure::new(format_args!("cannot remove {}", run_dir.display()), error, ""));
    drop(lock);
    interfaces.and(rules).and(state).and(late).and(run).and(dns.map(drop))
}

/// Ends daemons that other commands started while this one was at it. They are in the middle of
/// nothing: the state is locked.
fn end_late(run_dir: &Path) -> Result<()> {
    for daemon in [Daemon::Router, Daemon::Dns, Daemon::Keeper] {
        if let Some(running) = Running::find(run_dir, daemon)?
            && running.kill()
        {
            running.wait(KILLED_WITHIN)?;
        }
    }
    Ok(())
}

/// Keeps other commands out of the state, if there is any.
fn lock_state(state_dir: &Path) -> Result<Option<StateLock>> {
    if !state_dir.exists() {
        return Ok(None);
    }
    let lock = StateDir::existing(state_dir).lock();
    lock.map(Some).map_err(|error| Failure::because("cannot remove the state", error))
}

fn remove_state(state_dir: &Path) -> Result<()> {
    let below =
        [records::DIRECTORY, detached::DIRECTORY, exposed::DIRECTORY].map(|name| state_dir.join(name));
    for directory in below.iter().map(PathBuf::as_path).chain([state_dir]) {
        remove_state_files(directory).map_err(|error| {
            Failure::new(format_args!("cannot remove the state in {}", directory.display()), error, "")
        })?;
    }
    Ok(())
}

/// Removes the files of ours in `directory`, then the directory itself if
/// nothing else is in it. Files of others stay: the directory may have been
/// named by mistake.
fn remove_state_files(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())) else {
            continue;
        };
        let left_over = name.ends_with(".json.bad") || (name.starts_with('.') && name.ends_with(".json.tmp"));
        let is_ours =
            || name.ends_with(".json") && (is_state_file(&entry.path()) || is_damaged(&entry.path()));
        if left_over || is_ours() {
            failpoint("remove a file of the state");
            fs::remove_file(entry.path())?;
        }
    }
    remove_empty(directory)
}

/// Whether a file has the form of all state files.
fn is_state_file(path: &Path) -> bool {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only their presence counts")]
    struct Label {
        kind: String,
        version: u32,
        content: serde::de::IgnoredAny,
    }
    is_small(path) && fs::read(path).is_ok_and(|text| serde_json::from_slice::<Label>(&text).is_ok())
}

/// Whether it is a file of ours by its name, and nobody's by what is in it.
fn is_damaged(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_known =
        name.is_some_and(|name| weave_router::STATE_FILES.contains(&name) || STATE_FILES.contains(&name));
    let is_no_json = |text: Vec<u8>| serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_err();
    is_known && is_small(path) && fs::read(path).is_ok_and(is_no_json)
}

fn is_small(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() <= FILE_MAX)
}

fn remove_empty(directory: &Path) -> io::Result<()> {
    failpoint("remove a directory");
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A mount point, as a service manager makes it.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            output::note(format_args!("left what is not weave's in {}", directory.display()));
            Ok(())
        }
        other => other,
    }
}

fn remove_run(run_dir: &Path) -> io::Result<()> {
    let (control, names) = (weave_api::socket::directory(run_dir), names::directory(run_dir));
    let files = running::FILES.iter().chain(&running::LOGS).map(|name| run_dir.join(name));
    let own = names::own_file(run_dir);
    let others = [
        weave_api::socket::path(run_dir),
        control.join(keeper_socket::SOCKET),
        weave_api::keeper::file(run_dir),
        weave_api::keeper::temporary(run_dir),
        names::names_socket(run_dir),
        weave_api::updates::addresses_socket(run_dir),
        names::sidecar_socket(run_dir),
        own.with_extension("tmp"),
        own,
    ];
    for file in files.chain(others) {
        failpoint("remove a file of the run directory");
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            other => other?,
        }
    }
    remove_empty(&control)?;
    remove_empty(&names)?;
    remove_empty(run_dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_state_files_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("targets.json", r#"{"kind":"targets","version":1,"content":[]}"#);
        write("targets.json.bad", "{");
        // Damaged, and not set aside: by its name.
        write("network.json", "");
        write("dns.json", r#"{"kind":"dn"#);
        write("host.json", r#"{"name":"somebody's"}"#);
        write(".targets.json.tmp", "");
        write("package.json", r#"{"name":"somebody's"}"#);
        write("notes", "");
        remove_state_files(directory.path()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["host.json", "notes", "package.json"]);
        for name in left {
            fs::remove_file(directory.path().join(name)).unwrap();
        }
        remove_state_files(directory.path()).unwrap();
        assert!(!directory.path().exists());
        remove_state_files(directory.path()).unwrap();
    }
}
