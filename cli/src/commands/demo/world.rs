//! Hosts with routers and a container each.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use weave_api::Client;
use weave_api::status::{Connection, ConnectionState, Status};
use weave_perf::lab::{Container, Host, Lab, LabOptions, Place, Way};

use super::ground::Ground;
use super::interrupt::while_not_interrupted;
use super::screen::Screen;
use crate::failure::{Failure, Result};

/// Time for a command to end.
const COMMAND_WITHIN: Duration = Duration::from_secs(40);
/// Time for the link to be established.
const LINK_WITHIN: Duration = Duration::from_secs(10);
/// Time for a router to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often the state of the link is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of randomness in the password.
const PASSWORD_BYTES: usize = 16;

/// Hosts, routers, containers. Dropping it removes them.
pub struct World {
    /// First, so that they go before what they are in.
    containers: Vec<Container>,
    lab: Lab,
    executable: PathBuf,
}

impl World {
    /// Builds everything, as an operator of so many hosts would.
    pub fn build(screen: &Screen, ground: &Ground, hosts: usize) -> Result<Self> {
        screen.step("making hosts and containers");
        let failed =
            |error: weave_perf::lab::Error| Failure::because("cannot make hosts and containers", error);
        let lab = while_not_interrupted(|| Lab::new(&options(hosts))).map_err(failed)?;
        let containers = (1..=hosts).map(|number| lab.container(&format!("container{number}")));
        let containers = containers.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
        let world = Self { containers, lab, executable: ground.executable().to_owned() };
        screen.step("launching the routers");
        if hosts > 2 {
            world.set_way(Way::Closed)?;
        }
        world.launch(ground)?;
        screen
            .line("hosts", format_args!("{}: {hosts} routers, launched with a password", world.underlay()))?;
        screen.step("attaching the containers");
        world.attach()?;
        let names = (0..hosts).map(|index| format!("{} {} on host{}", v4(index), v6(index), index + 1));
        screen.line("containers", names.collect::<Vec<_>>().join(", "))?;
        Ok(world)
    }

    fn underlay(&self) -> String {
        let hosts: Vec<String> =
            self.lab.hosts().iter().map(|host| format!("host{} {}", host.number(), host.v4())).collect();
        hosts.join(", ")
    }

    fn launch(&self, ground: &Ground) -> Result<()> {
        let password = self.lab.directory().join("password");
        write_password(&password)
            .map_err(|error| Failure::new(format_args!("cannot write {}", password.display()), error, ""))?;
        let password = password.display().to_string();
        let first = self.lab.host(0).v4().to_string();
        let shards = ground.shards().map(|shards| shards.to_string());
        for host in self.lab.hosts() {
            let peer = (host.number() > 1).then_some(first.as_str());
            let nickname = format!("host{}", host.number());
            let mut arguments =
                vec!["launch", "--no-dns", "--password-file", &password, "--nickname", &nickname];
            if let Some(shards) = &shards {
                arguments.extend(["--shards", shards]);
            }
            arguments.extend(peer);
            self.weave(host, &arguments)?;
        }
        Ok(())
    }

    fn attach(&self) -> Result<()> {
        for (index, (host, container)) in self.lab.hosts().iter().zip(&self.containers).enumerate() {
            let cidrs = [format!("{}/24", v4(index)), format!("{}/64", v6(index))];
            self.weave(host, &["attach", &cidrs[0], &cidrs[1], container.spec()])?;
        }
        Ok(())
    }

    /// Runs this executable on `host`.
    fn weave(&self, host: &Host, arguments: &[&str]) -> Result<()> {
        let what = format!("cannot {} on host{}", arguments.first().unwrap_or(&""), host.number());
        let failed = |error: weave_perf::lab::Error| Failure::because(&what, error);
        let mut command = host.command(&self.executable);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = while_not_interrupted(|| host.spawn(&mut command)).map_err(failed)?;
        let status = process.wait(COMMAND_WITHIN).map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        let mut why = String::new();
        if let Some(stderr) = process.child().stderr.as_mut() {
            let _ = stderr.take(4096).read_to_string(&mut why);
        }
        Err(Failure::because(what, if why.trim().is_empty() { status.to_string() } else { why }))
    }

    /// Waits until the link is established and tells of it.
    pub fn link(&self, screen: &Screen) -> Result<String> {
        screen.step("waiting for the link");
        let begin = Instant::now();
        loop {
            let status = self.status(0)?;
            let links = &status.connections;
            if let Some(link) = links.iter().find(|link| link.state == ConnectionState::Established) {
                return Ok(describe(link, begin.elapsed()));
            }
            if begin.elapsed() > LINK_WITHIN {
                let seen = crate::text::connections(links);
                let seen = if seen.is_empty() { "no connection at all".to_owned() } else { seen };
                return Err(Failure::new(
                    format_args!("cannot see the link established within {} s", LINK_WITHIN.as_secs()),
                    seen,
                    "report it, with the output of `weave demo`",
                ));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// The state of the router of host `index`.
    pub fn status(&self, index: usize) -> Result<Status> {
        let run_dir = self.lab.host(index).run_dir();
        Client::connect(&run_dir, ANSWER_WITHIN).and_then(|mut client| client.status()).map_err(|error| {
            let what = format!("cannot ask the router of host{}", index + 1);
            let log = fs::read_to_string(run_dir.join(crate::running::LOG)).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it wrote no log").to_owned();
            Failure::new(what, error, format_args!("last line of its log: {last}"))
        })
    }

    /// The container of host `index`.
    pub fn container(&self, index: usize) -> &Container {
        &self.containers[index.min(self.containers.len() - 1)]
    }

    /// The two hosts whose path is opened and closed: the second and the last.
    pub fn apart(&self) -> [usize; 2] {
        [1, self.containers.len() - 1]
    }

    /// Opens or closes the path between those two.
    pub fn set_way(&self, way: Way) -> Result<()> {
        let [one, other] = self.apart().map(segment);
        let what = "cannot open or close the path between two hosts";
        while_not_interrupted(|| self.lab.set_way(one, other, way))
            .map_err(|error| Failure::because(what, error))
    }

    /// What to ping from container 1.
    pub fn addresses(&self) -> [(&'static str, IpAddr); 2] {
        [("ping IPv4", v4(1).into()), ("ping IPv6", v6(1).into())]
    }

    /// The IPv4 address of container 2.
    pub fn target(&self) -> Ipv4Addr {
        v4(1)
    }

    /// Process ids of the routers of the first two hosts.
    pub fn routers(&self) -> Result<[u32; 2]> {
        Ok([self.status(0)?.pid, self.status(1)?.pid])
    }
}

/// The address of the container of host `index`.
pub fn v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 1, segment(index) + 1)
}

fn v6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, u16::from(segment(index)) + 1)
}

/// Two hosts are joined by a wire; more have a segment each and a router between them.
fn options(hosts: usize) -> LabOptions {
    let places =
        if hosts > 2 { (0..hosts).map(|index| Place::on(&[segment(index)])).collect() } else { vec![] };
    LabOptions { hosts, places, ..LabOptions::default() }
}

fn segment(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}

fn describe(link: &Connection, after: Duration) -> String {
    let encrypted = if link.encrypted == Some(true) { "encrypted" } else { "UNENCRYPTED" };
    let mut text = format!("established and {encrypted}, {:.1} s after the routers", after.as_secs_f64());
    if link.lanes_out > 0 {
        let _ = write!(text, ", {} lanes out, {} in", link.lanes_out, link.lanes_in);
    }
    for degraded in &link.degraded {
        let _ = write!(text, ", {}: {}", degraded.name, degraded.reason);
    }
    text
}

/// A password that nobody has seen, readable by this user only.
fn write_password(path: &Path) -> std::io::Result<()> {
    let mut bytes = [0; PASSWORD_BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    writeln!(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?, "{text}")
}
