//! Whether a daemon runs here: its pid file and the lock on it.
//!
//! A daemon holds an exclusive lock on its pid file for as long as it lives,
//! so that the kernel itself answers the question, also after a SIGKILL. The
//! number in the file is believed only when that process has the file open.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::failure::{Failure, Result};

/// A process that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// The router.
    Router,
    /// The keeper.
    Keeper,
    /// The DNS sidecar.
    Dns,
}

impl Daemon {
    /// Name of its pid file in the run directory.
    const fn pid_file(self) -> &'static str {
        match self {
            Self::Router => "router.pid",
            Self::Keeper => weave_api::keeper::PID_FILE,
            Self::Dns => "dns.pid",
        }
    }
}

/// Name of the log of a launched router in the run directory.
pub const LOG: &str = "router.log";
/// Name of the log of a keeper in the run directory.
pub const KEEPER_LOG: &str = "keeper.log";
/// Name of the log of a sidecar in the run directory.
pub const DNS_LOG: &str = "dns.log";
/// All logs, each before the one put aside.
pub const LOGS: [&str; 6] = [LOG, "router.log.1", KEEPER_LOG, "keeper.log.1", DNS_LOG, "dns.log.1"];
/// Size at which a log is put aside, bytes: at a start, and by the keeper meanwhile.
const LOG_MAX: u64 = 4 * 1024 * 1024;
/// Name of the lock of whoever starts or ends it.
pub const DNS_LOCK: &str = "dns.lock";
/// Name of the lock of whoever writes this host's names for it.
pub const NAMES_LOCK: &str = "names.lock";
/// All files of daemons in the run directory, but [`LOGS`], sockets and the sidecar's names.
pub const FILES: [&str; 5] =
    [Daemon::Router.pid_file(), Daemon::Keeper.pid_file(), Daemon::Dns.pid_file(), DNS_LOCK, NAMES_LOCK];
/// Longest content of a pid file that is read, bytes.
const PID_FILE_MAX: u64 = 32;
/// How long a lock without a process to be seen is waited for.
const CLAIM_LIMIT: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const CLAIM_RETRY: Duration = Duration::from_millis(10);

/// How another daemon of this program is started: `role` is its command, `log` one of [`LOGS`]. It
/// leaves the directory of its parent, so it gets every path in full; it never gets a password.
///
/// # Errors
/// When the log or the executable cannot be opened.
pub fn daemon(role: &str, log: &str, run_dir: &Path, state_dir: &Path) -> std::io::Result<Command> {
    let log = open_log(run_dir, log)?;
    weave_host::keep_descriptors()?;
    let mut command = Command::new(in_place(std::env::current_exe()?));
    command
        .arg(role)
        .env_remove("WEAVE_PASSWORD")
        .env("WEAVE_RUN_DIR", run_dir)
        .env("WEAVE_STATE_DIR", state_dir)
        .stdin(Stdio::null())
        .stderr(log);
    Ok(command)
}

/// Opens the log `name` of `run_dir` for a daemon to go on with; a long one is put aside first.
///
/// # Errors
/// When it cannot be opened.
pub fn open_log(run_dir: &Path, name: &str) -> std::io::Result<File> {
    let path = run_dir.join(name);
    if std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_MAX) {
        let _ = std::fs::rename(&path, run_dir.join(format!("{name}.1")));
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Puts aside what daemons that run have logged, where it is long, for they go on for months: they hold
/// their log open, the DNS as somebody who may make no file beside it. So the log is copied and emptied, and
/// they append to it as before; a line that comes between the two is lost. What cannot be kept is dropped: the
/// run directory lies in memory.
pub fn put_long_logs_aside(run_dir: &Path) {
    for name in [LOG, KEEPER_LOG, DNS_LOG] {
        let path = run_dir.join(name);
        if !std::fs::symlink_metadata(&path).is_ok_and(|log| log.is_file() && log.len() > LOG_MAX) {
            continue;
        }
        let aside = run_dir.join(format!("{name}.1"));
        let _ = std::fs::remove_file(&aside);
        let kept = copy_log(&path, &aside);
        if kept.is_err() {
            let _ = std::fs::remove_file(&aside);
        }
        let emptied = OpenOptions::new().write(true).custom_flags(no_follow()).open(&path);
        let emptied = emptied.and_then(|log| log.set_len(0));
        if let Err(error) = kept.and(emptied) {
            tracing::warn!("putting {} aside, which is long: {error}", path.display());
        }
    }
}

fn copy_log(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut from = OpenOptions::new().read(true).custom_flags(no_follow()).open(from)?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    std::io::copy(&mut from, &mut to).map(drop)
}

/// The executable at `path` as the kernel tells it. Of a file that was replaced, as by an upgrade,
/// the kernel says that it is deleted: what stands in its place now is meant.
fn in_place(path: PathBuf) -> PathBuf {
    let place = path.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    let place = place.map(|place| PathBuf::from(OsStr::from_bytes(place)));
    place.filter(|place| place.exists() && !path.exists()).unwrap_or(path)
}

/// This process is a daemon of a run directory, until this is dropped.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
}

impl Claim {
    /// Makes this process that daemon of `run_dir`, which must exist.
    pub fn take(run_dir: &Path, daemon: Daemon) -> Result<Self> {
        let path = run_dir.join(daemon.pid_file());
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format_args!("cannot claim {}", path.display()), error, "check WEAVE_RUN_DIR")
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(|error| failed(&error))?;
        // Whoever can open a file can lock it, and keep us out.
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| failed(&error))?;
        let deadline = Instant::now() + CLAIM_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(&error)),
                Err(TryLockError::WouldBlock) => {}
            }
            // Held without a process to be seen: by a command that is just
            // looking, by a router that is on its way out, or by one that has yet
            // to write its number. Each is over soon.
            let pid = pid_in(&mut file).filter(|pid| has_open(*pid, &file));
            if pid.is_some() || Instant::now() >= deadline {
                return Err(already(pid));
            }
            std::thread::sleep(CLAIM_RETRY);
        }
        if !is_at(&file, &path) {
            // A reset removed it while it was opened.
            return Err(failed(&"it was removed meanwhile"));
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(|error| failed(&error))?;
        Ok(Self { file, path })
    }

    /// False once somebody removed the file, as a reset does: nobody finds this daemon any more.
    pub fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let number = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let now = std::fs::symlink_metadata(path).map(number).ok();
    now.is_some() && now == file.metadata().map(number).ok()
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Emptied, not removed: another router may be waiting on this very file.
        let _ = self.file.set_len(0);
    }
}

/// The failure of a second `launch`.
pub fn already(pid: Option<Pid>) -> Failure {
    let process = pid.map_or_else(String::new, |pid| format!(" (process {})", pid.as_raw_nonzero()));
    Failure::new(
        "cannot launch",
        format_args!("weave is already launched{process}"),
        "`weave connect` adds peers; `weave stop` ends it",
    )
}

/// A daemon that runs.
#[derive(Debug)]
pub struct Running {
    path: PathBuf,
    process: Option<(Pid, OwnedFd)>,
}

impl Running {
    /// That daemon of `run_dir`; `None` when none runs.
    pub fn find(run_dir: &Path, daemon: Daemon) -> Result<Option<Self>> {
        let path = run_dir.join(daemon.pid_file());
        let Some(mut file) = held(&path)? else {
            return Ok(None);
        };
        let process = pid_in(&mut file).and_then(|pid| {
            let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // Looked at after the process was pinned: so this is the process.
            has_open(pid, &file).then_some((pid, descriptor))
        });
        Ok(Some(Self { path, process }))
    }

    /// Its process id, when it is one of this pid namespace.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|(pid, _)| *pid)
    }

    /// How long to wait before a router counts as alive: longer if its lock is
    /// held by no process to be seen, as by one that is on its way out.
    pub const fn dying_limit(&self) -> Duration {
        if self.process.is_some() { Duration::from_millis(200) } else { CLAIM_LIMIT }
    }

    /// Asks the process to end, by signal. False when it is not to be reached.
    pub fn terminate(&self) -> bool {
        self.send(Signal::TERM)
    }

    /// Ends the process, whatever it does. False when it is not to be reached.
    pub fn kill(&self) -> bool {
        self.send(Signal::KILL)
    }

    fn send(&self, signal: Signal) -> bool {
        self.process.as_ref().is_some_and(|(_, descriptor)| pidfd_send_signal(descriptor, signal).is_ok())
    }

    /// Waits until the router is gone; false when it is still there after `limit`.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        if let Some((_, descriptor)) = &self.process {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = left.try_into().unwrap_or_default();
                match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&timeout)) {
                    Err(rustix::io::Errno::INTR) => {}
                    Ok(0) => return Ok(false),
                    Ok(_) => return Ok(true),
                    Err(error) => return Err(Failure::new("cannot wait for the router", error, "")),
                }
            }
        }
        // In another pid namespace: its lock goes when it goes.
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let path = self.path.clone();
        std::thread::spawn(move || {
            let _ = sender.send(File::open(path).and_then(|file| file.lock_shared()));
        });
        Ok(receiver.recv_timeout(limit).is_ok())
    }
}

/// The pid file, if a router holds it.
fn held(path: &Path) -> Result<Option<File>> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format_args!("cannot look at {}", path.display()), error, "check WEAVE_RUN_DIR")
    };
    let file = match OpenOptions::new().read(true).custom_flags(no_follow()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(file)),
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

fn pid_in(file: &mut File) -> Option<Pid> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(PID_FILE_MAX).read_to_string(&mut text).ok()?;
    Pid::from_raw(text.trim_end().parse().ok()?)
}

/// True when process `pid` has `file` open: a number alone may belong to
/// another process by now, or to another pid namespace.
fn has_open(pid: Pid, file: &File) -> bool {
    let Ok(wanted) = file.metadata() else { return false };
    let Ok(entries) = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) else {
        return false;
    };
    entries.flatten().any(|entry| {
        std::fs::metadata(entry.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
    })
}

/// Locks the file at `path`, made if need be, against others who do; waits `within` for one that has it.
///
/// # Errors
/// [`ErrorKind::TimedOut`] when another one holds it for longer; otherwise the kernel's.
pub fn lock(path: &Path, within: Duration) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow());
    let file = options.open(path)?;
    let deadline = Instant::now() + within;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(std::io::Error::new(ErrorKind::TimedOut, "another command holds the lock"));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(CLAIM_RETRY),
        }
    }
}

fn no_follow() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_locks_waits_for_another_as_long_as_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock(&path, Duration::ZERO).unwrap();
        let begin = Instant::now();
        let waited = Duration::from_millis(50);
        assert_eq!(lock(&path, waited).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= waited);
        drop(held);
        lock(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_log_goes_on_and_a_long_one_is_put_aside() {
        let run = tempfile::tempdir().unwrap();
        for name in [LOG, KEEPER_LOG, DNS_LOG] {
            let read = |name: &str| std::fs::read_to_string(run.path().join(name)).unwrap();
            let old = format!("{name}.1");
            assert!(LOGS.contains(&name) && LOGS.contains(&old.as_str()), "{name}");
            writeln!(open_log(run.path(), name).unwrap(), "first").unwrap();
            writeln!(open_log(run.path(), name).unwrap(), "second").unwrap();
            assert_eq!(read(name), "first\nsecond\n");
            open_log(run.path(), name).unwrap().set_len(LOG_MAX + 1).unwrap();
            writeln!(open_log(run.path(), name).unwrap(), "third").unwrap();
            assert_eq!(read(name), "third\n");
            assert!(read(&old).starts_with("first\nsecond\n"));
        }
    }

    #[test]
    fn the_long_log_of_a_daemon_that_runs_is_put_aside_and_goes_on_from_its_beginning() {
        let run = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(run.path().join(name)).unwrap();
        let line = "a line of some length, as they are\n";
        let long = line.repeat(usize::try_from(LOG_MAX).unwrap() / line.len() + 1);
        for name in [LOG, KEEPER_LOG, DNS_LOG] {
            let mut held = open_log(run.path(), name).unwrap();
            writeln!(held, "first").unwrap();
            put_long_logs_aside(run.path());
            assert_eq!(read(name), "first\n", "short ones stay");
            // More than once.
            for _ in 0..2 {
                held.write_all(long.as_bytes()).unwrap();
                put_long_logs_aside(run.path());
                writeln!(held, "after").unwrap();
                assert_eq!(read(name), "after\n");
                assert!(read(&format!("{name}.1")).ends_with(&long));
                held.set_len(0).unwrap();
            }
        }
        // Nothing is written through a link of somebody.
        let target = run.path().join("target");
        std::fs::write(&target, &long).unwrap();
        std::fs::remove_file(run.path().join(LOG)).unwrap();
        std::os::unix::fs::symlink(&target, run.path().join(LOG)).unwrap();
        put_long_logs_aside(run.path());
        assert_eq!(std::fs::metadata(&target).unwrap().len(), long.len() as u64);
    }

    #[test]
    fn an_executable_that_was_replaced_is_found_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let (path, new) = (directory.path().join("program"), directory.path().join("program.new"));
        for copy in [&path, &new] {
            std::fs::copy("/bin/sleep", copy).unwrap();
        }
        let mut child = Command::new(&path).arg("60").spawn().unwrap();
        let told = || std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        let before = in_place(told());
        std::fs::rename(&new, &path).unwrap();
        let replaced = in_place(told());
        std::fs::remove_file(&path).unwrap();
        let gone = in_place(told());
        child.kill().and_then(|()| child.wait()).unwrap();
        assert_eq!((&before, &replaced), (&path, &path));
        assert!(gone.to_string_lossy().ends_with(" (deleted)"), "{}", gone.display());
    }

    #[test]
    fn a_claim_is_seen_and_gone_with_its_holder() {
        let run = tempfile::tempdir().unwrap();
        assert!(Running::find(run.path(), Daemon::Router).unwrap().is_none());
        let claim = Claim::take(run.path(), Daemon::Router).unwrap();
        let running = Running::find(run.path(), Daemon::Router).unwrap().unwrap();
        assert_eq!(running.pid().unwrap().as_raw_nonzero().get().cast_unsigned(), std::process::id());
        assert!(
            Claim::take(run.path(), Daemon::Router).unwrap_err().to_string().contains("already launched")
        );
        drop(claim);
        assert!(Running::find(run.path(), Daemon::Router).unwrap().is_none());
        Claim::take(run.path(), Daemon::Router).unwrap();
    }

    #[test]
    fn nobody_else_can_open_the_file_of_a_claim_and_lock_it() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join(Daemon::Router.pid_file());
        // As earlier versions left it.
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let claim = Claim::take(run.path(), Daemon::Router).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(claim);
    }

    #[test]
    fn a_number_of_another_process_is_not_believed() {
        let run = tempfile::tempdir().unwrap();
        let claim = Claim::take(run.path(), Daemon::Router).unwrap();
        std::fs::write(run.path().join(Daemon::Router.pid_file()), "1\n").unwrap();
        let running = Running::find(run.path(), Daemon::Router).unwrap().unwrap();
        assert_eq!(running.pid(), None);
        assert!(!running.terminate());
        assert!(!running.wait(Duration::from_millis(10)).unwrap());
        drop(claim);
        assert!(running.wait(Duration::from_secs(10)).unwrap());
    }

    #[test]
    fn a_stale_file_is_no_router() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join(Daemon::Router.pid_file()), "1\n").unwrap();
        assert!(Running::find(run.path(), Daemon::Router).unwrap().is_none());
        Claim::take(run.path(), Daemon::Router).unwrap();
    }
}
