//! Hosts with a container engine (Docker, or Podman) each, on the underlay of a [`World`], and hosts without one.
//!
//! A host with an engine is a host of the world with mount, process, name and IPC namespaces of
//! its own beside that of the network: its /run, its engine and its process numbers are its own, so
//! that commands run on it as on another machine. What a user types is run by a shell there
//! ([`Engines::sh`]), with `weave`, `docker` and `$HOST1`, `$HOST2`, … at hand.
//!
//! The image of all containers is called `ubuntu`, as on the pages that the tests follow, and is
//! busybox with the netcat of OpenBSD ([`image`]).

mod containers;
mod host;
mod image;
mod plain;
mod shell;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use weave_host::Netlink;
use weave_perf::lab::{Host, Place, Process};

use crate::world::{Options, Ran, World};
pub use containers::Inside;
use host::EngineHost;
pub use host::Kind;
use plain::Plain;
pub use plain::{PlainOptions, Topology};

/// Name of the image of all containers.
pub const IMAGE: &str = "ubuntu";
/// Name of the image whose containers ask for names, as the original's scripts call it.
pub const DNSUTILS: &str = "aanand/docker-dnsutils";
/// How soon what changed by itself is as it should be: attached again, rules put back.
pub const SOON: Duration = Duration::from_secs(2);
/// Time an engine has to come up on a busy machine.
const ENGINE_WITHIN: Duration = Duration::from_secs(30);

/// Hosts, the first of them with an engine.
#[derive(Debug)]
pub struct Engines {
    /// First, so that they go before what they are in.
    engines: Vec<EngineHost>,
    /// What stands in for engines where there are none.
    plain: Option<Plain>,
    tools: PathBuf,
    world: World,
}

impl Engines {
    /// So many hosts with an engine each, and as many without. No router runs.
    #[track_caller]
    #[must_use]
    pub fn new(with: usize, without: usize) -> Self {
        Self::placed(with, without, Vec::new())
    }

    /// The same with each host where it is said to be on the underlay.
    #[track_caller]
    #[must_use]
    pub fn placed(with: usize, without: usize, places: Vec<Place>) -> Self {
        Self::of_kind(Kind::Docker, with, without, places)
    }

    /// So many hosts with Podman each. No router runs.
    #[track_caller]
    #[must_use]
    pub fn podman(with: usize) -> Self {
        Self::of_kind(Kind::Podman, with, 0, Vec::new())
    }

    #[track_caller]
    fn of_kind(kind: Kind, with: usize, without: usize, places: Vec<Place>) -> Self {
        let world = World::new(Options::clear().bare(with + without).places(places));
        let image = image::make(world.lab().directory());
        let tools = image::make_tools(world.lab().directory());
        let mut engines: Vec<EngineHost> =
            (0..with).map(|index| EngineHost::start(&world, index, kind)).collect();
        // All are on their way up before the first is waited for.
        for engine in &mut engines {
            engine.await_engine(ENGINE_WITHIN);
        }
        let hosts = Self { engines, plain: None, tools, world };
        for index in 0..with {
            hosts.ok(index, &format!("docker import -c 'CMD [\"/bin/sh\"]' {} {IMAGE}", image.display()));
        }
        hosts
    }

    /// Gives a host the image [`DNSUTILS`].
    #[track_caller]
    pub fn import_dnsutils(&self, index: usize) {
        let image = image::make_dnsutils(self.world.host(index).directory());
        self.ok(index, &format!("docker import -c 'CMD [\"/bin/sh\"]' {} {DNSUTILS}", image.display()));
    }

    /// The hosts without their engines.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// How many hosts there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.world.indices().len()
    }

    /// How many of them have an engine.
    #[must_use]
    pub fn with_engine(&self) -> usize {
        self.engines.len()
    }

    /// A program to be run on a host, with the variables of its shell.
    #[must_use]
    pub fn command(&self, index: usize, program: &str) -> Command {
        let mut command = match self.engines.get(index) {
            Some(engine) => engine.command(self.world.host(index), program),
            None => self.world.host(index).command(program),
        };
        match &self.plain {
            Some(plain) => plain.set_variables(&mut command, &self.world, index, &self.tools),
            None => shell::set_variables(&mut command, &self.world, &self.tools),
        }
        if let Some(host) = self.engines.get(index).and_then(EngineHost::engine_host) {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Runs a line of shell on a host to its end.
    pub fn sh(&self, index: usize, line: &str) -> Ran {
        self.world.run(index, &mut self.shell(index, line))
    }

    /// The same; ends the test when it fails, and returns what was printed, without the last end
    /// of line.
    #[track_caller]
    pub fn ok(&self, index: usize, line: &str) -> String {
        let ran = self.sh(index, line);
        let said = format!("stdout: {}\nstderr: {}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, Some(0), "host {}: {line}\n{said}", index + 1);
        ran.stdout.trim_end().to_owned()
    }

    /// Starts a line of shell on a host; it is killed when the process returned is dropped. What it
    /// prints goes to `output`.
    #[track_caller]
    pub fn spawn(&self, index: usize, line: &str, output: std::fs::File) -> Process {
        let mut command = self.shell(index, line);
        let errors = output.try_clone().unwrap();
        self.world.host(index).spawn(command.stdout(output).stderr(errors)).unwrap()
    }

    fn shell(&self, index: usize, line: &str) -> Command {
        let mut command = self.command(index, "sh");
        command.args(["-c", &shell::remembering(self.world.host(index), line)]);
        command
    }

    /// Launches weave on the hosts with an engine; each but the first dials the first. Waits for
    /// the links.
    #[track_caller]
    pub fn launch(&self) {
        self.ok(0, "weave launch");
        for index in 1..self.with_engine() {
            self.ok(index, "weave launch $HOST1");
            self.world.wait_linked(0, index, crate::world::LINK_WITHIN);
        }
    }

    /// Kills the router of a host, as a crash does.
    #[track_caller]
    pub fn kill_router(&self, index: usize) {
        self.kill_daemon(index, "router");
    }

    /// Kills the keeper of a host, as a crash does.
    #[track_caller]
    pub fn kill_keeper(&self, index: usize) {
        self.kill_daemon(index, "keeper");
    }

    fn kill_daemon(&self, index: usize, daemon: &str) {
        let file = self.world.host(index).run_dir().join(format!("{daemon}.pid"));
        self.ok(index, &format!("kill -9 $(cat {})", file.display()));
    }

    /// Kills the engine of a host, as a crash does.
    #[track_caller]
    pub fn kill_engine(&mut self, index: usize) {
        self.engines[index].end_engine(self.world.host(index), "KILL");
    }

    /// Stops the engine of a host, as a service manager does; it stops its containers.
    #[track_caller]
    pub fn stop_engine(&mut self, index: usize) {
        self.engines[index].end_engine(self.world.host(index), "TERM");
    }

    /// Starts the engine of a host again and waits until it answers.
    #[track_caller]
    pub fn start_engine(&mut self, index: usize) {
        self.engines[index].start_engine(self.world.host(index));
        self.engines[index].await_engine(ENGINE_WITHIN);
    }

    /// Ends everything that runs on a host, with all its interfaces and rules but what belongs to
    /// the underlay, as a loss of power does; then starts it up again with what was on its disk,
    /// its engine too.
    #[track_caller]
    pub fn reboot(&mut self, index: usize) {
        self.engines[index].lose_power();
        forget_kernel_state(self.world.host(index));
        let kind = self.engines[index].kind();
        self.engines[index] = EngineHost::start(&self.world, index, kind);
        self.engines[index].await_engine(ENGINE_WITHIN);
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (index, engine) in self.engines.iter().enumerate() {
                eprintln!("---- engine of host {index} ----\n{}", engine.log());
            }
        }
    }
}

/// Takes from a host what the kernel loses with the power: interfaces of weave and of the engine,
/// rules, and what is in its run directory.
#[track_caller]
fn forget_kernel_state(host: &Host) {
    let mut netlink = Netlink::in_namespace(host.namespace()).unwrap();
    for link in netlink.links().unwrap() {
        let stays = link.name == "lo" || link.name.starts_with("eth");
        // One end of a pair may have taken the other along.
        if !stays && netlink.link(&link.name).unwrap().is_some() {
            netlink.delete_link(&link).unwrap();
        }
    }
    let flushed = host.output(host.command("nft").args(["flush", "ruleset"]), SOON).unwrap();
    assert!(flushed.status.success());
    std::fs::remove_dir_all(host.run_dir()).unwrap();
    std::fs::create_dir(host.run_dir()).unwrap();
}
