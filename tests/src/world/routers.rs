//! The routers of a world: launched, stopped, killed, asked.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weave_api::names::NameEntry;
use weave_api::status::{Connection, ConnectionState, Status};
use weave_api::{Client, ClientError};
use weave_host::PidFd;

use super::{ANSWER_WITHIN, COMMAND_WITHIN, Family, LINK_WITHIN, Ran, World, wait_until};

impl World {
    /// The address of host `index` that others dial.
    #[must_use]
    pub fn underlay(&self, index: usize) -> IpAddr {
        match self.options.family {
            Family::V4 => self.host(index).v4().into(),
            Family::V6 => self.host(index).v6().into(),
        }
    }

    /// The command of `weave launch` on host `index` with this password, or in clear, and these
    /// arguments alone.
    #[must_use]
    pub fn launch_command(&self, index: usize, password: Option<&str>, arguments: &[&str]) -> Command {
        // Few of these tests ask for names.
        let mut command = self.command(index, &["launch", "--no-dns"]);
        if let Some(password) = password {
            let file = self.host(index).directory().join("password");
            fs::write(&file, password).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            command.arg("--password-file").arg(file);
        }
        command.args(arguments);
        command
    }

    /// `weave launch` on host `index` with the options of this world, but for the password, and
    /// more arguments.
    pub fn launch_with(&self, index: usize, password: Option<&str>, more: &[&str]) -> Ran {
        let options = &self.options.hosts[index];
        let arguments: Vec<&str> =
            options.arguments.iter().map(String::as_str).chain(more.to_vec()).collect();
        let mut command = self.launch_command(index, password, &arguments);
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        self.run(index, &mut command)
    }

    /// `weave launch` on host `index` with the options of this world and more arguments.
    pub fn try_launch(&self, index: usize, more: &[&str]) -> Ran {
        self.launch_with(index, self.options.hosts[index].password.as_deref(), more)
    }

    /// The same; ends the test when it fails.
    #[track_caller]
    pub fn launch(&self, index: usize, more: &[&str]) {
        let ran = self.try_launch(index, more);
        assert_eq!(ran.code, Some(0), "launch on host {index}: {}", ran.stderr);
    }

    /// Launches the router of host `index` with other hosts to dial.
    #[track_caller]
    pub fn launch_to(&self, index: usize, targets: &[usize]) {
        let targets: Vec<String> = targets.iter().map(|target| self.underlay(*target).to_string()).collect();
        self.launch(index, &targets.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// `weave stop` on host `index`; waits until the process is gone.
    #[track_caller]
    pub fn stop(&self, index: usize) {
        let process = self.router(index);
        self.weave(index, &["stop"]).ok();
        await_end(&process);
    }

    /// Kills the router of host `index` with SIGKILL and waits until it is gone.
    #[track_caller]
    pub fn kill(&self, index: usize) {
        let process = self.router(index);
        process.signal(Signal::SIGKILL).unwrap();
        await_end(&process);
    }

    /// The process of the router of host `index`.
    #[track_caller]
    pub fn router(&self, index: usize) -> PidFd {
        let pid = self.status(index).pid;
        PidFd::open(pid).unwrap().expect("a router that just answered is gone")
    }

    /// What the router of host `index` says, or why it says nothing.
    ///
    /// # Errors
    /// When no router runs there or it does not answer in time.
    pub fn try_status(&self, index: usize) -> Result<Status, ClientError> {
        Client::connect(&self.host(index).run_dir(), ANSWER_WITHIN).and_then(|mut client| client.status())
    }

    /// What the router of host `index` says.
    #[track_caller]
    pub fn status(&self, index: usize) -> Status {
        self.try_status(index).unwrap_or_else(|error| panic!("status of host {index}: {error}"))
    }

    /// All names that host `index` knows.
    #[must_use]
    #[track_caller]
    pub fn names(&self, index: usize) -> Vec<NameEntry> {
        let asked = Client::connect(&self.host(index).run_dir(), ANSWER_WITHIN);
        let names = asked.and_then(|mut client| client.names());
        names.unwrap_or_else(|error| panic!("names of host {index}: {error}"))
    }

    /// The first established link of host `index`, if there is one.
    #[must_use]
    pub fn link(&self, index: usize) -> Option<Connection> {
        let links = self.try_status(index).ok()?.connections;
        links.into_iter().find(|link| link.state == ConnectionState::Established)
    }

    /// The link of host `index` to host `other`, by any of its addresses, or the attempt to make
    /// one.
    #[must_use]
    pub fn connection(&self, index: usize, other: usize) -> Option<Connection> {
        let addresses = self.host(other).seen_as().unwrap();
        let connections = self.try_status(index).ok()?.connections;
        connections.into_iter().find(|link| {
            let address = link.address.address(0).map(|address| address.ip());
            address.is_some_and(|address| addresses.contains(&address))
        })
    }

    /// True if host `index` has an established link to host `other`.
    #[must_use]
    pub fn is_established(&self, index: usize, other: usize) -> bool {
        self.connection(index, other).is_some_and(|link| link.state == ConnectionState::Established)
    }

    /// Waits until both hosts say that the link between them is established.
    #[track_caller]
    pub fn wait_linked(&self, one: usize, other: usize, limit: Duration) {
        wait_until(
            limit,
            || format!("no link between hosts {one} and {other}; {}", self.connections(&[one, other])),
            || self.is_established(one, other) && self.is_established(other, one),
        );
    }

    /// Waits until every host says that it has an established link.
    #[track_caller]
    pub fn wait_established(&self) {
        wait_until(
            LINK_WITHIN,
            || format!("a host has no link; {}", self.connections(&self.indices())),
            || self.indices().iter().all(|index| self.link(*index).is_some()),
        );
    }

    /// The connections of these hosts, for messages.
    #[must_use]
    pub fn connections(&self, hosts: &[usize]) -> String {
        let show = |host: &usize| {
            format!("host {host}: {:#?}", self.try_status(*host).map(|status| status.connections))
        };
        hosts.iter().map(show).collect::<Vec<_>>().join("\n")
    }

    /// Frames and datagrams dropped by the router of host `index` under `reason`, all shards.
    #[must_use]
    pub fn drops(&self, index: usize, reason: &str) -> u64 {
        drops(&self.status(index), reason)
    }

    /// A counter of the shards of host `index`, summed.
    #[must_use]
    pub fn counter(&self, index: usize, name: &str) -> u64 {
        let status = self.status(index);
        let known = |shard: &weave_api::status::Shard| *shard.counters.get(name).expect("no such counter");
        status.shards.iter().map(known).sum()
    }

    /// Names of all degraded states of host `index`, of the router and of its links.
    #[must_use]
    pub fn degraded(&self, index: usize) -> Vec<String> {
        let status = self.status(index);
        let of_links = status.connections.iter().flat_map(|link| &link.degraded);
        status.degraded.iter().chain(of_links).map(|degraded| degraded.name.clone()).collect()
    }
}

/// Drops under `reason` of all shards.
#[must_use]
pub fn drops(status: &Status, reason: &str) -> u64 {
    status.shards.iter().map(|shard| *shard.drops.get(reason).expect("no such reason to drop")).sum()
}

#[track_caller]
fn await_end(process: &PidFd) {
    let ended = process.wait_end(Instant::now() + COMMAND_WITHIN).unwrap();
    assert!(ended, "the router does not end");
}
