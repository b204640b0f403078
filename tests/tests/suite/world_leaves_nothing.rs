//! However a test ends, its hosts, routers and files are gone afterwards.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weave_tests::{Engines, Options, World, wait_until};

/// How the test in the child process ends; also the variable that says so.
const ENDING: &str = "WEAVE_TESTS_ENDING";
/// How an ending begins of a test whose host has an engine.
const WITH_ENGINE: &str = "engine";
const MARK: &str = "lab: ";
const WITHIN: Duration = Duration::from_secs(20);

/// Not a test: what the tests below run as a process of its own, to end it.
#[test]
#[ignore = "run by the other tests of this file"]
fn a_test_that_ends() {
    let Ok(ending) = std::env::var(ENDING) else { return };
    if let Some(ending) = ending.strip_prefix(WITH_ENGINE) {
        let hosts = Engines::new(1, 0);
        hosts.launch();
        hosts.weave_run(0, "10.2.1.1/24");
        return end(ending.trim_start(), hosts.world());
    }
    end(&ending, &World::pair(Options::encrypted()));
}

fn end(ending: &str, world: &World) {
    println!("\n{MARK}{}", world.lab().directory().display());
    match ending {
        "ends" => {}
        "panics" => panic!("as it was told to"),
        _ => std::thread::sleep(Duration::from_secs(60)),
    }
}

/// Starts it and waits until both routers run.
#[expect(clippy::zombie_processes, reason = "the caller waits for it")]
fn start(ending: &str) -> (Child, BufReader<impl Read>, PathBuf) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "world_leaves_nothing::a_test_that_ends", "--nocapture"])
        .env(ENDING, ending)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it had a world");
        if let Some(directory) = line.trim().strip_prefix(MARK) {
            return (child, lines, directory.into());
        }
    }
}

/// Processes whose environment names a directory.
fn processes_of(directory: &Path) -> Vec<String> {
    let name = directory.display().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let belongs = |path: &Path| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&name)
    };
    entries.filter(|path| belongs(path)).map(|path| path.display().to_string()).collect()
}

fn leaves_nothing(ending: &str, signal: Option<Signal>, succeeds: bool) {
    let (mut child, _lines, directory) = start(ending);
    if let Some(signal) = signal {
        let processes = processes_of(&directory);
        let lines = processes.iter().map(|path| {
            let line = fs::read(Path::new(path).join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ")
        });
        let lines: Vec<String> = lines.collect();
        // A keeper may have a tool of the firewall at work.
        let daemons =
            lines.iter().filter(|line| line.contains("weave router") || line.contains("weave keeper"));
        let all = if ending.starts_with(WITH_ENGINE) { lines.len() > 4 } else { daemons.count() == 4 };
        assert!(all, "both routers and keepers run, or router, keeper and engine: {lines:#?}");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }
    wait_until(
        WITHIN,
        || format!("a test that {ending} does not end"),
        || child.try_wait().unwrap().is_some(),
    );
    assert_eq!(child.wait().unwrap().success(), succeeds);
    assert_eq!(processes_of(&directory), Vec::<String>::new(), "processes stay");
    assert!(!directory.exists(), "{} stays", directory.display());
    assert_eq!(control_groups_of(&directory), Vec::<PathBuf>::new(), "control groups stay");
}

/// Control groups called like a lab.
fn control_groups_of(directory: &Path) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    let all = hierarchies.chain([root.to_owned()]);
    let groups = all.map(|hierarchy| hierarchy.join(directory.file_name().unwrap()));
    groups.filter(|group| group.exists()).collect()
}

#[test]
fn a_test_that_succeeds() {
    leaves_nothing("ends", None, true);
}

#[test]
fn a_test_that_fails() {
    leaves_nothing("panics", None, false);
}

#[test]
fn a_test_that_takes_too_long_and_is_terminated() {
    leaves_nothing("hangs", Some(Signal::SIGTERM), false);
}

#[test]
fn a_test_with_an_engine_that_fails() {
    leaves_nothing("engine panics", None, false);
}

#[test]
fn a_test_with_an_engine_that_takes_too_long_and_is_terminated() {
    leaves_nothing("engine hangs", Some(Signal::SIGTERM), false);
}
