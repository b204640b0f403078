//! `weave demo` leaves nothing when it is interrupted. What it shows is tested with all else that
//! runs real routers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use common::World;
use rustix::process::{Pid, Signal, kill_process};

/// A started demonstration whose files all lie in a directory of this test.
struct Demo {
    world: World,
    child: Child,
}

impl Demo {
    fn start() -> Self {
        let world = World::new();
        std::fs::create_dir(world.path("temporary")).unwrap();
        let mut command = world.weave(["demo"]);
        command.env("TMPDIR", world.path("temporary")).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = world.namespace.run(|| command.spawn()).unwrap().unwrap();
        Self { world, child }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end and asserts that nothing is left.
    fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let left: Vec<_> = std::fs::read_dir(self.world.path("temporary")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(processes_of(&self.world), Vec::<String>::new());
        (code, stderr)
    }
}

/// Processes that have a path of this test in their environment.
fn processes_of(world: &World) -> Vec<String> {
    let mark = world.directory.path().display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let is_ours = |path: &std::path::Path| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&mark)
    };
    entries
        .map(|entry| entry.path())
        .filter(|path| is_ours(path))
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn an_interrupted_demonstration_leaves_nothing() {
    for (signal, code, after) in [
        (Signal::INT, 130, "weave"),
        (Signal::INT, 130, "hosts"),
        (Signal::TERM, 143, "containers"),
        (Signal::HUP, 129, "hosts"),
    ] {
        let mut demo = Demo::start();
        let mut lines = BufReader::new(demo.child.stdout.take().unwrap()).lines();
        while !lines.next().unwrap().unwrap().trim_start().starts_with(after) {}
        demo.signal(signal);
        assert_eq!(demo.ended(), (Some(code), String::new()), "{after}");
    }
}
