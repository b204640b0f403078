//! Hosts with a router and containers each, driven by `weave` as a user would.
//!
//! ```text
//! container ── host 0 (weave) ── eth0 ═══ eth0 ── host 1 (weave) ── container
//!                                  ╚═════ eth0 ── host 2 (weave) ── container
//! ```
//!
//! A [`World`] is built ready: the links are established and the containers are attached.
//! Dropping it removes everything, also when the test failed; the logs of all routers are shown
//! then.

mod addresses;
mod options;
mod routers;

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use weave_crypto::{Effort, Password};
use weave_host::Netlink;
use weave_perf::lab::{Container, Host, LIMIT_VARIABLE, Lab, LabOptions};
use weave_wire::MacAddr;

pub use addresses::{CONTAINERS_MAX, HOSTS_MAX, Spot, addresses, v4, v6};
pub use options::{Family, HostOptions, Launch, Options, PASSWORD};
pub use routers::drops;

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

/// Hosts, their routers and containers.
#[derive(Debug)]
pub struct World {
    /// Those of each host; first, so that they go before what they are in.
    containers: Vec<Vec<Container>>,
    lab: Lab,
    options: Options,
    program: PathBuf,
}

impl World {
    /// Builds hosts as `options` say.
    #[track_caller]
    pub fn new(options: Options) -> Self {
        clean_up_when_killed();
        let hosts = options.hosts.len();
        let (underlay, places) = (options.underlay, options.places.clone());
        let lab = Lab::new(&LabOptions { hosts, underlay, places, named: false, variables: variables() })
            .expect("these tests make network namespaces: run them as root");
        let container = |host, number| lab.container(&format!("container{host}-{number}")).unwrap();
        let of_host = |host| (0..options.containers).map(|number| container(host, number)).collect();
        let containers = (0..hosts).map(of_host).collect();
        let world = Self { containers, lab, options, program: weave() };
        for (index, targets) in &world.options.launches {
            world.launch_to(*index, targets);
        }
        if world.options.attach {
            for index in world.indices() {
                world.attach(index);
            }
        }
        if world.options.wait {
            world.wait_established();
            for (index, targets) in &world.options.launches {
                for target in targets {
                    world.wait_linked(*index, *target, LINK_WITHIN);
                }
            }
        }
        world
    }

    /// Builds two hosts as `options` say: the short form.
    #[track_caller]
    pub fn pair(options: Options) -> Self {
        assert_eq!(options.hosts.len(), 2, "a pair");
        Self::new(options)
    }

    /// The numbers of all hosts.
    #[must_use]
    pub fn indices(&self) -> Vec<usize> {
        (0..self.options.hosts.len()).collect()
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

    /// The first container on host `index`.
    #[must_use]
    pub fn container(&self, index: usize) -> &Container {
        self.container_at(Spot { host: index, number: 0 })
    }

    /// A container by its place.
    #[must_use]
    pub fn container_at(&self, spot: Spot) -> &Container {
        &self.containers[spot.host][spot.number]
    }

    /// All containers of host `index`.
    #[must_use]
    pub fn containers_of(&self, index: usize) -> &[Container] {
        &self.containers[index]
    }

    /// Runs `work` on a thread inside the first container of host `index`.
    pub fn inside<T: Send>(&self, index: usize, work: impl FnOnce() -> T + Send) -> T {
        self.container(index).run(work).unwrap()
    }

    /// Runs `work` on a thread inside host `index`.
    pub fn on_host<T: Send>(&self, index: usize, work: impl FnOnce() -> T + Send) -> T {
        self.host(index).run(work).unwrap()
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

    /// Runs another program in the first container of host `index` and ends the test when it fails.
    #[track_caller]
    pub fn tool_inside(&self, index: usize, line: &str) -> String {
        self.tool_in(self.container(index), line)
    }

    /// The same in any container.
    #[track_caller]
    pub fn tool_in(&self, container: &Container, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = container.run(|| Command::new(words[0]).args(&words[1..]).output().unwrap()).unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Changes how hosts are launched from now on.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Attaches the containers of host `index`, each with its two addresses.
    #[track_caller]
    pub fn attach(&self, index: usize) {
        for (number, container) in self.containers[index].iter().enumerate() {
            let spot = Spot { host: index, number };
            let cidrs = [format!("{}/24", spot.v4()), format!("{}/64", spot.v6())];
            self.weave(index, &["attach", &cidrs[0], &cidrs[1], container.spec()]).ok();
        }
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
            self.connections(&self.indices())
        );
    }

    /// The end of the log of the router of host `index`.
    #[must_use]
    pub fn log(&self, index: usize) -> String {
        let Ok(entries) = fs::read_dir(self.host(index).run_dir()) else { return String::new() };
        let logs = entries.flatten().map(|entry| entry.path());
        let mut text = String::new();
        for path in logs.filter(|path| path.extension().is_some_and(|end| end == "log")) {
            text += &String::from_utf8_lossy(&fs::read(path).unwrap_or_default());
        }
        let start = text.len().saturating_sub(LOG_SHOWN);
        text.get(start..).unwrap_or(&text).to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for index in self.indices() {
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

/// The lines of `weave ps` but that of the host itself, without the last end of line.
#[must_use]
pub fn of_containers(listed: &str) -> String {
    let lines: Vec<&str> = listed.lines().filter(|line| !line.starts_with("weave:expose ")).collect();
    lines.join("\n")
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

/// Whether the executable under test is a release, whose figures count: the one that is built beside a
/// test is slower by far, and checks itself.
#[must_use]
pub fn is_release() -> bool {
    std::env::var_os("WEAVE_BIN").is_some()
}

/// Whether passwords are stretched with next to no effort: nothing of a release is weakened, and where
/// memory is limited all that a launch takes is to fit in.
fn is_password_cheap() -> bool {
    !is_release() && std::env::var_os(LIMIT_VARIABLE).is_none()
}

/// Those of all commands in the hosts.
fn variables() -> &'static [(&'static str, &'static str)] {
    if is_password_cheap() { &[("WEAVE_TEST_CHEAP_PASSWORD", "1")] } else { &[] }
}

/// A password, as the routers under test stretch it.
#[must_use]
pub fn stretched(password: &str) -> Password {
    let effort = if is_password_cheap() { Effort::None } else { Effort::Full };
    Password::stretch(password.as_bytes(), effort).unwrap()
}

/// A test that takes too long gets SIGTERM: its routers have sessions of their own and would stay.
fn clean_up_when_killed() {
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
