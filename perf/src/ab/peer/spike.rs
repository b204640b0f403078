//! A bare forwarding program with a fixed key: `PROGRAM TAP LOCAL:PORT PEER:PORT [aes|null]`.

use std::path::{Path, PathBuf};

use super::Peer;
use crate::ab::command::ip;
use crate::ab::error::{Error, Result};
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
        let program = absolute(program)?;
        let number = if index == 0 { String::new() } else { (index + 1).to_string() };
        for (mode, suffix) in [("null", "-clear"), ("aes", "")] {
            let name = format!("spike{number}{suffix}");
            peers.push(Box::new(Spike { program: program.clone(), name, mode }));
        }
    }
    Ok(peers)
}

/// The file itself, whatever directory the program is started in.
pub fn absolute(program: &Path) -> Result<PathBuf> {
    program.canonicalize().map_err(|e| Error::file("find the program", program, e))
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
            let host = world.host(end);
            ip(&format!("-n {host} tuntap add dev tap0 mode tap vnet_hdr"))?;
            ip(&format!("-n {host} link set tap0 mtu {TUNNEL_MTU}"))?;
            world.join_bridge(end, "tap0")?;
            let program = self.program.to_string_lossy();
            let local = format!("{}:{PORT}", end.underlay());
            let remote = format!("{}:{PORT}", end.other().underlay());
            pids.push(world.spawn(end, &[&program, "tap0", &local, &remote, self.mode])?);
        }
        Ok(pids)
    }
}
