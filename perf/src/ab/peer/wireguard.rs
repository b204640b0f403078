//! wireguard-go, the user-space WireGuard. It carries IP, so the containers are routed.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Peer;
use crate::ab::error::{Error, Result};
use crate::ab::world::{ENDS, End, Layer, TUNNEL_MTU, World};
use crate::ab::{interrupt, program};

/// UDP port on both hosts.
const PORT: u16 = 51820;

/// Where it puts the sockets it is configured by.
const SOCKET_DIRECTORY: &str = "/var/run/wireguard";

/// Longest wait for that socket.
const SOCKET_LIMIT: Duration = Duration::from_secs(5);

/// The program as installed.
#[derive(Debug)]
pub struct WireguardGo {
    program: PathBuf,
}

/// wireguard-go, if it and `wg` are installed.
pub fn installed() -> Option<Box<dyn Peer>> {
    program::find("wg")?;
    let program = program::find("wireguard-go")?;
    Some(Box::new(WireguardGo { program }))
}

impl Peer for WireguardGo {
    fn name(&self) -> String {
        "wireguard-go".to_owned()
    }

    fn description(&self) -> String {
        let version = program::first_line(&self.program, "--version");
        format!("{version}, ChaCha20-Poly1305, routed (carries no Ethernet)")
    }

    fn layer(&self) -> Layer {
        Layer::Ip
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        let keys = [KeyPair::make(world, End::A)?, KeyPair::make(world, End::B)?];
        let mut pids = Vec::new();
        for (end, (own, other)) in ENDS.into_iter().zip([(&keys[0], &keys[1]), (&keys[1], &keys[0])]) {
            let to = world.underlay(end.other());
            let file = world.write(end, "wg.conf", &configuration(end, own, other, to))?;
            // The name is also that of its socket, which all namespaces share.
            let device = format!("wg{}{}", world.host(end).number(), std::process::id());
            let socket = Path::new(SOCKET_DIRECTORY).join(format!("{device}.sock"));
            interrupt::note_file(socket.clone());
            let program = self.program.to_string_lossy();
            pids.push(world.spawn(end, &[&program, "-f", &device])?);
            wait_for(&socket, world)?;
            world.run(end, &["wg", "setconf", &device, &file.to_string_lossy()])?;
            world.ip(end, &format!("addr add {}/24 dev {device}", end.inside()))?;
            world.ip(end, &format!("link set {device} mtu {TUNNEL_MTU} up"))?;
            world.ip(end, &format!("route add {} dev {device}", end.other().subnet()))?;
        }
        Ok(pids)
    }
}

/// Base64, as `wg` writes them.
struct KeyPair {
    private: String,
    public: String,
}

impl KeyPair {
    fn make(world: &World, end: End) -> Result<Self> {
        let private = world.run(end, &["wg", "genkey"])?;
        let file = world.write(end, "key", &private)?;
        let input = File::open(&file).map_err(|e| Error::file("open", &file, e))?;
        let public = world.run_reading(end, &["wg", "pubkey"], input)?;
        Ok(Self { private: private.trim().to_owned(), public: public.trim().to_owned() })
    }
}

fn configuration(end: End, own: &KeyPair, other: &KeyPair, to: Ipv4Addr) -> String {
    let (private, public) = (&own.private, &other.public);
    let (inside, subnet) = (end.other().inside(), end.other().subnet());
    format!(
        "[Interface]\nPrivateKey = {private}\nListenPort = {PORT}\n\
         [Peer]\nPublicKey = {public}\nEndpoint = {to}:{PORT}\n\
         AllowedIPs = {inside}/32, {subnet}\n"
    )
}

fn wait_for(socket: &Path, world: &World) -> Result<()> {
    let start = Instant::now();
    while !socket.exists() {
        if start.elapsed() > SOCKET_LIMIT {
            return Err(Error::NotReady {
                seconds: SOCKET_LIMIT.as_secs(),
                hint: format!("no {}: {}", socket.display(), world.last_words()),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
