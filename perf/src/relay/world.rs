//! Three hosts on one switch, of which the first and the last have a container.
//!
//! ```text
//! container ── host a ── eth0 ═╦═ eth0 ── host c ── container
//!                              ╚═ eth0 ── host b
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use weave_perf::lab::{Container, Lab, LabOptions, Underlay};
use weave_perf::traffic::{Window, icmp, ping, tcp};

use super::Sample;
use crate::ab::error::{Error, Result};
use crate::ab::interrupt;

/// Password of the network. It guards nothing: the network is gone in a minute.
const PASSWORD: &str = "measured in a namespace of its own\n";
/// Longest time a command may take.
const RUN_LIMIT: Duration = Duration::from_secs(30);
/// Longest time from the launch to the route and the first answer over it.
const READY_LIMIT: Duration = Duration::from_secs(15);
/// How often the route is asked for.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Requests a second while round trips are measured: far below what loads anything.
const REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);
/// MTU of the underlay, as of most networks.
const UNDERLAY_MTU: u32 = 1500;

/// Numbers of the hosts.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// The way from A to C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By a link of theirs.
    Direct,
    /// Over B.
    Relayed,
}

impl Way {
    /// Both, what is compared with first.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Relayed];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }

    /// Links on it.
    fn hops(self) -> u64 {
        match self {
            Self::Direct => 1,
            Self::Relayed => 2,
        }
    }

    /// Which host dials which.
    fn dials(self) -> &'static [(usize, Option<usize>)] {
        match self {
            Self::Direct => &[(A, None), (C, Some(A))],
            Self::Relayed => &[(B, None), (A, Some(B)), (C, Some(B))],
        }
    }
}

/// The hosts. Everything of them goes when this is dropped.
#[derive(Debug)]
pub struct World {
    containers: [Container; 2],
    lab: Lab,
    weave: PathBuf,
}

impl World {
    /// Builds them, launches routers and waits until the containers reach each other by `way`.
    pub fn build(way: Way, weave: &Path, underlay: Underlay) -> Result<Self> {
        interrupt::check()?;
        let underlay = Underlay { mtu: UNDERLAY_MTU, ..underlay };
        let lab = Lab::new(&LabOptions { hosts: 3, underlay, ..LabOptions::default() })?;
        let containers = [lab.container("a")?, lab.container("c")?];
        let world = Self { containers, lab, weave: weave.to_owned() };
        for (host, target) in way.dials() {
            world.launch(*host, *target)?;
        }
        for (host, container, address) in [(A, world.near(), near_address()), (C, world.far(), far_address())]
        {
            world.weave(host, &["attach", &format!("{address}/24"), container.spec()])?;
        }
        world.wait_ready(way)?;
        Ok(world)
    }

    fn launch(&self, host: usize, target: Option<usize>) -> Result<()> {
        let file = self.lab.host(host).directory().join("password");
        std::fs::write(&file, PASSWORD).map_err(|e| Error::file("write", &file, e))?;
        let file = file.to_string_lossy().into_owned();
        let target = target.map(|target| self.lab.host(target).v4().to_string());
        let line = ["launch", "--no-dns", "--no-discovery", "--password-file", &file];
        let line: Vec<&str> = line.into_iter().chain(target.as_deref()).collect();
        self.weave(host, &line).map(drop)
    }

    /// Runs `weave` on a host; its standard output.
    fn weave(&self, host: usize, arguments: &[&str]) -> Result<String> {
        interrupt::check()?;
        let host = self.lab.host(host);
        let output = host.output(host.command(&self.weave).args(arguments), RUN_LIMIT)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let line = format!("{} {}", self.weave.display(), arguments.join(" "));
        let cause = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Command { line, cause })
    }

    fn near(&self) -> &Container {
        &self.containers[0]
    }

    fn far(&self) -> &Container {
        &self.containers[1]
    }

    /// Waits for a route of as many hops as `way` has, and for an answer over it.
    fn wait_ready(&self, way: Way) -> Result<()> {
        let start = Instant::now();
        let name = status(&self.weave(C, &["status", "-o", "json"])?)["name"].clone();
        while start.elapsed() < READY_LIMIT {
            let status = status(&self.weave(A, &["status", "-o", "json"])?);
            let routes = status["routes"].as_array().cloned().unwrap_or_default();
            if routes.iter().any(|route| route["peer"] == name && route["hops"] == way.hops()) {
                let left = READY_LIMIT.saturating_sub(start.elapsed());
                let far = IpAddr::from(far_address());
                if self.near().run(|| icmp::wait_reachable(far, left))?? {
                    return Ok(());
                }
            }
            std::thread::sleep(ASK_EVERY);
        }
        let hint = format!("no route of {} hops or no answer over it", way.hops());
        Err(Error::NotReady { seconds: READY_LIMIT.as_secs(), hint })
    }

    /// One TCP stream, then round trips, from A's container to C's.
    pub fn measure(self, window: Window) -> Result<Sample> {
        let far = SocketAddr::from((far_address(), 0));
        let sink = self.far().run(|| tcp::Sink::bind(far))??;
        let source = self.near().run(|| tcp::Source::connect(sink.address(), 1))??;
        let gigabits = tcp::measure(&sink, source, window, &mut |_| ())?.gigabits_per_second();
        interrupt::check()?;
        let transport = ping::Transport::Udp;
        let responder = self.far().run(|| ping::Responder::start(transport, far))??;
        let address = responder.address();
        let prober = self.near().run(|| ping::Prober::connect(transport, address))??;
        let latency = prober.measure(REQUESTS_PER_SECOND, window)?;
        Ok(Sample { gigabits, round_trip_us: latency.p50_us() })
    }
}

/// What `weave status -o json` printed; nothing of what cannot be read.
fn status(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn near_address() -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, 1)
}

fn far_address() -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, 3)
}
