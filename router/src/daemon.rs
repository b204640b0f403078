//! Start and end of the router process; wires the parts together.

use crate::config::{Config, Password, PasswordFile, ReadyInfo};
use crate::control::{self, End, Setup, Signal};
use crate::ground::Ground;
use crate::state::{self, Saver, State, StateError};
use crate::{logging, privileges, secrets};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use weave_crypto::{Effort, Identity, LocalPeer, Secrets, StretchError};
use weave_forward::{Prepared, ProbeError, SocketError, StartError};
use weave_host::keeper_socket::{Queues, Wanted};
use weave_wire::Uid;
use weave_wire::link::handshake::{Mode, Versions, features};

/// Locked memory asked for, bytes: rings of shards and control core.
const LOCKED_MEMORY: u64 = 64 << 20;
/// Less is too little for the control core (`Reactor::new` of glommio), bytes.
pub const LOCKED_MEMORY_MIN: u64 = 512 << 10;
/// Open files asked for: links, clients, handshakes.
const OPEN_FILES: u64 = 8192;
/// Signals that wait for the control core, at most.
const SIGNALS: usize = 4;
/// Why a router did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel.
    #[error("cannot start: {0}")]
    Kernel(#[from] ProbeError),
    /// The limit of locked memory.
    #[error(
        "cannot start: at most {} KiB may be locked, the rings of io_uring need {} KiB: raise the limit of locked \
         memory (`ulimit -l unlimited`; systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1)",
        most >> 10,
        LOCKED_MEMORY_MIN >> 10
    )]
    LockedMemory {
        /// The limit, bytes.
        most: u64,
    },
    /// The state.
    #[error("cannot start: {0}")]
    State(#[from] StateError),
    /// The queues of the tap.
    #[error("{0}")]
    Queues(String),
    /// The UDP sockets.
    #[error("cannot start: {0}")]
    Socket(#[from] SocketError),
    /// The shards.
    #[error("cannot start: {0}")]
    Forward(#[from] StartError),
    /// The password.
    #[error("cannot start: {0}")]
    Password(#[from] StretchError),
    /// The TCP port.
    #[error(
        "cannot start: TCP port {port}: {cause}: choose another with --port, or stop the program that has it"
    )]
    Listen {
        /// The port.
        port: u16,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A thread or signal handler.
    #[error("cannot start: {step}: {cause}")]
    Process {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// It ran, and had to end.
    #[error("the router ended: {0}")]
    Ended(String),
}

/// Runs a router until it is told to stop. `queues` is called once, when the ports are
/// there: it gives the queues of the tap, or says why not. `ready` is called once:
/// when the router forwards, or when it could not start.
///
/// # Errors
/// [`RunError`], after `ready` was told if it was a matter of the start.
pub fn run(
    config: Config,
    queues: impl FnOnce(Wanted) -> Result<Queues, String>,
    ready: impl FnOnce(Result<ReadyInfo, String>) + 'static,
) -> Result<(), RunError> {
    logging::start(config.log_level, "");
    let mut ready: Option<Ready> = Some(Box::new(ready));
    let result = run_until_stopped(config, queues, &mut ready);
    if let (Some(ready), Err(error)) = (ready, &result) {
        ready(Err(error.to_string()));
    }
    result
}

fn run_until_stopped(
    mut config: Config,
    queues: impl FnOnce(Wanted) -> Result<Queues, String>,
    ready: &mut Option<Ready>,
) -> Result<(), RunError> {
    let passwords = std::mem::take(&mut config.passwords);
    let encrypted = !passwords.is_empty();
    state::check_network(&config.state_dir, encrypted, config.clear)?;
    keep_memory_private();
    raise_limit(Resource::RLIMIT_MEMLOCK, LOCKED_MEMORY);
    check_locked_memory()?;
    raise_limit(Resource::RLIMIT_NOFILE, OPEN_FILES);
    let mut ground = Ground::open(&config, queues)?;
    let mut secrets = stretch(passwords, config.test.effort())?;
    let mut state = state::open(&config.state_dir, config.name, &config.targets)?;
    let mut group = ground.prepare(&config, state.name, encrypted)?;
    // Before the first thread that stays: privileges are a matter of each.
    ground
        .degraded
        .extend(privileges::drop_all().map_err(|(step, cause)| RunError::Process { step, cause })?);
    let signals = Signals::catch().map_err(|cause| RunError::Process { step: "catching signals", cause })?;
    loop {
        let started = start(&config, &ground, group, state, secrets, &signals)?;
        match started.serve(ready.take())? {
            End::Stopped => return Ok(()),
            End::Renamed(renamed) => {
                let name = state::rename(&config.state_dir)?;
                tracing::warn!(%name, "this host goes on under a new name and key");
                secrets = renamed;
                // Those given were written down, with those that came and went since.
                config.targets.clear();
                state = state::open(&config.state_dir, config.name, &config.targets)?;
                group = ground.prepare(&config, state.name, encrypted)?;
            }
        }
    }
}

/// Told once when the router forwards, or why it does not.
type Ready = Box<dyn FnOnce(Result<ReadyInfo, String>)>;

struct Started {
    setup: Setup,
    info: ReadyInfo,
    saver_thread: std::thread::JoinHandle<()>,
    /// Removed when it ends.
    unix_sockets: [std::path::PathBuf; 3],
}

impl Started {
    fn serve(self, ready: Option<Ready>) -> Result<End, RunError> {
        let info = self.info;
        let ready = Rc::new(Cell::new(ready));
        let told = Rc::clone(&ready);
        let tell = move || {
            if let Some(ready) = told.take() {
                ready(Ok(info));
            }
        };
        let result = control::run(self.setup, tell).map_err(RunError::Ended);
        if let (Some(ready), Err(error)) = (ready.take(), &result) {
            ready(Err(error.to_string()));
        }
        if self.saver_thread.join().is_err() {
            tracing::error!("the thread that writes the state panicked");
        }
        for socket in self.unix_sockets {
            if let Err(error) = std::fs::remove_file(&socket)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("removing {}: {error}", socket.display());
            }
        }
        result
    }
}

/// Starts the threads, with what is there.
fn start(
    config: &Config,
    ground: &Ground,
    group: Prepared,
    state: State,
    secrets: Secrets,
    signals: &Signals,
) -> Result<Started, RunError> {
    let process = |step| move |cause| RunError::Process { step, cause };
    let listener = ground.listener.try_clone().map_err(process("sharing the listening socket"))?;
    let http = ground.http.as_ref().map(std::net::TcpListener::try_clone).transpose();
    let http = http.map_err(process("sharing the listening socket"))?;
    let tap = ground.tap(config).map_err(process("sharing the queues of the tap"))?;
    let (group, sockets) = group.start()?;
    let (saver, saver_thread) =
        Saver::start(&config.state_dir).map_err(process("starting the thread for the state"))?;
    state.commit(secrets.mode() == Mode::Encrypted)?;
    #[expect(clippy::cast_possible_truncation, reason = "at most 64 shards")]
    let shards = group.shards() as u8;
    let local = Arc::new(LocalPeer {
        name: state.name,
        uid: uid(state.run, control::random_u64()),
        identity: Identity::from_seed(&state.seed),
        secrets,
        shards,
        lanes: shards,
        mtu: config.mtu,
        features: config.test.features.unwrap_or(features::OURS),
        versions: config.test.versions.unwrap_or(Versions::OURS),
    });
    let mut warnings = state.warnings;
    warnings.extend(ground.degraded.iter().map(|(name, reason)| format!("{name}: {reason}")));
    warnings.extend(unreadable(config));
    let info = ReadyInfo { name: state.name, nickname: config.nickname.clone(), warnings };
    let control_socket = weave_api::socket::path(&config.run_dir);
    let names_socket = weave_api::names::names_socket(&config.run_dir);
    let addresses_socket = weave_api::updates::addresses_socket(&config.run_dir);
    let unix_sockets = [control_socket.clone(), names_socket.clone(), addresses_socket.clone()];
    let setup = Setup {
        local,
        nickname: config.nickname.clone(),
        run: state.run,
        config: Arc::new(config.clone()),
        targets: state.targets,
        recent: state.recent,
        group,
        tap: Arc::new(tap),
        sockets,
        listener,
        http,
        control_socket,
        names_socket,
        addresses_socket,
        saver,
        degraded: ground.degraded.clone(),
        signals: signals.receive(),
    };
    Ok(Started { setup, info, saver_thread, unix_sockets })
}

/// Says so if the password file can be read with privileges only: `weave reload` has
/// the router read it, which has none any more.
fn unreadable(config: &Config) -> Option<String> {
    let path = config.password_file.as_ref()?;
    let error = PasswordFile::read(path).err()?;
    let path = path.display();
    Some(format!("`weave reload` cannot read {path} again: {error}: give file and directories to root"))
}

/// The UID of run number `run`: unlike that of every other run anywhere, and larger
/// than those of the runs before on this state. Of two hosts on copies of one state
/// the later launched one thus has the larger UID, and takes a new name.
fn uid(run: u32, random: u64) -> Uid {
    let run = u64::from(u16::try_from(run).unwrap_or(u16::MAX));
    Uid((run << 48) | (random >> 16))
}

/// Keys are in this memory: no core dumps, no debuggers of other users.
fn keep_memory_private() {
    let closed = setrlimit(Resource::RLIMIT_CORE, 0, 0).and_then(|()| nix::sys::prctl::set_dumpable(false));
    if let Err(error) = closed {
        tracing::warn!("forbidding core dumps: {error}");
    }
}

/// Raises a soft limit as far as allowed; where that is too little, what needs
/// it says so itself.
fn raise_limit(resource: Resource, wanted: u64) {
    let raised = getrlimit(resource).and_then(|(soft, hard)| {
        if soft >= wanted {
            return Ok(());
        }
        setrlimit(resource, wanted, hard.max(wanted)).or_else(|_| setrlimit(resource, hard, hard))
    });
    if let Err(error) = raised {
        tracing::debug!("raising a resource limit: {error}");
    }
}

/// The rings of the control core need some, whatever is allowed.
fn check_locked_memory() -> Result<(), RunError> {
    let (most, _) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|error| RunError::Process {
        step: "reading the limit of locked memory",
        cause: error.into(),
    })?;
    if most < LOCKED_MEMORY_MIN { Err(RunError::LockedMemory { most }) } else { Ok(()) }
}

/// Stretches the passwords on a thread of their own, whose memory goes with it.
fn stretch(passwords: Vec<Password>, effort: Effort) -> Result<Secrets, RunError> {
    let stretched = std::thread::spawn(move || secrets::stretch(&passwords, effort));
    Ok(stretched.join().map_err(|_| RunError::Ended("stretching the password failed".into()))??)
}

/// The signals of this process, for one control core after the other.
struct Signals(Arc<Mutex<async_channel::Sender<Signal>>>);

impl Signals {
    /// Catches them from now on.
    fn catch() -> io::Result<Self> {
        let sender = Arc::new(Mutex::new(async_channel::bounded(SIGNALS).0));
        let newest = Arc::clone(&sender);
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        std::thread::Builder::new().name("weave-signals".into()).spawn(move || {
            for signal in signals.forever() {
                let signal = if signal == SIGHUP { Signal::Reload } else { Signal::Stop };
                let _ = newest.lock().unwrap_or_else(PoisonError::into_inner).try_send(signal);
            }
        })?;
        Ok(Self(sender))
    }

    /// Where they come from now on.
    fn receive(&self) -> async_channel::Receiver<Signal> {
        let (sender, receiver) = async_channel::bounded(SIGNALS);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sender;
        receiver
    }
}
