//! A bare forwarding program with a fixed key: `PROGRAM TAP LOCAL:PORT PEER:PORT [aes|null]`.

use std::path::PathBuf;

use super::Peer;
use crate::ab::error::Result;
use crate::ab::program;
use crate::ab::world::{ENDS, TUNNEL_MTU, World};

/// UDP port on both hosts.
const PORT: u16 = 6790;

/// Such a program, sealing or not.
#[derive(Debug)]
pub struct Spike {
    program: PathBuf,
    name: String,
    mode: &'static str,
}

/// The programs named on the command line, each with and without encryption.
pub fn named(programs: &[PathBuf]) -> Result<Vec<Box<dyn Peer>>> {
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for (index, program) in programs.iter().enumerate() {
        let program = program::named(program)?;
        let number = if index == 0 { String::new() } else { (index + 1).to_string() };
        for (mode, suffix) in [("null", "-clear"), ("aes", "")] {
            let name = format!("spike{number}{suffix}");
            peers.push(Box::new(Spike { program: program.clone(), name, mode }));
        }
    }
    Ok(peers)
}

impl Peer for Spike {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn description(&self) -> String {
        format!("{} {}", self.program.display(), self.mode)
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for end in ENDS {
            world.ip(end, "tuntap add dev tap0 mode tap vnet_hdr")?;
            world.ip(end, &format!("link set tap0 mtu {TUNNEL_MTU}"))?;
            world.join_bridge(end, "tap0")?;
            let program = self.program.to_string_lossy();
            let local = format!("{}:{PORT}", world.underlay(end));
            let remote = format!("{}:{PORT}", world.underlay(end.other()));
            pids.push(world.spawn(end, &[&program, "tap0", &local, &remote, self.mode])?);
        }
        Ok(pids)
    }
}
