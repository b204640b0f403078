//! Start and end of the router process; wires the parts together.

use crate::config::{Config, Feature, Password, ReadyInfo};
use crate::control::{self, End, Setup, Signal};
use crate::secrets;
use crate::state::{self, Saver, StateError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use weave_crypto::{Identity, LocalPeer, Secrets, StretchError};
use weave_forward::{Features, Group, GroupConfig, ProbeError, StartError, check_port, probe};
use weave_host::{Netlink, bridge, tap};
use weave_wire::Uid;
use weave_wire::link::handshake::Mode;

/// Locked memory asked for, bytes: rings of shards and control core.
const LOCKED_MEMORY: u64 = 64 << 20;
/// Open files asked for: links, clients, handshakes.
const OPEN_FILES: u64 = 8192;
/// How long a port may stay taken by a router that was killed: the kernel takes
/// its rings down, and the sockets in them, after the process has gone.
const PORT_RELEASED: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const PORT_TRIED: Duration = Duration::from_millis(10);
/// Signals that wait for the control core, at most.
const SIGNALS: usize = 4;
/// Shards where no cores are named, at most.
const DEFAULT_SHARDS: usize = 4;

/// Why a router did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel.
    #[error("cannot start: {0}")]
    Kernel(#[from] ProbeError),
    /// The state.
    #[error("cannot start: {0}")]
    State(#[from] StateError),
    /// Bridge or tap.
    #[error("cannot start: {0}")]
    Host(#[from] weave_host::Error),
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

/// Runs a router until it is told to stop. `ready` is called once: when the
/// router forwards, or when it could not start.
///
/// # Errors
/// [`RunError`], after `ready` was told if it was a matter of the start.
pub fn run(
    mut config: Config,
    ready: impl FnOnce(Result<ReadyInfo, String>) + 'static,
) -> Result<(), RunError> {
    log_to_stderr(&config);
    let mut ready: Option<Ready> = Some(Box::new(ready));
    let mut secrets = None;
    let mut signals = None;
    loop {
        let started = match start(&mut config, &mut secrets, &mut signals) {
            Ok(started) => started,
            Err(error) => {
                if let Some(ready) = ready.take() {
                    ready(Err(error.to_string()));
                }
                return Err(error);
            }
        };
        match started.serve(ready.take())? {
            End::Stopped => return Ok(()),
            End::Renamed(known) => {
                let name = state::rename(&config.state_dir)?;
                tracing::warn!(%name, "this host goes on under a new name and key");
                secrets = Some(known);
                // Those given were written down, with those that came and went since.
                config.targets.clear();
            }
        }
    }
}

/// Told once when the router forwards, or why it does not.
type Ready = Box<dyn FnOnce(Result<ReadyInfo, String>)>;

/// Logs to standard error. A second router in one process (tests) keeps the
/// first one's log.
fn log_to_stderr(config: &Config) {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(config.log_level.as_str()))
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}

struct Started {
    setup: Setup,
    info: ReadyInfo,
    saver_thread: std::thread::JoinHandle<()>,
    /// Removed when it ends.
    unix_sockets: [std::path::PathBuf; 2],
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

/// Starts everything. `known`: the secrets, where they were stretched before;
/// `signals`: caught since then.
fn start(
    config: &mut Config,
    known: &mut Option<Secrets>,
    signals: &mut Option<Signals>,
) -> Result<Started, RunError> {
    let passwords = std::mem::take(&mut config.passwords);
    let config = config.clone();
    let encrypted = known.as_ref().map_or(!passwords.is_empty(), |known| known.mode() == Mode::Encrypted);
    state::check_network(&config.state_dir, encrypted, config.clear)?;
    keep_memory_private();
    raise_limit(Resource::RLIMIT_MEMLOCK, LOCKED_MEMORY);
    raise_limit(Resource::RLIMIT_NOFILE, OPEN_FILES);
    let absent: Vec<&str> =
        Feature::ALL.iter().filter(|(_, f)| config.test.absent.contains(f)).map(|(name, _)| *name).collect();
    let features = probe(&absent)?;
    let listener = listen(&config)?;
    check_port(config.host, config.port).map_err(StartError::from)?;
    let secrets = match known.take() {
        Some(secrets) => secrets,
        None => stretch(passwords)?,
    };
    let state = state::open(&config.state_dir, config.name, &config.targets)?;
    let mut degraded = Vec::new();
    let mut taps = open_tap(&config, &mut degraded)?;
    let features = reduce(features, &config, &mut degraded);
    let offloads = taps.features;
    let group_config = GroupConfig {
        own_name: state.name,
        mtu: config.mtu.into(),
        host: config.host,
        port: config.port,
        taps: std::mem::take(&mut taps.fds),
        features,
        join_tcp: offloads.tso,
        join_udp: offloads.uso,
        clear: !encrypted,
        cores: config.cores.as_ref().map(|cores| cores.as_slice().to_vec()).unwrap_or_default(),
        completions: None,
    };
    let (group, sockets) = Group::start(group_config)?;
    if !group.large_buffers() {
        let reason = "the kernel gives smaller socket buffers than asked for: raise sysctl net.core.rmem_max and wmem_max";
        degraded.push(("small_buffers", reason.into()));
    }
    let process = |step| move |cause| RunError::Process { step, cause };
    let caught = match signals {
        Some(caught) => caught,
        None => signals.insert(Signals::catch().map_err(process("catching signals"))?),
    };
    let (saver, saver_thread) =
        Saver::start(&config.state_dir).map_err(process("starting the thread for the state"))?;
    state.commit(encrypted)?;
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
        features: 0,
    });
    let mut warnings = state.warnings;
    warnings.extend(degraded.iter().map(|(name, reason)| format!("{name}: {reason}")));
    let info = ReadyInfo { name: state.name, nickname: config.nickname.clone(), warnings };
    let control_socket = weave_api::socket::path(&config.run_dir);
    let names_socket = weave_api::names::names_socket(&config.run_dir);
    weave_api::names::prepare(&config.run_dir)
        .map_err(process("making the directory of the names' socket"))?;
    let unix_sockets = [control_socket.clone(), names_socket.clone()];
    let config = Arc::new(config);
    let setup = Setup {
        local,
        nickname: config.nickname.clone(),
        run: state.run,
        config,
        targets: state.targets,
        recent: state.recent,
        group,
        sockets,
        listener,
        control_socket,
        names_socket,
        saver,
        degraded,
        signals: caught.receive(),
    };
    Ok(Started { setup, info, saver_thread, unix_sockets })
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

/// Binds the TCP port; with it the port is ours.
fn listen(config: &Config) -> Result<TcpListener, RunError> {
    let bind = |ip: IpAddr| TcpListener::bind(SocketAddr::new(ip, config.port));
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let deadline = Instant::now() + PORT_RELEASED;
    loop {
        let result = match config.host {
            Some(ip) => bind(ip),
            // On a host without IPv6 the family is missing; any other error is the
            // same for both.
            None => match bind(Ipv6Addr::UNSPECIFIED.into()) {
                Err(error) if !in_use(&error) => bind(Ipv4Addr::UNSPECIFIED.into()),
                other => other,
            },
        };
        match result {
            Err(error) if in_use(&error) && Instant::now() < deadline => std::thread::sleep(PORT_TRIED),
            result => return result.map_err(|cause| RunError::Listen { port: config.port, cause }),
        }
    }
}

/// Stretches the passwords on a thread of their own, whose memory goes with it.
fn stretch(passwords: Vec<Password>) -> Result<Secrets, RunError> {
    let stretched = std::thread::spawn(move || secrets::stretch(&passwords));
    Ok(stretched.join().map_err(|_| RunError::Ended("stretching the password failed".into()))??)
}

fn open_tap(config: &Config, degraded: &mut Vec<(&'static str, String)>) -> Result<tap::TapQueues, RunError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shards = match (&config.cores, config.shards) {
        (Some(cores), _) => cores.as_slice().len(),
        (None, Some(shards)) => shards,
        (None, None) => cores.min(DEFAULT_SHARDS),
    };
    let absent = |feature| config.test.absent.contains(&feature);
    let wanted = tap::Offloads {
        tso: config.offload.tso && !absent(Feature::Tso),
        uso: config.offload.uso && !absent(Feature::Uso),
    };
    let mut netlink = Netlink::open()?;
    let mtu = u32::from(config.mtu);
    bridge::ensure(&mut netlink, mtu)?;
    let queues = tap::open_queues(&mut netlink, tap::TAP, shards, mtu, wanted)?;
    let mut missing = |name, has: bool, by_hand: bool, reason: &str| {
        if !has {
            let cause = if by_hand { "switched off by --offload" } else { reason };
            degraded.push((name, cause.to_owned()));
        }
    };
    missing(
        "no_tso",
        queues.features.tso,
        !config.offload.tso,
        "this kernel gives no TCP super-frames over a tap",
    );
    missing("no_uso", queues.features.uso, !config.offload.uso, "UDP super-frames over a tap need Linux 6.2");
    Ok(queues)
}

/// Takes away what was switched off, and names what is missing.
fn reduce(mut features: Features, config: &Config, degraded: &mut Vec<(&'static str, String)>) -> Features {
    let mut check = |name, has: bool, wanted: bool, reason: &str| {
        if !(has && wanted) {
            degraded
                .push((name, if wanted { reason.to_owned() } else { "switched off by --offload".into() }));
        }
        has && wanted
    };
    features.segmentation = check(
        "no_gso",
        features.segmentation,
        config.offload.gso,
        "this kernel sends no segmented datagrams",
    );
    features.merging =
        check("no_gro", features.merging, config.offload.gro, "this kernel receives no merged datagrams");
    features.read_multishot =
        check("plain_reads", features.read_multishot, true, "reading many frames at once needs Linux 6.7");
    features
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
