//! Commands killed between two steps: the same command once more gives the state that was wanted.
//! Commands of which one step fails: they leave the state that was before.
//! The executable has such points in test builds only (`weave_host::failpoint`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use weave_api::keeper::Keeper;
use weave_host::{Namespace, Netlink};
use weave_tests::random::Random;
use weave_tests::{Options, Ran, World, wait_until};

/// Time for the keeper to put right what it watches.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
/// Draws for each kill: a command passes fewer points when less is to do.
const DRAWS: u64 = 20;

/// A command, and what makes the state that it begins in.
struct Case {
    /// Run first, in this order; `C` and `D` are the two containers.
    before: &'static [&'static str],
    command: &'static str,
}

/// A router runs, and container C has an address.
const ATTACHED: [&str; 2] = ["launch", "attach 10.2.1.1/24 C"];
/// A router runs, and the host has an address.
const EXPOSED: [&str; 2] = ["launch", "expose 10.2.9.1/24"];

const CASES: [Case; 10] = [
    Case { before: &ATTACHED, command: "attach 10.2.1.2/24 10.2.2.2/24 fd00:2::2/64 D" },
    Case { before: &ATTACHED, command: "attach 10.2.3.1/24 fd00:3::1/64 C" },
    Case { before: &ATTACHED, command: "detach 10.2.1.1/24 C" },
    Case {
        before: &["launch", "attach 10.2.1.1/24 10.2.1.9/24 10.2.2.1/24 C"],
        command: "detach 10.2.1.1/24 10.2.2.1/24 C",
    },
    Case { before: &EXPOSED, command: "expose 10.2.8.1/24 fd00:8::1/64" },
    Case { before: &EXPOSED, command: "hide 10.2.9.1/24" },
    Case { before: &ATTACHED, command: "connect 192.0.2.7 192.0.2.8" },
    Case { before: &["launch", "attach 10.2.1.1/24 C", "expose 10.2.9.1/24"], command: "reset" },
    // Without a router, on a host that has nothing of weave yet.
    Case { before: &[], command: "attach 10.2.1.1/24 fd00:1::1/64 C" },
    Case { before: &[], command: "expose 10.2.9.1/24" },
];

/// One host with two containers.
struct Bench {
    world: World,
    random: Random,
}

impl Bench {
    fn new() -> Self {
        let options = Options::clear().count(1).containers(2).not_launched().not_attached();
        Self { world: World::new(options), random: Random::from_environment() }
    }

    fn words(&self, line: &str) -> Vec<String> {
        let containers = self.world.containers_of(0);
        let word = |word: &str| match word {
            "C" => containers[0].spec().to_owned(),
            "D" => containers[1].spec().to_owned(),
            other => other.to_owned(),
        };
        line.split(' ').map(word).collect()
    }

    #[track_caller]
    fn run(&self, line: &str) {
        let words = self.words(line);
        self.world.weave(0, &words.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    }

    /// Runs a command with a point to die at; the points that it passed and whether it died.
    fn run_to(&self, line: &str, point: u64) -> (Vec<String>, bool) {
        let (points, ran) = self.run_with(line, &point.to_string());
        let died = ran.code.is_none();
        assert!(died || ran.code == Some(0), "{line}: {ran:?}");
        (points, died)
    }

    /// Runs a command with a point at which something is done; the points that it passed.
    fn run_with(&self, line: &str, point: &str) -> (Vec<String>, Ran) {
        let words = self.words(line);
        let log = self.world.host(0).directory().join("points");
        let mut command = self.world.command(0, &words.iter().map(String::as_str).collect::<Vec<_>>());
        command.env("WEAVE_FAILPOINT", format!("{}:{point}", words[0])).env("WEAVE_FAILPOINT_LOG", &log);
        let ran = self.world.run(0, &mut command);
        let points = fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect();
        let _ = fs::remove_file(&log);
        (points, ran)
    }

    #[track_caller]
    fn prepare(&self, case: &Case) {
        self.run("reset");
        for line in case.before {
            self.run(line);
        }
    }

    /// One that `expose` started says so a moment later, by files of its own.
    fn wait_for_keeper(&self) {
        let host = self.world.host(0);
        if host.state_dir().join("exposed").exists() {
            let tells = || matches!(weave_api::keeper::look(&host.run_dir()), Ok(Keeper::Tells(_)));
            wait_until(SETTLES_WITHIN, || format!("no keeper: {}", self.world.log(0)), tells);
        }
    }

    /// All that commands change: interfaces and addresses of host and containers, rules, files.
    fn observed(&self) -> Vec<String> {
        let host = self.world.host(0);
        let mut seen = interfaces("host", host.namespace());
        for (name, container) in ["C", "D"].into_iter().zip(self.world.containers_of(0)) {
            seen.extend(interfaces(name, container.namespace()));
            let mut routes: Vec<String> = ["-4", "-6"]
                .into_iter()
                .flat_map(|family| {
                    let line = format!("ip {family} route show table all type unicast");
                    let routes = self.world.tool_in(container, &line);
                    routes.lines().map(|line| format!("{name}: {}", line.trim())).collect::<Vec<_>>()
                })
                .collect();
            routes.sort();
            seen.extend(routes);
            // Of an interface that is there: the keeper may be about to take it.
            let ipv6 = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/ethwe/disable_ipv6");
            let ipv6 = container.run(ipv6).unwrap().unwrap_or_default();
            seen.push(format!("{name}: IPv6 off: {}", ipv6.trim()));
        }
        // Counters and handles differ from run to run.
        for line in [
            "iptables -S",
            "iptables -t nat -S",
            "iptables -t raw -S",
            "ip6tables -S",
            "ip6tables -t nat -S",
            "ip6tables -t raw -S",
            "cat /proc/sys/net/ipv4/ip_forward",
        ] {
            seen.extend(self.world.tool(0, line).lines().map(|rule| format!("{line}: {rule}")));
        }
        // Those of iptables come with who looks at them.
        let tables = self.world.tool(0, "nft list tables");
        seen.extend(tables.lines().filter(|table| table.ends_with(" weave")).map(str::to_owned));
        if let Ok(status) = self.world.try_status(0) {
            seen.extend(status.targets.iter().map(|target| format!("target {}", target.target)));
        }
        let mut files = BTreeMap::new();
        collect(&host.state_dir(), &mut files);
        collect(&host.run_dir(), &mut files);
        seen.extend(files.into_iter().map(|(path, content)| format!("{path}: {content}")));
        seen
    }

    /// What is left when each case is killed nowhere, and how many points it passes.
    fn expected(&self, cases: &[usize]) -> BTreeMap<usize, (Vec<String>, u64)> {
        let expected = |case: &usize| {
            self.prepare(&CASES[*case]);
            let (points, _) = self.run_to(CASES[*case].command, u64::MAX);
            assert!(!points.is_empty(), "this executable has no failpoints: build the whole workspace");
            self.wait_for_keeper();
            (*case, (self.observed(), points.len() as u64))
        };
        cases.iter().map(expected).collect()
    }

    /// Kills these cases in turn, `kills` times in all.
    fn kill(&mut self, cases: &[usize], kills: usize) {
        let expected = self.expected(cases);
        for kill in 0..kills {
            let number = cases[kill % cases.len()];
            let (case, (wanted, count)) = (&CASES[number], &expected[&number]);
            let mut points = Vec::new();
            for draw in 0.. {
                assert!(draw < DRAWS, "{} is never killed", case.command);
                self.prepare(case);
                let point = self.random.below(*count) + 1;
                let died;
                (points, died) = self.run_to(case.command, point);
                if died {
                    break;
                }
            }
            self.run(case.command);
            let said = || {
                let differing = |line: &&String, other: &[String]| !other.contains(line);
                let now = self.observed();
                let more: Vec<_> = now.iter().filter(|line| differing(line, wanted)).collect();
                let less: Vec<_> = wanted.iter().filter(|line| differing(line, &now)).collect();
                let what = format!("{}, killed after {points:?}", case.command);
                if more.is_empty() && less.is_empty() {
                    return format!("{what}: in another order, or more than once: {now:#?}");
                }
                format!("{what}: too much {more:#?}, missing {less:#?}")
            };
            wait_until(SETTLES_WITHIN, said, || self.observed() == *wanted);
        }
    }
}

/// Commands that leave the state as it was when a step of theirs fails.
const UNDONE: [usize; 5] = [0, 1, 4, 8, 9];

impl Bench {
    /// Has the step at each of these points of a case fail.
    fn fail(&self, case: &Case, points: impl IntoIterator<Item = u64>) {
        let mut failed = 0;
        let settled = |what: &str, wanted: &[String], named: &[String]| {
            let said = || {
                let now = self.observed();
                let more: Vec<_> = now.iter().filter(|line| !wanted.contains(line)).collect();
                let less: Vec<_> = wanted.iter().filter(|line| !now.contains(line)).collect();
                format!("{}, {what} {named:?}: too much {more:#?}, missing {less:#?}", case.command)
            };
            wait_until(SETTLES_WITHIN, said, || self.observed() == *wanted);
        };
        self.prepare(case);
        self.run(case.command);
        self.wait_for_keeper();
        let wanted = self.observed();
        for point in points {
            self.prepare(case);
            self.wait_for_keeper();
            let before = self.observed();
            let (points, ran) = self.run_with(case.command, &format!("{point}:fail"));
            let named = points.get(usize::try_from(point).unwrap() - 1..).unwrap_or_default();
            match ran.code {
                // Not a step that may fail, or one without which it goes on.
                Some(0) => settled("without", &wanted, named),
                Some(1) => {
                    failed += 1;
                    assert!(ran.stderr.contains("a test has it fail"), "{ran:?}");
                    settled("failed at", &before, named);
                }
                _ => panic!("{}: {ran:?}", case.command),
            }
        }
        assert!(failed > 0, "{} never failed", case.command);
    }

    fn count_points(&self, case: &Case) -> u64 {
        self.prepare(case);
        self.run_to(case.command, u64::MAX).0.len() as u64
    }
}

#[test]
fn long_a_step_that_fails_leaves_the_state_as_it_was() {
    let mut bench = Bench::new();
    for number in UNDONE {
        let case = &CASES[number];
        let count = bench.count_points(case);
        let drawn: Vec<u64> = (0..2).map(|_| bench.random.below(count) + 1).collect();
        // One of them may fail for certain: that which writes the first file.
        bench.fail(case, drawn.into_iter().chain([1]));
    }
}

#[test]
fn long_any_step_that_fails_leaves_the_state_as_it_was() {
    let bench = Bench::new();
    for number in UNDONE {
        let case = &CASES[number];
        bench.fail(case, 1..=bench.count_points(case));
    }
}

fn interfaces(place: &str, namespace: &Namespace) -> Vec<String> {
    let mut netlink = Netlink::in_namespace(namespace).unwrap();
    let links = netlink.links().unwrap();
    let name_of = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let mut seen: Vec<String> = Vec::new();
    for link in &links {
        let controller = link.controller.and_then(name_of);
        seen.push(format!("{place}: {} {} {} {} {controller:?}", link.name, link.kind, link.mtu, link.up));
    }
    // The kernel makes link-local ones from the MAC.
    for address in netlink.addresses().unwrap().into_iter().filter(|address| !address.link_local) {
        seen.push(format!("{place}: {:?} {}", name_of(address.index), address.cidr));
    }
    seen.sort();
    seen
}

/// Files with their content, but for what differs in each run: MACs, keys, logs, numbers.
fn collect(path: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            files.insert(path.display().to_string(), String::new());
            collect(&path, files);
            continue;
        }
        // It is written anew every few seconds.
        if name == "keeper.tmp" {
            continue;
        }
        let differs = ["identity", "runs", ".log", ".pid", ".sock", "keeper.json"]
            .iter()
            .any(|part| name.contains(part));
        let text = if differs { String::new() } else { fs::read_to_string(&path).unwrap_or_default() };
        let text: String = text.lines().filter(|line| !line.contains("\"mac\"")).collect();
        files.insert(path.display().to_string(), text);
    }
}

#[test]
fn an_attachment_killed_anywhere_is_completed_by_the_same_command() {
    Bench::new().kill(&[0, 1, 2, 3, 8], 7);
}

#[test]
fn what_a_killed_attach_or_detach_left_is_finished_or_undone_by_the_keeper() {
    let mut bench = Bench::new();
    let cases = [0, 1, 2, 3];
    let expected = bench.expected(&cases);
    for number in cases.repeat(3) {
        let (case, (wanted, count)) = (&CASES[number], &expected[&number]);
        bench.prepare(case);
        let before = bench.observed();
        let point = bench.random.below(*count) + 1;
        let (points, _) = bench.run_to(case.command, point);
        // Has the keeper look at once, not within half a minute.
        bench.world.tool(0, "ip link set weave-tap nomaster");
        let said = || {
            let now = bench.observed();
            let other: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
            format!("{}, killed after {points:?}: beside what was before {other:#?}", case.command)
        };
        let is_whole = |mut now: Vec<String>| {
            // What was being written: the next write takes it, or a reset.
            now.retain(|line| !line.contains(".json.tmp: "));
            now == before || now == *wanted
        };
        wait_until(SETTLES_WITHIN, said, || is_whole(bench.observed()));
    }
}

#[test]
fn an_exposure_killed_anywhere_is_completed_by_the_same_command() {
    Bench::new().kill(&[4, 5, 9], 6);
}

#[test]
fn a_connect_or_reset_killed_anywhere_is_completed_by_the_same_command() {
    Bench::new().kill(&[6, 7], 7);
}

#[test]
fn long_whatever_is_killed_anywhere_is_completed_by_the_same_command() {
    Bench::new().kill(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 200);
}

#[test]
fn a_reset_leaves_the_host_as_it_was_before_all_commands() {
    let bench = Bench::new();
    let before = bench.observed();
    bench.prepare(&CASES[0]);
    bench.run(CASES[0].command);
    bench.run("reset");
    let left: Vec<String> = bench.observed().into_iter().filter(|line| !before.contains(line)).collect();
    assert_eq!(left, Vec::<String>::new());
}
