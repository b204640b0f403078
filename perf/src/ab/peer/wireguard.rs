//! wireguard-go, the user-space WireGuard. It carries IP, so the containers are routed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Peer;
use crate::ab::cleanup::Trace;
use crate::ab::command::{find_program, ip, run, run_with_input};
use crate::ab::error::{Error, Result};
use crate::ab::world::{ENDS, End, Layer, TUNNEL_MTU, World};

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
    find_program("wg")?;
    let program = find_program("wireguard-go")?;
    Some(Box::new(WireguardGo { program }))
}

impl Peer for WireguardGo {
    fn name(&self) -> String {
        "wireguard-go".to_owned()
    }

    fn description(&self) -> String {
        let version = run(&[self.program.as_os_str(), "--version".as_ref()]).unwrap_or_default();
        let version = version.lines().next().unwrap_or("wireguard-go").to_owned();
        format!("{version}, ChaCha20-Poly1305, routed (carries no Ethernet)")
    }

    fn layer(&self) -> Layer {
        Layer::Ip
    }

    fn start(&self, world: &mut World) -> Result<Vec<u32>> {
        let private = [run(&["wg", "genkey"])?, run(&["wg", "genkey"])?];
        let public = [
            run_with_input(&["wg", "pubkey"], &private[0])?,
            run_with_input(&["wg", "pubkey"], &private[1])?,
        ];
        let mut pids = Vec::new();
        for (index, end) in ENDS.into_iter().enumerate() {
            let configuration = configuration(end, private[index].trim(), public[1 - index].trim());
            let file = world.write(end, "wg.conf", &configuration)?;
            // The name is also the name of its socket, which all namespaces share.
            let device = world.unique_device(end);
            let socket = PathBuf::from(SOCKET_DIRECTORY).join(format!("{device}.sock"));
            world.leave(Trace::Path(socket.clone()));
            let program = self.program.to_string_lossy();
            pids.push(world.spawn(end, &[&program, "-f", &device])?);
            wait_for(&socket, world)?;
            world.run(end, &["wg", "setconf", &device, &file.to_string_lossy()])?;
            let host = world.host(end);
            ip(&format!("-n {host} addr add {}/24 dev {device}", end.inside()))?;
            ip(&format!("-n {host} link set {device} mtu {TUNNEL_MTU} up"))?;
            ip(&format!("-n {host} route add {} dev {device}", end.other().subnet()))?;
        }
        Ok(pids)
    }
}

fn configuration(end: End, private: &str, public_of_other: &str) -> String {
    let other = end.other();
    format!(
        "[Interface]\nPrivateKey = {private}\nListenPort = {PORT}\n\
         [Peer]\nPublicKey = {public_of_other}\nEndpoint = {}:{PORT}\n\
         AllowedIPs = {}/32, {}\n",
        other.underlay(),
        other.inside(),
        other.subnet()
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
