//! One host with an engine.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weave_host::{Namespace, NamespaceSpec};
use weave_perf::lab::{Container, Host, Process};

use crate::world::{World, wait_until};

/// What the first process does: prepares the host, then reaps what is orphaned, as init does.
/// Arguments: a directory for what is the host's own in /etc, its name, the engine's. Podman's crun
/// runs nothing where hierarchies of both versions of control groups have controllers.
const INIT: &str = r#"
hostname "$1"
mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/lock
[ ! -d /etc/docker ] || mount --bind "$0" /etc/docker
[ "$2" = docker ] || { mount -t tmpfs tmpfs /dev/shm && mkdir -p /var/lib/cni && mount -t tmpfs tmpfs /var/lib/cni; }
[ "$2" = docker ] || [ ! -d /etc/cni/net.d ] || mount -t tmpfs tmpfs /etc/cni/net.d
[ "$2" = docker ] || ! mountpoint -q /sys/fs/cgroup/unified || umount -l /sys/fs/cgroup/unified
touch /run/ready
while :; do sleep 1000 & wait; done
"#;
/// Time a host has to be prepared.
const PREPARED_WITHIN: Duration = Duration::from_secs(10);
/// Time an engine has for one answer while it starts.
const ENGINE_ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Time an engine has to be gone once it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// How much of the log of an engine is shown, bytes.
const LOG_SHOWN: usize = 4000;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Docker.
    Docker,
    /// Podman, by the socket that speaks as Docker does.
    Podman,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Its socket, below the root of the host.
    const fn socket(self) -> &'static str {
        match self {
            Self::Docker => "run/docker.sock",
            Self::Podman => "run/podman.sock",
        }
    }
}

/// Namespaces beside that of the network, and the engine in them.
#[derive(Debug)]
pub(super) struct EngineHost {
    kind: Kind,
    /// The first process of the host is its child, and dies with it.
    init: Process,
    engine: Process,
    directory: PathBuf,
}

impl EngineHost {
    /// Starts host and engine; what an earlier one left on its disk is found again.
    #[track_caller]
    pub(super) fn start(world: &World, index: usize, kind: Kind) -> Self {
        let host = world.host(index);
        let directory = host.directory().to_owned();
        let configuration = directory.join("etc-docker");
        fs::create_dir_all(&configuration).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["--propagation", "private", "sh", "-ec", INIT]);
        command.arg(configuration).args([format!("host{}", index + 1).as_str(), kind.name()]);
        let init = host.spawn(&mut command).unwrap();
        let ready = root_of(&init).join("run/ready");
        wait_until(PREPARED_WITHIN, || "a host is not prepared".into(), || ready.exists());
        let group = format!("/{}/host{}", world.lab().name(), index + 1);
        fs::write(directory.join("group"), group).unwrap();
        let engine = spawn_engine(host, &init, kind);
        Self { kind, init, engine, directory }
    }

    /// Which engine it has.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Where the engine listens, as `DOCKER_HOST` is written; `None`: where it usually does.
    pub(super) fn engine_host(&self) -> Option<String> {
        (self.kind == Kind::Podman).then(|| format!("unix:///{}", self.kind.socket()))
    }

    /// What `run` needs to be told beside what a user types.
    pub(super) fn run_arguments(&self) -> String {
        match self.kind {
            // Said to the engine itself.
            Kind::Docker => String::new(),
            Kind::Podman => {
                let group = fs::read_to_string(self.directory.join("group")).unwrap();
                // Without the capability its containers cannot ping as busybox does.
                format!("--cgroup-parent {group} --cap-add net_raw")
            }
        }
    }

    /// A program to be run on this host.
    pub(super) fn command(&self, host: &Host, program: &str) -> Command {
        enter(host, &self.init, program)
    }

    /// Waits until the engine answers.
    #[track_caller]
    pub(super) fn await_engine(&mut self, limit: Duration) {
        let socket = root_of(&self.init).join(self.kind.socket());
        wait_until(
            limit,
            || format!("no answer from the engine\n{}", self.log()),
            || answers(&socket).is_ok_and(|answers| answers),
        );
    }

    #[track_caller]
    pub(super) fn end_engine(&mut self, host: &Host, signal: &str) {
        let mut kill = self.command(host, "sh");
        kill.args(["-c", &format!("kill -{signal} $(cat /run/engine.pid)")]);
        assert!(host.output(&mut kill, ENDS_WITHIN).unwrap().status.success());
        // Ends with it.
        self.engine.wait(ENDS_WITHIN).unwrap();
    }

    #[track_caller]
    pub(super) fn start_engine(&mut self, host: &Host) {
        let _ = fs::remove_file(root_of(&self.init).join(self.kind.socket()));
        self.engine = spawn_engine(host, &self.init, self.kind);
    }

    /// Kills all processes of the host at once.
    #[track_caller]
    pub(super) fn lose_power(&mut self) {
        self.init.kill().unwrap();
        self.engine.kill().unwrap();
    }

    /// A namespace by its path on the host, if there is one.
    pub(super) fn namespace(&self, path: &str) -> Option<Container> {
        // What an engine calls /var/run is /run, by a link that is absolute.
        let path = Path::new(path).strip_prefix("/var/run").or(Path::new(path).strip_prefix("/run")).ok()?;
        let path = root_of(&self.init).join("run").join(path);
        let namespace = Namespace::open(&NamespaceSpec::Path(path.clone())).ok()?;
        Some(Container::of(namespace, path.display().to_string()))
    }

    /// The end of the log of the engine.
    pub(super) fn log(&self) -> String {
        let text = fs::read(self.directory.join("engine.log")).unwrap_or_default();
        let start = text.len().saturating_sub(LOG_SHOWN);
        String::from_utf8_lossy(&text[start..]).into_owned()
    }
}

/// Whether an engine answers: its socket is there earlier.
fn answers(socket: &Path) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ENGINE_ANSWERS_WITHIN))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains("200 OK"))
}

/// What the root directory of the host is from here.
fn root_of(init: &Process) -> PathBuf {
    format!("/proc/{}/root", init.pid()).into()
}

fn enter(host: &Host, init: &Process, program: &str) -> Command {
    enter_by(host.command("nsenter"), init, program)
}

/// A program that is no part of the overlay: the memory that it takes is not the overlay's.
fn enter_beside(host: &Host, init: &Process, program: &str) -> Command {
    enter_by(host.unlimited_command("nsenter"), init, program)
}

fn enter_by(mut command: Command, init: &Process, program: &str) -> Command {
    for (kind, file) in [("mount", "mnt"), ("uts", "uts"), ("ipc", "ipc"), ("pid", "pid_for_children")] {
        command.arg(format!("--{kind}=/proc/{}/ns/{file}", init.pid()));
    }
    // Who kills nsenter means the program.
    command.args(["--", "setpriv", "--pdeathsig", "KILL", "--", program]);
    command
}

/// Starts the engine.
#[track_caller]
fn spawn_engine(host: &Host, init: &Process, kind: Kind) -> Process {
    let directory = host.directory();
    let log = File::options().create(true).append(true).open(directory.join("engine.log")).unwrap();
    let mut command = match kind {
        Kind::Docker => dockerd(host, init),
        Kind::Podman => podman(host, init),
    };
    command.stdout(log.try_clone().unwrap()).stderr(log);
    host.spawn(&mut command).unwrap()
}

fn dockerd(host: &Host, init: &Process) -> Command {
    let directory = host.directory();
    let group = fs::read_to_string(directory.join("group")).unwrap();
    let mut command = enter_beside(host, init, "dockerd");
    command.arg("--data-root").arg(directory.join("engine"));
    command.args(["--storage-driver", "vfs", "--exec-root", "/run/docker", "--pidfile", "/run/engine.pid"]);
    command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &group]);
    command.args([
        "-H",
        "unix:///run/docker.sock",
        "-H",
        "tcp://0.0.0.0:2375",
        "--tls=false",
        "--log-level",
        "error",
    ]);
    command
}

fn podman(host: &Host, init: &Process) -> Command {
    let mut command = enter_beside(host, init, "sh");
    command.args(["-c", "echo $$ >/run/engine.pid; exec podman \"$@\"", "sh", "--root"]);
    command.arg(host.directory().join("engine"));
    // What it is killed over while it reads an image stays there.
    command.env("TMPDIR", host.directory());
    command.args(["--runroot", "/run/podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
    command.args(["--events-backend", "file", "--log-level", "error"]);
    command.args(["system", "service", "--time", "0"]);
    command.arg(format!("unix:///{}", Kind::Podman.socket()));
    command
}
