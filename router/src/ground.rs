//! What a router opens while it has the privileges, and keeps for its whole life, whatever
//! name it goes by: ports below 1024, large buffers and the tap are not given to it later.

use crate::config::{Config, Feature};
use crate::control::Tap;
use crate::daemon::RunError;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use weave_forward::{Features, Group, GroupConfig, Prepared, SocketError, SocketSet, open_sockets, probe};
use weave_host::keeper_socket::{Queues, Wanted};
use weave_host::tap;
use weave_wire::PeerName;

/// How long a port may stay taken by a router that was killed: the kernel takes
/// its rings down, and the sockets in them, after the process has gone.
const PORT_RELEASED: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const PORT_TRIED: Duration = Duration::from_millis(10);
/// Buffers of an HTTP connection each way, bytes; the kernel doubles them.
const HTTP_BUFFERS: usize = 64 << 10;
/// Shards where no cores are named, at most.
const DEFAULT_SHARDS: usize = 4;

/// Sockets and tap queues of a router.
pub(crate) struct Ground {
    features: Features,
    pub(crate) listener: TcpListener,
    /// Where HTTP is served, unless it is off or the address was not to be had.
    pub(crate) http: Option<TcpListener>,
    sockets: SocketSet,
    queues: Queues,
    wanted: Wanted,
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
        let http = config.http.as_ref().and_then(|http| match bind_http(http.address) {
            Ok(listener) => Some(listener),
            Err(error) => {
                let address = http.address;
                let reason = format!(
                    "cannot listen on {address}: {error}: no metrics and no status page; set WEAVE_STATUS_ADDR to a \
                     free address of this host and launch again"
                );
                degraded.push(("no_status_page", reason));
                None
            }
        });
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
        Ok(Self { features, listener, http, sockets, queues, wanted, degraded })
    }

    /// The rings and buffers of shards that go by `name`.
    pub(crate) fn prepare(
        &self,
        config: &Config,
        name: PeerName,
        encrypted: bool,
    ) -> Result<Prepared, RunError> {
        let again = |cause| RunError::Process { step: "sharing the sockets with the shards", cause };
        Ok(Group::prepare(GroupConfig {
            own_name: name,
            mtu: config.mtu.into(),
            sockets: self.sockets.try_clone().map_err(again)?,
            taps: self.taps().map_err(again)?,
            features: self.features,
            join_tcp: self.queues.features.tso,
            join_udp: self.queues.features.uso,
            clear: !encrypted,
            cores: config.cores.as_ref().map(|cores| cores.as_slice().to_vec()).unwrap_or_default(),
            completions: None,
        })?)
    }

    fn taps(&self) -> io::Result<Vec<OwnedFd>> {
        self.queues.fds.iter().map(OwnedFd::try_clone).collect()
    }

    /// The queues for the control core, to have the tap made again.
    pub(crate) fn tap(&self, config: &Config) -> io::Result<Tap> {
        let directory = weave_api::socket::directory(&config.run_dir);
        Ok(Tap { queues: self.taps()?, wanted: self.wanted, directory })
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
    let result = until_released(|| match config.host {
        Some(ip) => bind(ip),
        None => everywhere(bind),
    });
    result.map_err(|cause| match config.host {
        Some(ip) if cause.kind() == io::ErrorKind::AddrNotAvailable => SocketError::NotOurs(ip).into(),
        _ => RunError::Listen { port: config.port, cause },
    })
}

/// Binds to every address of both families; on a host without IPv6 to those of IPv4. There the family
/// is missing; any other error is the same for both.
fn everywhere<T>(bind: impl Fn(IpAddr) -> io::Result<T>) -> io::Result<T> {
    match bind(Ipv6Addr::UNSPECIFIED.into()) {
        Err(error) if !is_in_use(&error) => bind(Ipv4Addr::UNSPECIFIED.into()),
        other => other,
    }
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Binds, as soon as a router that was killed has let go of the port.
fn until_released(bind: impl Fn() -> io::Result<TcpListener>) -> io::Result<TcpListener> {
    let deadline = Instant::now() + PORT_RELEASED;
    loop {
        match bind() {
            Err(error) if is_in_use(&error) && Instant::now() < deadline => std::thread::sleep(PORT_TRIED),
            result => return result,
        }
    }
}

/// Binds the address of HTTP. A client that does not read holds little memory of the kernel.
fn bind_http(address: SocketAddr) -> io::Result<TcpListener> {
    let bind = |ip| TcpListener::bind(SocketAddr::new(ip, address.port()));
    let listener = until_released(|| match address.ip() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => everywhere(bind),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => bind(ip),
    })?;
    // Connections have what their listener has.
    setsockopt(&listener, sockopt::SndBuf, &HTTP_BUFFERS)?;
    setsockopt(&listener, sockopt::RcvBuf, &HTTP_BUFFERS)?;
    Ok(listener)
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
    features.gathering = check(
        "single_wakeups",
        features.gathering,
        true,
        "waiting a moment for more small datagrams needs Linux 6.12",
    );
    features
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_address_is_those_of_ipv4_on_a_host_without_ipv6() {
        let four = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let six = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        assert_eq!(everywhere(Ok).unwrap(), six);
        for missing in [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL] {
            let without =
                |ip: IpAddr| if ip == six { Err(io::Error::from_raw_os_error(missing)) } else { Ok(ip) };
            assert_eq!(everywhere(without).unwrap(), four);
        }
        let taken = |_| Err::<IpAddr, _>(io::Error::from_raw_os_error(libc::EADDRINUSE));
        assert!(is_in_use(&everywhere(taken).unwrap_err()));
    }
}
