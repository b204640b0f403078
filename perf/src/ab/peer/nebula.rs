//! Nebula. It carries IP, so the containers are routed, as "unsafe routes" of its certificates.

use std::path::PathBuf;

use super::Peer;
use crate::ab::command::{find_program, run};
use crate::ab::error::Result;
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
    let program = find_program("nebula")?;
    let certificates = find_program("nebula-cert")?;
    Some(Box::new(Nebula { program, certificates }))
}

impl Peer for Nebula {
    fn name(&self) -> String {
        "nebula".to_owned()
    }

    fn description(&self) -> String {
        let version = run(&[self.program.as_os_str(), "-version".as_ref()]).unwrap_or_default();
        format!("nebula {}, AES-256-GCM, routed (carries no Ethernet)", version.trim())
    }

    fn layer(&self) -> Layer {
        Layer::Ip
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        let certificates = self.certificates.to_string_lossy();
        let authority = world.directory(End::A)?;
        let ca_certificate = authority.join("ca.crt").to_string_lossy().into_owned();
        let ca_key = authority.join("ca.key").to_string_lossy().into_owned();
        run(&[&*certificates, "ca", "-name", "bench", "-out-crt", &ca_certificate, "-out-key", &ca_key])?;
        let mut pids = Vec::new();
        for end in ENDS {
            let directory = world.directory(end)?;
            let certificate = directory.join("host.crt").to_string_lossy().into_owned();
            let key = directory.join("host.key").to_string_lossy().into_owned();
            let inside = format!("{}/24", end.inside());
            run(&[
                &*certificates,
                "sign",
                "-ca-crt",
                &ca_certificate,
                "-ca-key",
                &ca_key,
                "-name",
                &world.host(end),
                "-ip",
                &inside,
                "-subnets",
                &end.subnet(),
                "-out-crt",
                &certificate,
                "-out-key",
                &key,
            ])?;
            let configuration = configuration(end, &ca_certificate, &certificate, &key);
            let file = world.write(end, "config.yml", &configuration)?;
            let program = self.program.to_string_lossy();
            pids.push(world.spawn(end, &[&program, "-config", &file.to_string_lossy()])?);
        }
        Ok(pids)
    }
}

/// What its own example file sets, without lighthouses: each knows where the other is.
fn configuration(end: End, ca: &str, certificate: &str, key: &str) -> String {
    let other = end.other();
    let (inside, outside, subnet) = (other.inside(), other.underlay(), other.subnet());
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
