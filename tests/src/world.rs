//! Two hosts with a router and a container each, driven by `weave` as a user would.
//!
//! ```text
//! container 0 ── host 0 (weave) ── eth0 ═══ eth0 ── host 1 (weave) ── container 1
//! ```
//!
//! A [`World`] is built ready: the link is established and the containers are attached. Dropping
//! it removes everything, also when the test failed; the logs of both routers are shown then.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weave_api::status::{Connection, ConnectionState, Status};
use weave_api::{Client, ClientError};
use weave_host::{Netlink, PidFd};
use weave_perf::lab::{Container, Host, Lab, LabOptions, Underlay};
use weave_wire::MacAddr;

/// Password of an encrypted world, unless another is asked for.
pub const PASSWORD: &str = "correct horse battery staple";
/// Name of the interface in a container.
pub const INTERFACE: &str = "ethwe";
/// Longest any command of `weave` may take on a busy machine.
pub const COMMAND_WITHIN: Duration = Duration::from_secs(40);
/// Time for a link to be established on a busy machine.
pub const LINK_WITHIN: Duration = Duration::from_secs(20);
/// Time for a router to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often a state without an event is asked for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How much of a log is shown, bytes.
const LOG_SHOWN: usize = 20_000;

/// The family of addresses that the routers reach each other by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How to build a [`World`].
#[derive(Debug, Clone)]
pub struct Options {
    /// The network between the hosts.
    pub underlay: Underlay,
    /// By which family host 1 dials host 0.
    pub family: Family,
    /// Password of each host; `None`: a clear network.
    pub passwords: [Option<String>; 2],
    /// More arguments of each `weave launch`.
    pub arguments: [Vec<String>; 2],
    /// More variables of each `weave launch`.
    pub environment: [Vec<(String, String)>; 2],
    /// Launch the routers; host 1 dials host 0.
    pub launch: bool,
    /// Attach the containers.
    pub attach: bool,
    /// Wait until the link is established at both ends.
    pub wait: bool,
}

impl Options {
    /// An encrypted network over IPv4, everything else as usual.
    #[must_use]
    pub fn encrypted() -> Self {
        Self {
            underlay: Underlay::default(),
            family: Family::V4,
            passwords: [Some(PASSWORD.into()), Some(PASSWORD.into())],
            arguments: [vec![], vec![]],
            environment: [vec![], vec![]],
            launch: true,
            attach: true,
            wait: true,
        }
    }

    /// The same without a password.
    #[must_use]
    pub fn clear() -> Self {
        Self { passwords: [None, None], ..Self::encrypted() }
    }

    /// Adds arguments, separated by blanks, to both launches.
    #[must_use]
    pub fn args(mut self, arguments: &str) -> Self {
        for list in &mut self.arguments {
            list.extend(arguments.split_whitespace().map(str::to_owned));
        }
        self
    }

    /// Adds arguments, separated by blanks, to the launch of one host.
    #[must_use]
    pub fn args_of(mut self, host: usize, arguments: &str) -> Self {
        self.arguments[host].extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    /// Sets a variable for both launches.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        self.env_of(0, name, value).env_of(1, name, value)
    }

    /// Sets a variable for the launch of one host.
    #[must_use]
    pub fn env_of(mut self, host: usize, name: &str, value: &str) -> Self {
        self.environment[host].push((name.to_owned(), value.to_owned()));
        self
    }

    /// By which family host 1 dials host 0.
    #[must_use]
    pub fn family(self, family: Family) -> Self {
        Self { family, ..self }
    }

    /// The network between the hosts.
    #[must_use]
    pub fn underlay(self, underlay: Underlay) -> Self {
        Self { underlay, ..self }
    }

    /// Launches nothing: the test does.
    #[must_use]
    pub fn not_launched(self) -> Self {
        Self { launch: false, wait: false, ..self }
    }

    /// Does not wait for the link: the test does, or none is to come.
    #[must_use]
    pub fn no_wait(self) -> Self {
        Self { wait: false, ..self }
    }
}

/// What a command line came to.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; `None`: a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Ends the test when the command failed.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// Two hosts, their routers and containers.
#[derive(Debug)]
pub struct World {
    /// First, so that they go before what they are in.
    containers: [Container; 2],
    lab: Lab,
    options: Options,
    program: PathBuf,
}

impl World {
    /// Builds two hosts as `options` say.
    #[track_caller]
    pub fn pair(options: Options) -> Self {
        clean_up_when_killed();
        let lab = Lab::new(&LabOptions { hosts: 2, underlay: options.underlay, named: false })
            .expect("these tests make network namespaces: run them as root");
        let containers = [0, 1].map(|i| lab.container(&format!("container{i}")).unwrap());
        let world = Self { containers, lab, options, program: weave() };
        if world.options.launch {
            world.launch(0, &[]);
            world.launch(1, &[&world.underlay(0).to_string()]);
        }
        if world.options.attach {
            for index in [0, 1] {
                world.attach(index);
            }
        }
        if world.options.wait {
            world.wait_established();
        }
        world
    }

    /// The simulated hosts.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Host `index`, counted from 0.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        self.lab.host(index)
    }

    /// The container on host `index`.
    #[must_use]
    pub fn container(&self, index: usize) -> &Container {
        &self.containers[index]
    }

    /// Runs `work` on a thread inside the container of host `index`.
    pub fn inside<T: Send>(&self, index: usize, work: impl FnOnce() -> T + Send) -> T {
        self.container(index).run(work).unwrap()
    }

    /// Runs `work` on a thread inside host `index`.
    pub fn on_host<T: Send>(&self, index: usize, work: impl FnOnce() -> T + Send) -> T {
        self.host(index).run(work).unwrap()
    }

    /// The address of host `index` that the other one dials.
    #[must_use]
    pub fn underlay(&self, index: usize) -> IpAddr {
        match self.options.family {
            Family::V4 => self.host(index).v4().into(),
            Family::V6 => self.host(index).v6().into(),
        }
    }

    /// `weave` on host `index`, to be run or spawned there.
    #[must_use]
    pub fn command(&self, index: usize, arguments: &[&str]) -> Command {
        let mut command = self.host(index).command(&self.program);
        command.args(arguments);
        command
    }

    /// Runs a command on host `index` to its end.
    pub fn run(&self, index: usize, command: &mut Command) -> Ran {
        let output = self.host(index).output(command, COMMAND_WITHIN).unwrap();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `weave` with `arguments` on host `index`.
    pub fn weave(&self, index: usize, arguments: &[&str]) -> Ran {
        self.run(index, &mut self.command(index, arguments))
    }

    /// Runs another program on host `index` and ends the test when it fails.
    #[track_caller]
    pub fn tool(&self, index: usize, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.host(index).command(words.next().unwrap());
        command.args(words);
        let ran = self.run(index, &mut command);
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.stderr);
        ran.stdout
    }

    /// Runs another program in the container of host `index` and ends the test when it fails.
    #[track_caller]
    pub fn tool_inside(&self, index: usize, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = self.inside(index, || Command::new(words[0]).args(&words[1..]).output().unwrap());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `weave launch` on host `index` with the options of this world and more arguments.
    pub fn try_launch(&self, index: usize, more: &[&str]) -> Ran {
        let mut command = self.command(index, &["launch"]);
        if let Some(password) = &self.options.passwords[index] {
            let file = self.host(index).directory().join("password");
            fs::write(&file, password).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            command.arg("--password-file").arg(file);
        }
        command.args(&self.options.arguments[index]).args(more);
        command.envs(self.options.environment[index].iter().map(|(name, value)| (name, value)));
        self.run(index, &mut command)
    }

    /// The same; ends the test when it fails.
    #[track_caller]
    pub fn launch(&self, index: usize, more: &[&str]) {
        let ran = self.try_launch(index, more);
        assert_eq!(ran.code, Some(0), "launch on host {index}: {}", ran.stderr);
    }

    /// Changes how host `index` is launched from now on.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Attaches the container of host `index` with its two addresses.
    #[track_caller]
    pub fn attach(&self, index: usize) {
        let cidrs = [format!("{}/24", v4(index)), format!("{}/64", v6(index))];
        self.weave(index, &["attach", &cidrs[0], &cidrs[1], self.container(index).spec()]).ok();
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

    /// The established link of host `index`, if it is.
    #[must_use]
    pub fn link(&self, index: usize) -> Option<Connection> {
        let links = self.try_status(index).ok()?.connections;
        links.into_iter().find(|link| link.state == ConnectionState::Established)
    }

    /// Waits until both ends say that the link is established.
    #[track_caller]
    pub fn wait_established(&self) {
        wait_until(
            LINK_WITHIN,
            || format!("the link is not established; {}", self.connections()),
            || [0, 1].iter().all(|index| self.link(*index).is_some()),
        );
    }

    fn connections(&self) -> String {
        let seen = [0, 1].map(|index| self.try_status(index).map(|status| status.connections));
        format!("{seen:#?}")
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

    /// The MAC of the container of host `index`.
    #[must_use]
    pub fn mac(&self, index: usize) -> MacAddr {
        let mut netlink = Netlink::in_namespace(self.container(index).namespace()).unwrap();
        netlink.expect_link(INTERFACE).unwrap().mac.unwrap()
    }

    /// Waits until the container of host `from` can ping `address`.
    #[track_caller]
    pub fn wait_ping(&self, from: usize, address: IpAddr, limit: Duration) {
        let reached =
            self.inside(from, || weave_perf::traffic::icmp::wait_reachable(address, limit)).unwrap();
        assert!(
            reached,
            "container {from} gets no answer from {address} within {limit:?}; {}",
            self.connections()
        );
    }

    /// The end of the log of the router of host `index`.
    #[must_use]
    pub fn log(&self, index: usize) -> String {
        log_of(self.host(index))
    }
}

/// The end of the log of the router of `host`.
pub(crate) fn log_of(host: &Host) -> String {
    let Ok(entries) = fs::read_dir(host.run_dir()) else { return String::new() };
    let logs = entries.flatten().map(|entry| entry.path());
    let mut text = String::new();
    for path in logs.filter(|path| path.extension().is_some_and(|end| end == "log")) {
        text += &String::from_utf8_lossy(&fs::read(path).unwrap_or_default());
    }
    let start = text.len().saturating_sub(LOG_SHOWN);
    text.get(start..).unwrap_or(&text).to_owned()
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for index in [0, 1] {
                eprintln!("---- log of host {index} ----\n{}", self.log(index));
                if let Ok(status) = self.try_status(index) {
                    let drops: Vec<_> = status.shards.iter().map(|shard| Nonzero(&shard.drops)).collect();
                    eprintln!("degraded: {:?}\ndropped: {drops:?}", status.degraded);
                }
            }
        }
    }
}

/// Shows of a list of counters those that are not 0.
struct Nonzero<'a>(&'a std::collections::BTreeMap<String, u64>);

impl fmt::Debug for Nonzero<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().filter(|(_, value)| **value > 0)).finish()
    }
}

/// Drops under `reason` of all shards.
#[must_use]
pub fn drops(status: &Status, reason: &str) -> u64 {
    status.shards.iter().map(|shard| *shard.drops.get(reason).expect("no such reason to drop")).sum()
}

/// The IPv4 address of the container on host `index`.
#[must_use]
pub fn v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 32, 1, 1 + index as u8)
}

/// The IPv6 address of the container on host `index`.
#[must_use]
pub fn v6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd32, 0, 0, 1, 0, 0, 0, 1 + index as u16)
}

/// Both addresses of the container on host `index`.
#[must_use]
pub fn addresses(index: usize) -> [IpAddr; 2] {
    [v4(index).into(), v6(index).into()]
}

/// Asks every 20 ms until `holds` is true; ends the test with `what` after `limit`.
#[track_caller]
pub fn wait_until(limit: Duration, what: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {}", what());
        std::thread::sleep(ASK_EVERY);
    }
}

#[track_caller]
pub(crate) fn await_end(process: &PidFd) {
    let ended = process.wait_end(Instant::now() + COMMAND_WITHIN).unwrap();
    assert!(ended, "the router does not end");
}

/// The executable under test: `WEAVE_BIN`, or the one that was built beside this test.
#[must_use]
pub fn weave() -> PathBuf {
    if let Some(program) = std::env::var_os("WEAVE_BIN") {
        return program.into();
    }
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/TEST-HASH
    let program = test.parent().and_then(|deps| deps.parent()).unwrap().join("weave");
    assert!(program.is_file(), "{} is missing: run `cargo build -p weave` first", program.display());
    program
}

/// A test that takes too long gets SIGTERM: its routers have sessions of their own and would stay.
pub(crate) fn clean_up_when_killed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]).unwrap();
        std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                weave_perf::lab::cleanup();
                std::process::exit(101);
            }
        });
    });
}
