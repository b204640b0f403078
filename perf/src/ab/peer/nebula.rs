//! Nebula. It carries IP, so the containers are routed, as "unsafe routes" of its certificates.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::Peer;
use crate::ab::error::Result;
use crate::ab::program;
use crate::ab::world::{ENDS, End, Layer, TUNNEL_MTU, World};

/// UDP port on both hosts.
const PORT: u16 = 4242;

/// The program as installed.
#[derive(Debug)]
pub struct Nebula {
    program: PathBuf,
    certificates: PathBuf,
}

/// nebula, if it and `nebula-cert` are installed.
pub fn installed() -> Option<Box<dyn Peer>> {
    let program = program::find("nebula")?;
    let certificates = program::find("nebula-cert")?;
    Some(Box::new(Nebula { program, certificates }))
}

impl Peer for Nebula {
    fn name(&self) -> String {
        "nebula".to_owned()
    }

    fn description(&self) -> String {
        let version = program::first_line(&self.program, "-version");
        format!("nebula {version}, AES-256-GCM, routed (carries no Ethernet)")
    }

    fn layer(&self) -> Layer {
        Layer::Ip
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        let ca = Certificate::in_host(world, End::A, "ca");
        let tool = self.certificates.to_string_lossy();
        let out = ["-out-crt", &ca.certificate, "-out-key", &ca.key];
        world.run(End::A, &[&[&*tool, "ca", "-name", "bench"], &out[..]].concat())?;
        let mut pids = Vec::new();
        for end in ENDS {
            let own = Certificate::in_host(world, end, "host");
            let (name, inside) =
                (format!("host{}", world.host(end).number()), format!("{}/24", end.inside()));
            let who = ["-name", &name, "-ip", &inside, "-subnets", &end.subnet()];
            let by = ["-ca-crt", &ca.certificate, "-ca-key", &ca.key];
            let out = ["-out-crt", &own.certificate, "-out-key", &own.key];
            world.run(end, &[&[&*tool, "sign"], &by[..], &who[..], &out[..]].concat())?;
            let outside = world.underlay(end.other());
            let file = world.write(end, "config.yml", &configuration(end, &ca, &own, outside))?;
            let program = self.program.to_string_lossy();
            pids.push(world.spawn(end, &[&program, "-config", &file.to_string_lossy()])?);
        }
        Ok(pids)
    }
}

/// Paths of a certificate and its key.
struct Certificate {
    certificate: String,
    key: String,
}

impl Certificate {
    fn in_host(world: &World, end: End, name: &str) -> Self {
        let path = |ending| {
            let file = world.host(end).directory().join(format!("{name}.{ending}"));
            file.to_string_lossy().into_owned()
        };
        Self { certificate: path("crt"), key: path("key") }
    }
}

/// What its own example file sets, without lighthouses: each knows where the other is.
fn configuration(end: End, ca: &Certificate, own: &Certificate, outside: Ipv4Addr) -> String {
    let (inside, subnet) = (end.other().inside(), end.other().subnet());
    let (ca, Certificate { certificate, key }) = (&ca.certificate, own);
    format!(
        r#"
pki: {{ ca: "{ca}", cert: "{certificate}", key: "{key}" }}
static_host_map: {{ "{inside}": ["{outside}:{PORT}"] }}
lighthouse: {{ am_lighthouse: false }}
listen: {{ host: 0.0.0.0, port: {PORT} }}
cipher: aes
punchy: {{ punch: false }}
tun:
  dev: nebula0
  mtu: {TUNNEL_MTU}
  unsafe_routes: [ {{ route: "{subnet}", via: "{inside}", mtu: {TUNNEL_MTU} }} ]
logging: {{ level: error, format: text }}
firewall:
  outbound: [ {{ port: any, proto: any, host: any }} ]
  inbound: [ {{ port: any, proto: any, host: any }} ]
"#
    )
}
