//! The tunnels that are compared, one file each.

mod bare;
mod fastd;
mod nebula;
mod spike;
mod tinc;
mod vxlan;
mod weave;
mod wireguard;

use std::fmt::Debug;

use super::Options;
use super::error::{Error, Result};
use super::world::{Layer, TUNNEL_MTU, World};

/// The name of the peer that all others are compared with unless told otherwise.
pub const BASE: &str = "vxlan";

/// A tunnel between the two hosts of a [`World`].
pub trait Peer: Debug {
    /// Name in tables and in `--only`.
    fn name(&self) -> String;

    /// What exactly is measured, in one line.
    fn description(&self) -> String;

    /// What it carries.
    fn layer(&self) -> Layer {
        Layer::Ethernet
    }

    /// MTU of the containers.
    fn mtu(&self) -> u32 {
        TUNNEL_MTU
    }

    /// Starts the tunnel on both hosts; the processes that carry it (none: the kernel does). It
    /// need not pass traffic yet when this returns.
    fn start(&self, world: &mut World) -> Result<Vec<u32>>;

    /// Whether it finds its best way only after a while of traffic.
    fn settles(&self) -> bool {
        false
    }

    /// Stops the tunnel as its user would. What still runs is killed afterwards.
    fn stop(&self, _world: &World) {}
}

/// All tunnels that can be measured here with these options, in the order of the table.
pub fn select(options: &Options) -> Result<Vec<Box<dyn Peer>>> {
    let mut peers: Vec<Box<dyn Peer>> = vec![Box::new(bare::Bare), Box::new(vxlan::Vxlan)];
    peers.extend(weave::installed(&options.weave)?);
    peers.extend(spike::named(&options.spike)?);
    peers.extend(wireguard::installed());
    peers.extend(nebula::installed());
    peers.extend(tinc::installed());
    peers.extend(fastd::installed());
    for name in options.only.iter().chain(&options.against) {
        if !peers.iter().any(|peer| peer.name() == *name) {
            let known: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
            return Err(Error::Request(format!(
                "there is no {name} to measure; there are {} (others need their program installed, \
                 or --weave or --spike)",
                known.join(", ")
            )));
        }
    }
    if !options.only.is_empty() {
        peers.retain(|peer| options.only.contains(&peer.name()));
    }
    Ok(peers)
}
