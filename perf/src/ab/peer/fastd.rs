//! fastd in tap mode: it carries Ethernet, as a port of the bridge.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::Peer;
use crate::ab::error::{Error, Result};
use crate::ab::program;
use crate::ab::world::{BRIDGE, ENDS, End, TUNNEL_MTU, World};

/// UDP port on both hosts.
const PORT: u16 = 10000;

/// The method its documentation recommends for speed.
const METHOD: &str = "salsa2012+umac";

/// The program as installed.
#[derive(Debug)]
pub struct Fastd {
    program: PathBuf,
}

/// fastd, if it is installed.
pub fn installed() -> Option<Box<dyn Peer>> {
    let program = program::find("fastd")?;
    Some(Box::new(Fastd { program }))
}

impl Peer for Fastd {
    fn name(&self) -> String {
        "fastd".to_owned()
    }

    fn description(&self) -> String {
        format!("{}, {METHOD}, tap mode", program::first_line(&self.program, "--version"))
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        let program = self.program.to_string_lossy().into_owned();
        let keys = [KeyPair::make(world, End::A, &program)?, KeyPair::make(world, End::B, &program)?];
        let mut pids = Vec::new();
        for (end, (own, other)) in ENDS.into_iter().zip([(&keys[0], &keys[1]), (&keys[1], &keys[0])]) {
            // Only one of them dials: two at the same moment may end with a session each.
            let remote = match end {
                End::A => format!("remote {}:{PORT};", world.underlay(End::B)),
                End::B => String::new(),
            };
            let bind = world.underlay(end);
            let file = world.write(end, "fastd.conf", &configuration(own, other, bind, &remote))?;
            pids.push(world.spawn(end, &[&program, "-c", &file.to_string_lossy()])?);
        }
        Ok(pids)
    }
}

/// Hexadecimal, as fastd writes them.
struct KeyPair {
    secret: String,
    public: String,
}

impl KeyPair {
    fn make(world: &World, end: End, program: &str) -> Result<Self> {
        let printed = world.run(end, &[program, "--generate-key"])?;
        let value =
            |name: &str| printed.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        match (value("Secret:"), value("Public:")) {
            (Some(secret), Some(public)) => Ok(Self { secret, public }),
            _ => Err(Error::Command {
                line: format!("{program} --generate-key"),
                cause: "it printed no `Secret:` and `Public:`".to_owned(),
            }),
        }
    }
}

fn configuration(own: &KeyPair, other: &KeyPair, bind: Ipv4Addr, remote: &str) -> String {
    let (secret, public) = (&own.secret, &other.public);
    format!(
        r#"
log level warn;
mode tap;
interface "fastd0";
mtu {TUNNEL_MTU};
method "{METHOD}";
bind {bind}:{PORT};
secret "{secret}";
on up "ip link set $INTERFACE master {BRIDGE} up";
peer "other" {{ key "{public}"; {remote} }}
"#
    )
}
