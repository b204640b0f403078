//! tinc in switch mode: it carries Ethernet, as a port of the bridge.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::Peer;
use crate::ab::error::{Error, Result};
use crate::ab::program;
use crate::ab::world::{BRIDGE, ENDS, End, TUNNEL_MTU, World};

/// TCP and UDP port on both hosts.
const PORT: u16 = 655;

/// The program as installed.
#[derive(Debug)]
pub struct Tinc {
    program: PathBuf,
}

/// tinc, if it is installed.
pub fn installed() -> Option<Box<dyn Peer>> {
    let program = program::find("tincd")?;
    Some(Box::new(Tinc { program }))
}

impl Peer for Tinc {
    fn name(&self) -> String {
        "tinc".to_owned()
    }

    fn description(&self) -> String {
        let version = program::first_line(&self.program, "--version");
        // "tinc version 1.0.36 (built ..."
        let version = version.split(" (").next().unwrap_or_default();
        format!("{version}, switch mode, its default cipher and digest")
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        let program = self.program.to_string_lossy();
        for end in ENDS {
            self.configure(world, end)?;
        }
        for end in ENDS {
            let name = name(end);
            let from = world.host(end).directory().join("hosts").join(name);
            let to = world.host(end.other()).directory().join("hosts").join(name);
            std::fs::copy(&from, &to).map_err(|e| Error::file("copy", &from, e))?;
        }
        let mut pids = Vec::new();
        for end in ENDS {
            let directory = world.host(end).directory().to_string_lossy().into_owned();
            let pid_file = format!("--pidfile={directory}/pid");
            pids.push(world.spawn(end, &[&program, "-c", &directory, "-D", &pid_file])?);
        }
        Ok(pids)
    }

    /// It sends through TCP until it has probed the path for UDP.
    fn settles(&self) -> bool {
        true
    }
}

impl Tinc {
    fn configure(&self, world: &World, end: End) -> Result<()> {
        let other = name(end.other());
        world.write(
            end,
            "tinc.conf",
            &format!(
                "Name = {}\nMode = switch\nInterface = tinc0\nAddressFamily = ipv4\n\
                 ConnectTo = {other}\n",
                name(end)
            ),
        )?;
        let script = world.write(
            end,
            "tinc-up",
            &format!("#!/bin/sh\nip link set \"$INTERFACE\" mtu {TUNNEL_MTU} master {BRIDGE} up\n"),
        )?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700))
            .map_err(|e| Error::file("make executable", &script, e))?;
        let hosts = world.host(end).directory().join("hosts");
        std::fs::create_dir_all(&hosts).map_err(|e| Error::file("make", &hosts, e))?;
        let file = format!("hosts/{}", name(end));
        world.write(end, &file, &format!("Address = {}\nPort = {PORT}\n", world.underlay(end)))?;
        let (program, directory) = (self.program.to_string_lossy(), world.host(end).directory());
        world.run(end, &[&program, "-c", &directory.to_string_lossy(), "-K2048"])?;
        Ok(())
    }
}

fn name(end: End) -> &'static str {
    match end {
        End::A => "a",
        End::B => "b",
    }
}
