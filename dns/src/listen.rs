//! On which addresses it is asked: they come and go with bridges and exposed addresses.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::task::spawn_local;

use crate::access::HostAddresses;
use crate::server::Server;
use crate::{tcp, udp};

/// How often it is looked for addresses of this host.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Space asked for questions that wait, bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Answers on sockets that are bound.
pub(crate) fn serve(server: &Rc<Server>, datagrams: UdpSocket, connections: TcpListener) -> io::Result<()> {
    datagrams.set_nonblocking(true)?;
    connections.set_nonblocking(true)?;
    // Less than asked for is no failure.
    let _ = setsockopt(&datagrams, sockopt::RcvBuf, &RECEIVE_BUFFER);
    let address = datagrams.local_addr()?;
    let datagrams = Rc::new(tokio::net::UdpSocket::from_std(datagrams)?);
    let connections = tokio::net::TcpListener::from_std(connections)?;
    let tasks = [
        spawn_local(udp::serve(Rc::clone(server), datagrams)),
        spawn_local(tcp::serve(Rc::clone(server), connections)),
    ];
    server.sockets.borrow_mut().insert(address, tasks);
    Ok(())
}

/// Looks at the addresses of this host again: opens what is new, closes what is gone.
pub(crate) async fn keep_up(server: &Rc<Server>) {
    let host = match HostAddresses::read(&server.engine_bridge) {
        Ok(host) => host,
        Err(error) => {
            tracing::warn!("reading the addresses of this host: {error}");
            return;
        }
    };
    let exposed = server.exposed.borrow().clone();
    let wanted: BTreeSet<SocketAddr> = match server.listen {
        Some(one) => [one].into(),
        None => host.bridge.iter().copied().chain(exposed).collect::<BTreeSet<IpAddr>>(),
    }
    .into_iter()
    .map(|ip| SocketAddr::new(ip, server.port))
    .collect();
    server.access.borrow_mut().set_host(host);
    let before: BTreeSet<SocketAddr> = server.bound.borrow().clone();
    for address in before.difference(&wanted) {
        if let Some(tasks) = server.sockets.borrow_mut().remove(address) {
            tasks.iter().for_each(tokio::task::JoinHandle::abort);
        }
        server.bound.borrow_mut().remove(address);
        tracing::info!(%address, "is asked there no more");
    }
    let mut failures = Vec::new();
    for address in wanted.difference(&before) {
        match bind(*address).and_then(|(datagrams, connections)| serve(server, datagrams, connections)) {
            Ok(()) => {
                tracing::info!(%address, "is asked there");
                server.bound.borrow_mut().insert(*address);
            }
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    let mut known = server.not_listening.borrow_mut();
    for failure in failures.iter().filter(|failure| !known.contains(failure)) {
        tracing::warn!("cannot be asked on {failure}");
    }
    *known = failures;
}

/// Sockets for both ways to ask.
///
/// # Errors
/// What the kernel refuses.
pub fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?))
}
