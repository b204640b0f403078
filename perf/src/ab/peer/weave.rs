//! This router, driven by its own command line as a user would.

use std::path::PathBuf;

use super::Peer;
use crate::ab::error::{Error, Result};
use crate::ab::program;
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
        program::beside_this_program("weave").or_else(|| program::find("weave")).into_iter().collect()
    } else {
        named.iter().map(|program| program::named(program)).collect::<Result<_>>()?
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

impl Weave {
    /// Runs `weave` in a host, which has directories of its own for it.
    fn weave(&self, world: &World, end: End, arguments: &[&str]) -> Result<String> {
        let program = self.program.to_string_lossy();
        world.run(end, &[&[&*program], arguments].concat())
    }

    fn launch(&self, world: &World, end: End) -> Result<()> {
        let mut line = vec!["launch", "--no-dns"];
        let password = world.write(end, "password", PASSWORD)?.to_string_lossy().into_owned();
        if self.encrypted {
            line.extend(["--password-file", &password]);
        }
        let peer = world.underlay(end.other()).to_string();
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
            pids.push(router_pid(world, end)?);
        }
        for end in ENDS {
            let address = format!("{}/24", end.container(Layer::Own));
            self.weave(world, end, &["attach", &address, world.container(end).spec()])?;
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

fn router_pid(world: &World, end: End) -> Result<u32> {
    let file = world.host(end).run_dir().join("router.pid");
    let text = std::fs::read_to_string(&file).map_err(|e| Error::file("read", &file, e))?;
    text.trim().parse().map_err(|_| {
        let cause = std::io::Error::from(std::io::ErrorKind::InvalidData);
        Error::file("find a process number in", &file, cause)
    })
}
