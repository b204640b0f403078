//! What a router opens while it has the privileges, and keeps for its whole life, whatever
//! name it goes by: ports below 1024, large buffers and the tap are not given to it later.

use crate::config::{Config, Feature};
use crate::daemon::RunError;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use weave_forward::{Features, Group, GroupConfig, Prepared, SocketSet, open_sockets, probe};
use weave_host::keeper_socket::{Queues, Wanted};
use weave_host::tap;
use weave_wire::PeerName;

/// How long a port may stay taken by a router that was killed: the kernel takes
/// its rings down, and the sockets in them, after the process has gone.
const PORT_RELEASED: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const PORT_TRIED: Duration = Duration::from_millis(10);
/// Shards where no cores are named, at most.
const DEFAULT_SHARDS: usize = 4;

/// Sockets and tap queues of a router.
pub(crate) struct Ground {
    features: Features,
    pub(crate) listener: TcpListener,
    sockets: SocketSet,
    queues: Queues,
    pub(crate) degraded: Vec<(&'static str, String)>,
}

impl Ground {
    /// The queues are asked for last: before them nothing has changed.
    pub(crate) fn open(
        config: &Config,
        queues: impl FnOnce(Wanted) -> Result<Queues, String>,
    ) -> Result<Self, RunError> {
        let is_absent = |feature| config.test.absent.contains(&feature);
        let absent: Vec<&str> =
            Feature::ALL.iter().filter(|(_, feature)| is_absent(*feature)).map(|(name, _)| *name).collect();
        let mut degraded = Vec::new();
        let features = reduce(probe(&absent)?, config, &mut degraded);
        let shards = shards(config);
        let listener = listen(config)?;
        let sockets = open_sockets(config.host, config.port, shards, features.merging)?;
        if !sockets.large_buffers {
            let reason = "the kernel gives smaller socket buffers than asked for: raise sysctl net.core.rmem_max and wmem_max";
            degraded.push(("small_buffers", reason.into()));
        }
        let offloads = tap::Offloads {
            tso: config.offload.tso && !is_absent(Feature::Tso),
            uso: config.offload.uso && !is_absent(Feature::Uso),
        };
        let wanted = Wanted { queues: shards, mtu: config.mtu.into(), offloads };
        let queues = queues(wanted).map_err(RunError::Queues)?;
        let mut missing = |name, has: bool, by_hand: bool, reason: &str| {
            if !has {
                let cause = if by_hand { "switched off by --offload" } else { reason };
                degraded.push((name, cause.to_owned()));
            }
        };
        let given = queues.features;
        let no_tso = "this kernel gives no TCP super-frames over a tap";
        missing("no_tso", given.tso, !config.offload.tso, no_tso);
        missing("no_uso", given.uso, !config.offload.uso, "UDP super-frames over a tap need Linux 6.2");
        Ok(Self { features, listener, sockets, queues, degraded })
    }

    /// The rings and buffers of shards that go by `name`.
    pub(crate) fn prepare(
        &self,
        config: &Config,
        name: PeerName,
        encrypted: bool,
    ) -> Result<Prepared, RunError> {
        let again = |cause| RunError::Process { step: "sharing the sockets with the shards", cause };
        let taps = self.queues.fds.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>();
        Ok(Group::prepare(GroupConfig {
            own_name: name,
            mtu: config.mtu.into(),
            sockets: self.sockets.try_clone().map_err(again)?,
            taps: taps.map_err(again)?,
            features: self.features,
            join_tcp: self.queues.features.tso,
            join_udp: self.queues.features.uso,
            clear: !encrypted,
            cores: config.cores.as_ref().map(|cores| cores.as_slice().to_vec()).unwrap_or_default(),
            completions: None,
        })?)
    }
}

/// Number of shards.
fn shards(config: &Config) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match (&config.cores, config.shards) {
        (Some(cores), _) => cores.as_slice().len(),
        (None, Some(shards)) => shards,
        (None, None) => cores.min(DEFAULT_SHARDS),
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
