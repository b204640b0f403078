//! This router, driven by its own command line as a user would.

use std::path::{Path, PathBuf};

use super::Peer;
use super::spike::absolute;
use crate::ab::command::find_program;
use crate::ab::error::{Error, Result};
use crate::ab::world::{ENDS, End, Layer, World};

/// Password of the encrypted network. It guards nothing: the network is gone in a minute.
const PASSWORD: &str = "measured in a namespace of its own\n";

/// One build of `weave`, encrypting or not.
#[derive(Debug)]
pub struct Weave {
    program: PathBuf,
    name: String,
    encrypted: bool,
}

/// The builds named on the command line; none named: the one beside this program or in `PATH`.
pub fn installed(named: &[PathBuf]) -> Result<Vec<Box<dyn Peer>>> {
    let found: Vec<PathBuf> = if named.is_empty() {
        beside_this_program().or_else(|| find_program("weave")).into_iter().collect()
    } else {
        named.iter().map(|program| absolute(program)).collect::<Result<_>>()?
    };
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for (index, program) in found.into_iter().enumerate() {
        let number = if index == 0 { String::new() } else { (index + 1).to_string() };
        for (encrypted, suffix) in [(false, "-clear"), (true, "")] {
            let name = format!("weave{number}{suffix}");
            peers.push(Box::new(Weave { program: program.clone(), name, encrypted }));
        }
    }
    Ok(peers)
}

fn beside_this_program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    Some(own.with_file_name("weave")).filter(|program| program.is_file())
}

impl Weave {
    /// Runs `weave` in a host that has directories of its own.
    fn weave(&self, world: &World, end: End, arguments: &[&str]) -> Result<String> {
        let directory = world.directory(end)?;
        let run = format!("WEAVE_RUN_DIR={}", run_directory(&directory).display());
        let state = format!("WEAVE_STATE_DIR={}", directory.join("state").display());
        let program = self.program.to_string_lossy();
        let mut line = vec!["env", "-u", "WEAVE_PASSWORD", &run, &state, &program];
        line.extend(arguments);
        world.run(end, &line)
    }

    fn launch(&self, world: &World, end: End) -> Result<()> {
        let mut line = vec!["launch"];
        let password = world.write(end, "password", PASSWORD)?.to_string_lossy().into_owned();
        if self.encrypted {
            line.extend(["--password-file", &password]);
        }
        let peer = end.other().underlay().to_string();
        if end == End::A {
            line.push(&peer);
        }
        self.weave(world, end, &line).map(drop)
    }
}

impl Peer for Weave {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn description(&self) -> String {
        let protection = if self.encrypted { "AES-256-GCM" } else { "clear" };
        format!("{}, {protection}", self.program.display())
    }

    fn layer(&self) -> Layer {
        Layer::Own
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for end in [End::B, End::A] {
            self.launch(world, end)?;
            pids.push(router_pid(&world.directory(end)?)?);
        }
        for end in ENDS {
            let address = format!("{}/24", end.container(Layer::Own));
            let container = format!("netns:{}", world.container(end));
            self.weave(world, end, &["attach", &address, &container])?;
        }
        Ok(pids)
    }

    fn stop(&self, world: &World) {
        for end in ENDS {
            // A router that does not stop is killed with its namespace.
            let _ = self.weave(world, end, &["stop"]);
        }
    }
}

fn run_directory(host: &Path) -> PathBuf {
    host.join("run")
}

fn router_pid(host: &Path) -> Result<u32> {
    let file = run_directory(host).join("router.pid");
    let text = std::fs::read_to_string(&file).map_err(|e| Error::file("read", &file, e))?;
    text.trim().parse().map_err(|_| {
        let cause = std::io::Error::from(std::io::ErrorKind::InvalidData);
        Error::file("find a process number in", &file, cause)
    })
}
