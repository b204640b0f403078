//! A host of its own for each test: a network namespace, a run and a state directory.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use weave_host::{Namespace, Netlink};

/// User without any rights.
const NOBODY: u32 = 65534;

/// A simulated host.
pub struct World {
    pub directory: tempfile::TempDir,
    pub namespace: Namespace,
}

/// What a command line came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The unprivileged user of a test must reach its files.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_weave"), directory.path().join("weave")).unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        std::fs::write(directory.path().join("state/kept"), "as it was").unwrap();
        Self { directory, namespace: Namespace::create("a host of a test").unwrap() }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// `weave` with `arguments`, of this world.
    pub fn weave<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(self.directory.path().join("weave"));
        command.args(arguments).env_clear();
        command.env("WEAVE_RUN_DIR", self.run_dir()).env("WEAVE_STATE_DIR", self.path("state"));
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command.current_dir(self.directory.path());
        command
    }

    /// Runs `command` on this host, killing it when it hangs.
    pub fn run(&self, command: &mut Command) -> Ran {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.namespace.run(|| output_within(command, Duration::from_secs(60))).unwrap();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// All that a command could change: interfaces, addresses, files.
    pub fn observed(&self) -> Vec<String> {
        let mut netlink = Netlink::in_namespace(&self.namespace).unwrap();
        let mut seen: Vec<String> = netlink.links().unwrap().iter().map(|link| format!("{link:?}")).collect();
        seen.extend(netlink.addresses().unwrap().iter().map(|address| format!("{address:?}")));
        let mut files = BTreeMap::new();
        collect(&self.directory.path().join("state"), &mut files);
        collect(&self.run_dir(), &mut files);
        seen.extend(files.into_iter().map(|(path, content)| format!("{path}: {content:?}")));
        seen
    }
}

/// Makes `command` run without any rights.
pub fn unprivileged(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

fn output_within(command: &mut Command, limit: Duration) -> Output {
    let child = command.spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    watchdog.join().unwrap();
    output
}

fn collect(path: &Path, files: &mut BTreeMap<String, String>) {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return };
    let mut text = format!("{:o} {}", metadata.mode(), metadata.uid());
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
    } else if metadata.is_file() {
        text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
    }
    files.insert(path.display().to_string(), text);
}
