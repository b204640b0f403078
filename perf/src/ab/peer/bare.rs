//! No tunnel: what the generator and the kernel's virtual cables can do.

use super::Peer;
use crate::ab::error::Result;
use crate::ab::world::{ENDS, UNDERLAY_MTU, World};

/// The underlay as a port of both bridges.
#[derive(Debug)]
pub struct Bare;

impl Peer for Bare {
    fn name(&self) -> String {
        "bare".to_owned()
    }

    fn description(&self) -> String {
        "no tunnel, the bridges joined by the underlay itself, MTU 1500".to_owned()
    }

    fn mtu(&self) -> u32 {
        UNDERLAY_MTU
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        for end in ENDS {
            world.bridge_underlay(end)?;
        }
        Ok(Vec::new())
    }
}
