//! The DNS sidecar: answers names of containers from memory, and all others by asking the host's
//! resolvers.
//!
//! What it knows comes from two sides. The names of this host stand in a file that commands and
//! keeper write ([`own`]); the router tells those of all other hosts over its socket of names
//! ([`router`]). Without a router this host's names hold, and of the others' those that were told
//! last. One thread does everything: the names need no lock.
//!
//! The sockets are ours, since each limit is: datagrams ([`udp`]) and connections ([`tcp`]) end in
//! [`answer`], which reads and writes messages with hickory-server's types.
#![forbid(unsafe_code)]

mod access;
mod answer;
mod commands;
mod counters;
mod forward;
mod listen;
mod own;
mod remembered;
mod router;
mod server;
mod tcp;
mod udp;
mod zone;

use std::fmt;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use weave_wire::HostName;

pub use listen::bind;
use server::Server;

/// What a sidecar is started with.
#[derive(Debug)]
pub struct SidecarConfig {
    /// Where the socket of names and the file of this host's names are.
    pub run_dir: PathBuf,
    /// The domain of all names.
    pub domain: HostName,
    /// Time a name may be remembered by who asked, seconds.
    pub ttl_s: u32,
    /// Answers for names outside the domain are remembered.
    pub cache: bool,
    /// Bridge of the engine: it is asked on its address.
    pub engine_bridge: String,
    /// The one address of this host where it is asked, instead of all.
    pub listen: Option<IpAddr>,
    /// Port on addresses of this host.
    pub port: u16,
    /// Names the host's resolvers.
    pub resolv_conf: PathBuf,
    /// Bound sockets of its own address on the network.
    pub own_sockets: Vec<(UdpSocket, TcpListener)>,
    /// Where commands ask it.
    pub commands: UnixListener,
}

/// A sign that the sidecar works, for a service manager that ends it where none comes.
pub struct Beat {
    /// How often it is given.
    pub every: Duration,
    /// Gives it; it holds nothing up.
    pub give: Box<dyn Fn()>,
}

impl fmt::Debug for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beat").field("every", &self.every).finish_non_exhaustive()
    }
}

/// Runs until the process ends. `ready` is called when it is asked. The one thread that answers gives the
/// sign, so that it stays away when that hangs.
///
/// # Errors
/// When there is no runtime, or a socket is not fit for use.
pub fn run(config: SidecarConfig, ready: impl FnOnce(), beat: Option<Beat>) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async move {
        let server = Rc::new(Server::new(&config));
        own::read(&server);
        let watch = own::Watch::new(&config.run_dir)?;
        for (datagrams, connections) in config.own_sockets {
            listen::serve(&server, datagrams, connections)?;
        }
        listen::keep_up(&server).await;
        commands::serve(&server, config.commands)?;
        tokio::task::spawn_local(router::follow(Rc::clone(&server)));
        ready();
        if let Some(beat) = beat {
            tokio::task::spawn_local(async move {
                loop {
                    (beat.give)();
                    tokio::time::sleep(beat.every).await;
                }
            });
        }
        own::follow(server, watch).await;
    })
}
