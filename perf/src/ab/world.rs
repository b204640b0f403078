//! The two simulated hosts every tunnel is measured on.
//!
//! ```text
//! container a ── bridge ┐                       ┌ bridge ── container b
//!                       ├ tunnel ── u0 ═══ u0 ── tunnel ┤
//!             host a ───┘   10.99.0.1    .2     └─── host b
//! ```
//!
//! Each box is a network namespace, each line a veth pair; `u0` is the underlay. Tunnels that
//! carry Ethernet join the bridge and both containers are one subnet (10.98.0.0/24). Tunnels that
//! carry only IP are routed: each bridge is the gateway of a subnet of its own (10.98.1.0/24,
//! 10.98.2.0/24). Both ways a packet passes the same devices.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::Underlay;
use super::cleanup::{self, Trace};
use super::command::{Daemon, ip, run};
use super::error::{Error, Result};

/// MTU of the underlay, as of most networks.
pub const UNDERLAY_MTU: u32 = 1500;

/// MTU of the containers of every tunnel, the default of Weave: fits [`UNDERLAY_MTU`] for all of
/// them, so that all carry packets of one size.
pub const TUNNEL_MTU: u32 = 1376;

/// Name of the underlay device in each host.
pub const UNDERLAY_DEVICE: &str = "u0";

/// Name of the bridge in each host.
pub const BRIDGE: &str = "br0";

/// How the containers reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// One Ethernet segment; the tunnel is a port of the bridge.
    Ethernet,
    /// Two subnets; the tunnel is a route of the host.
    Ip,
    /// The tunnel's own command makes the bridge and attaches the containers, as one segment.
    Own,
}

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where traffic is sent from.
    A,
    /// Where it is received.
    B,
}

/// Both ends.
pub const ENDS: [End; 2] = [End::A, End::B];

impl End {
    fn index(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }

    /// The end on the far side.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Address of the host on the underlay.
    pub fn underlay(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.index())
    }

    /// Address of the host inside a tunnel that carries IP, a /24.
    pub fn inside(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 97, 0, self.index())
    }

    /// Subnet of the containers behind this host, for tunnels that carry IP.
    pub fn subnet(self) -> String {
        format!("10.98.{}.0/24", self.index())
    }

    /// Address of the container, a /24.
    pub fn container(self, layer: Layer) -> Ipv4Addr {
        match layer {
            Layer::Ethernet | Layer::Own => Ipv4Addr::new(10, 98, 0, self.index()),
            Layer::Ip => Ipv4Addr::new(10, 98, self.index(), 2),
        }
    }

    fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 98, self.index(), 1)
    }
}

/// Two hosts with a container each. Everything of it goes when it is dropped.
#[derive(Debug)]
pub struct World {
    prefix: String,
    layer: Layer,
    directory: PathBuf,
    traces: Vec<Trace>,
    daemons: Vec<Daemon>,
}

impl World {
    /// Builds hosts, underlay and (unless the layer is [`Layer::Own`]) bridges and containers.
    pub fn build(layer: Layer, mtu: u32, underlay: Underlay) -> Result<Self> {
        // Names differ between runs and within a run, so that runs side by side do not meet.
        static BUILT: AtomicU32 = AtomicU32::new(0);
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("wp{}n{number}", std::process::id());
        let directory = tempfile::Builder::new()
            .prefix("weave-perf-")
            .tempdir()
            .map_err(|e| Error::file("make a directory in", std::env::temp_dir(), e))?
            .keep();
        let mut world =
            Self { prefix, layer, directory: directory.clone(), traces: Vec::new(), daemons: Vec::new() };
        world.leave(Trace::Path(directory));
        world.make_hosts(underlay)?;
        if layer != Layer::Own {
            for end in ENDS {
                world.make_container(end, mtu)?;
            }
        }
        Ok(world)
    }

    fn make_hosts(&mut self, underlay: Underlay) -> Result<()> {
        for end in ENDS {
            for name in [self.host(end), self.container(end)] {
                self.leave(Trace::Namespace(name.clone()));
                ip(&format!("netns add {name}"))?;
                ip(&format!("-n {name} link set lo up"))?;
            }
        }
        let (a, b) = (self.host(End::A), self.host(End::B));
        let u0 = UNDERLAY_DEVICE;
        ip(&format!(
            "link add {u0} netns {a} mtu {UNDERLAY_MTU} type veth \
             peer name {u0} netns {b} mtu {UNDERLAY_MTU}"
        ))?;
        for end in ENDS {
            let host = self.host(end);
            ip(&format!("-n {host} addr add {}/24 dev {u0}", end.underlay()))?;
            set_offload(&host, underlay)?;
            ip(&format!("-n {host} link set {u0} up"))?;
        }
        Ok(())
    }

    fn make_container(&self, end: End, mtu: u32) -> Result<()> {
        let (host, container) = (self.host(end), self.container(end));
        ip(&format!(
            "-n {host} link add {BRIDGE} mtu {mtu} type bridge \
             stp_state 0 mcast_snooping 0 forward_delay 0"
        ))?;
        ip(&format!(
            "link add eth0 netns {container} mtu {mtu} type veth \
             peer name c0 netns {host} mtu {mtu}"
        ))?;
        ip(&format!("-n {host} link set c0 master {BRIDGE} up"))?;
        ip(&format!("-n {host} link set {BRIDGE} up"))?;
        let address = end.container(self.layer);
        ip(&format!("-n {container} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {container} link set eth0 up"))?;
        if self.layer == Layer::Ip {
            let gateway = end.gateway();
            ip(&format!("-n {host} addr add {gateway}/24 dev {BRIDGE}"))?;
            ip(&format!("-n {container} route add default via {gateway}"))?;
            run(&["ip", "netns", "exec", &host, "sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        }
        Ok(())
    }

    /// Notes something for removal with this world.
    pub fn leave(&mut self, trace: Trace) {
        cleanup::note(trace.clone());
        self.traces.push(trace);
    }

    /// Name of the namespace of a host.
    pub fn host(&self, end: End) -> String {
        format!("{}h{}", self.prefix, end.index())
    }

    /// Name of the namespace of a container.
    pub fn container(&self, end: End) -> String {
        format!("{}c{}", self.prefix, end.index())
    }

    /// Name for a device that must be the only one of its name on the machine.
    pub fn unique_device(&self, end: End) -> String {
        format!("{}{}", self.prefix, end.index())
    }

    /// A directory for files of one end, made if it is not there.
    pub fn directory(&self, end: End) -> Result<PathBuf> {
        let path = self.directory.join(format!("host{}", end.index()));
        std::fs::create_dir_all(&path).map_err(|e| Error::file("make", &path, e))?;
        Ok(path)
    }

    /// Writes a file of one end.
    pub fn write(&self, end: End, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.directory(end)?.join(name);
        std::fs::write(&path, content).map_err(|e| Error::file("write", &path, e))?;
        Ok(path)
    }

    /// Address the traffic goes to.
    pub fn far_address(&self) -> Ipv4Addr {
        End::B.container(self.layer)
    }

    /// Makes a device a port of the host's bridge, and raises it.
    pub fn join_bridge(&self, end: End, device: &str) -> Result<()> {
        ip(&format!("-n {} link set {device} master {BRIDGE} up", self.host(end)))
    }

    /// Runs a program in a host to its end.
    pub fn run(&self, end: End, arguments: &[&str]) -> Result<String> {
        let host = self.host(end);
        let mut line = vec!["ip", "netns", "exec", &host];
        line.extend(arguments);
        run(&line)
    }

    /// Starts a program in a host that stays in the foreground; its process.
    pub fn spawn(&mut self, end: End, arguments: &[&str]) -> Result<u32> {
        let host = self.host(end);
        let mut line = vec!["ip", "netns", "exec", &host];
        line.extend(arguments);
        let log = self.directory(end)?.join("log");
        let daemon = Daemon::spawn(&line, &log)?;
        let pid = daemon.pid();
        self.daemons.push(daemon);
        Ok(pid)
    }

    /// What the daemons said last, for an error message.
    pub fn last_words(&self) -> String {
        let words: Vec<_> = self.daemons.iter().map(Daemon::last_words).collect();
        if words.is_empty() { "no program belongs to it".to_owned() } else { words.join(" / ") }
    }

    /// Runs `work` on a thread inside the container of `end`.
    pub fn in_container<T, F>(&self, end: End, work: F) -> Result<T>
    where
        T: Send,
        F: FnOnce() -> Result<T> + Send,
    {
        let path = Path::new("/run/netns").join(self.container(end));
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                File::open(&path)
                    .and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?))
                    .map_err(|e| Error::file("enter the namespace", &path, e))?;
                work()
            });
            worker.join().unwrap_or_else(|_| {
                let cause = io::Error::other("the thread inside panicked");
                Err(Error::file("work in", &path, cause))
            })
        })
    }

    /// Waits until the far container answers a ping.
    pub fn wait_ready(&self) -> Result<()> {
        const LIMIT: std::time::Duration = std::time::Duration::from_secs(15);
        let far = IpAddr::V4(self.far_address());
        let answered =
            self.in_container(End::A, || Ok(weave_perf::traffic::icmp::wait_reachable(far, LIMIT)?))?;
        if answered {
            return Ok(());
        }
        Err(Error::NotReady { seconds: LIMIT.as_secs(), hint: self.last_words() })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.daemons.clear();
        cleanup::remove(&self.traces);
    }
}

/// Sets segmentation offload and GRO of the underlay device of a host.
fn set_offload(host: &str, underlay: Underlay) -> Result<()> {
    let (segmentation, gro) = match underlay {
        Underlay::On => return Ok(()),
        Underlay::Off => ("off", "off"),
        Underlay::Gro => ("off", "on"),
    };
    let mut line = vec!["ip", "netns", "exec", host, "ethtool", "-K", UNDERLAY_DEVICE];
    for feature in ["tso", "gso", "tx-udp-segmentation"] {
        line.extend([feature, segmentation]);
    }
    line.extend(["gro", gro]);
    run(&line).map(drop)
}
