//! The kernel's own VXLAN, in clear.

use super::{BASE, Peer};
use crate::ab::error::Result;
use crate::ab::world::{ENDS, TUNNEL_MTU, World};

/// One VXLAN device a host, pointed at the other.
#[derive(Debug)]
pub struct Vxlan;

impl Peer for Vxlan {
    fn name(&self) -> String {
        BASE.to_owned()
    }

    fn description(&self) -> String {
        "VXLAN of the kernel, clear".to_owned()
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        for end in ENDS {
            let (local, remote) = (world.underlay(end), world.underlay(end.other()));
            let ends = format!("local {local} remote {remote} dstport 4789");
            world.ip(end, &format!("link add vx0 mtu {TUNNEL_MTU} type vxlan id 7 {ends}"))?;
            world.join_bridge(end, "vx0")?;
        }
        Ok(Vec::new())
    }
}
