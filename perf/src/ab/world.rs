//! The two simulated hosts every tunnel is measured on.
//!
//! ```text
//! container a ── br0 ┐                            ┌ br0 ── container b
//!                    ├ tunnel ── eth0 ═══ eth0 ── tunnel ┤
//!          host a ───┘       10.99.0.1    .2      └─── host b
//! ```
//!
//! Each of the four is a network namespace, each line a veth pair. Tunnels that carry Ethernet
//! are a port of the bridges and both containers are one subnet (10.98.0.0/24). Tunnels that
//! carry only IP are routed: each bridge is the gateway of a subnet of its own (10.98.1.0/24,
//! 10.98.2.0/24). Both ways a packet passes the same devices.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use weave_perf::lab::{
    Container, Host, LIMIT_VARIABLE, Lab, LabOptions, MemoryUse, Process, UNDERLAY, Underlay,
};
use weave_perf::traffic::icmp;

use super::error::{Error, Result};
use super::interrupt;

/// MTU of the underlay, as of most networks.
pub const UNDERLAY_MTU: u32 = 1500;

/// MTU of the containers of every tunnel, the default of Weave: fits [`UNDERLAY_MTU`] for all of
/// them, so that all carry packets of one size.
pub const TUNNEL_MTU: u32 = 1376;

/// Name of the bridge in each host.
pub const BRIDGE: &str = "br0";

/// Longest time a program may take that is not a daemon.
const RUN_LIMIT: Duration = Duration::from_secs(30);

/// Longest time from the start of a tunnel to the first answer through it.
const READY_LIMIT: Duration = Duration::from_secs(15);

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
    fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    fn number(self) -> u8 {
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

    /// Address of the host inside a tunnel that carries IP, a /24.
    pub fn inside(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 97, 0, self.number())
    }

    /// Subnet of the containers behind this host, for tunnels that carry IP.
    pub fn subnet(self) -> String {
        format!("10.98.{}.0/24", self.number())
    }

    /// Address of the container, a /24.
    pub fn container(self, layer: Layer) -> Ipv4Addr {
        match layer {
            Layer::Ethernet | Layer::Own => Ipv4Addr::new(10, 98, 0, self.number()),
            Layer::Ip => Ipv4Addr::new(10, 98, self.number(), 2),
        }
    }

    fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 98, self.number(), 1)
    }
}

/// Two hosts with a container each. Everything of it goes when it is dropped.
#[derive(Debug)]
pub struct World {
    // Fields drop in this order: programs end before their namespaces go.
    daemons: Vec<Daemon>,
    containers: [Container; 2],
    lab: Lab,
    layer: Layer,
}

/// A program in the background.
#[derive(Debug)]
struct Daemon {
    process: Process,
    log: PathBuf,
}

impl World {
    /// Builds hosts, underlay and (unless the layer is [`Layer::Own`]) bridges and containers.
    pub fn build(layer: Layer, mtu: u32, underlay: Underlay) -> Result<Self> {
        interrupt::check()?;
        let lab = Lab::new(&LabOptions { underlay, named: true, ..LabOptions::default() })?;
        let containers = [lab.container("a")?, lab.container("b")?];
        let world = Self { daemons: Vec::new(), containers, lab, layer };
        if layer != Layer::Own {
            for end in ENDS {
                world.connect_container(end, mtu)?;
            }
        }
        Ok(world)
    }

    fn connect_container(&self, end: End, mtu: u32) -> Result<()> {
        self.ip(
            end,
            &format!("link add {BRIDGE} mtu {mtu} type bridge stp_state 0 mcast_snooping 0 forward_delay 0"),
        )?;
        let name = self.container_name(end);
        let inner = format!("peer name eth0 netns {name} mtu {mtu}");
        self.ip(end, &format!("link add c0 mtu {mtu} type veth {inner}"))?;
        self.join_bridge(end, "c0")?;
        self.ip(end, &format!("link set {BRIDGE} up"))?;
        let address = end.container(self.layer);
        self.ip(end, &format!("-n {name} addr add {address}/24 dev eth0"))?;
        self.ip(end, &format!("-n {name} link set eth0 up"))?;
        if self.layer == Layer::Ip {
            let gateway = end.gateway();
            self.ip(end, &format!("addr add {gateway}/24 dev {BRIDGE}"))?;
            self.ip(end, &format!("-n {name} route add default via {gateway}"))?;
            self.run(end, &["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        }
        Ok(())
    }

    /// One of the hosts.
    pub fn host(&self, end: End) -> &Host {
        self.lab.host(end.index())
    }

    /// Address of a host on the underlay.
    pub fn underlay(&self, end: End) -> Ipv4Addr {
        self.host(end).v4()
    }

    /// One of the containers.
    pub fn container(&self, end: End) -> &Container {
        &self.containers[end.index()]
    }

    fn container_name(&self, end: End) -> &str {
        let spec = self.container(end).spec();
        spec.strip_prefix("netns:").unwrap_or(spec)
    }

    /// Address the traffic goes to.
    pub fn far_address(&self) -> Ipv4Addr {
        End::B.container(self.layer)
    }

    /// Writes a file of one end.
    pub fn write(&self, end: End, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.host(end).directory().join(name);
        fs::write(&path, content).map_err(|e| Error::file("write", &path, e))?;
        Ok(path)
    }

    /// Makes the underlay itself a port of the host's bridge, and raises it.
    pub fn bridge_underlay(&self, end: End) -> Result<()> {
        self.join_bridge(end, UNDERLAY)
    }

    /// Makes a device a port of the host's bridge, and raises it.
    pub fn join_bridge(&self, end: End, device: &str) -> Result<()> {
        self.ip(end, &format!("link set {device} master {BRIDGE} up"))
    }

    /// Runs `ip` in a host with arguments separated by blanks (none of ours contains one).
    pub fn ip(&self, end: End, arguments: &str) -> Result<()> {
        let mut line = vec!["ip"];
        line.extend(arguments.split_ascii_whitespace());
        self.run(end, &line).map(drop)
    }

    /// Runs a program in a host to its end; its standard output.
    pub fn run(&self, end: End, line: &[&str]) -> Result<String> {
        self.run_reading(end, line, Stdio::null())
    }

    /// Runs a program in a host to its end, with this on its standard input.
    pub fn run_reading(&self, end: End, line: &[&str], input: impl Into<Stdio>) -> Result<String> {
        interrupt::check()?;
        let mut command = self.command(end, line);
        command.stdin(input);
        let output = self.host(end).output(&mut command, RUN_LIMIT)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Command { line: line.join(" "), cause: cause_of(&output) })
    }

    /// Starts a program in a host that stays in the foreground; its process.
    pub fn spawn(&mut self, end: End, line: &[&str]) -> Result<u32> {
        interrupt::check()?;
        let log = self.host(end).directory().join("log");
        let file = |e| Error::file("create", &log, e);
        let out = File::create(&log).map_err(file)?;
        let err = out.try_clone().map_err(file)?;
        let mut command = self.command(end, line);
        command.stdout(out).stderr(err);
        let process = self.host(end).spawn(&mut command)?;
        let pid = process.pid();
        self.daemons.push(Daemon { process, log });
        Ok(pid)
    }

    fn command(&self, end: End, line: &[&str]) -> Command {
        let (program, arguments) = line.split_first().unwrap_or((&"", &[]));
        let mut command = self.host(end).command(program);
        command.args(arguments);
        command
    }

    /// What the programs of both hosts have used, where hosts are limited: the higher peak, and all
    /// that were ended.
    pub fn memory_use(&self) -> Option<MemoryUse> {
        let of_both = ENDS.iter().filter_map(|end| self.host(*end).memory_use());
        of_both
            .reduce(|a, b| MemoryUse { peak_bytes: a.peak_bytes.max(b.peak_bytes), kills: a.kills + b.kills })
    }

    /// Where hosts are limited: these processes are in the cgroup of one of them.
    pub fn check_limited(&self, pids: &[u32]) -> Result<()> {
        let outside = |pid: &&u32| !ENDS.iter().any(|end| self.host(*end).limits(**pid));
        match pids.iter().find(outside) {
            Some(pid) if std::env::var_os(LIMIT_VARIABLE).is_some() => Err(Error::NotLimited { pid: *pid }),
            Some(_) | None => Ok(()),
        }
    }

    /// What the daemons said last, for an error message.
    pub fn last_words(&self) -> String {
        let words = self.daemons.iter().map(|daemon| {
            let log = fs::read_to_string(&daemon.log).unwrap_or_default();
            let last = last_line(&log).unwrap_or("nothing");
            format!("process {} said: {last}", daemon.process.pid())
        });
        let words: Vec<_> = words.collect();
        if words.is_empty() { "no program belongs to it".to_owned() } else { words.join("; ") }
    }

    /// Runs `work` on a thread inside the container of `end`.
    pub fn in_container<T, F>(&self, end: End, work: F) -> Result<T>
    where
        T: Send,
        F: FnOnce() -> Result<T> + Send,
    {
        interrupt::check()?;
        self.container(end).run(work)?
    }

    /// Waits until the far container answers a ping.
    pub fn wait_ready(&self) -> Result<()> {
        const SLICE: Duration = Duration::from_millis(200);
        let far = IpAddr::V4(self.far_address());
        let start = Instant::now();
        while start.elapsed() < READY_LIMIT {
            if self.in_container(End::A, || Ok(icmp::wait_reachable(far, SLICE)?))? {
                return Ok(());
            }
        }
        Err(Error::NotReady { seconds: READY_LIMIT.as_secs(), hint: self.last_words() })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.daemons.clear();
        interrupt::remove_files();
    }
}

fn cause_of(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    let last = last_line(&words).unwrap_or("no message");
    match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit code {code}: {last}"),
        (None, Some(signal)) => format!("killed by signal {signal}: {last}"),
        (None, None) => last.to_owned(),
    }
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().rfind(|line| !line.trim().is_empty())
}
