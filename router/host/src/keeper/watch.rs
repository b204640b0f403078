//! Waiting for news: each source has a thread that does nothing else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{News, NewsSender};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::netlink::LinkWatch;
use crate::sys;

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;
/// How often the entries of legacy tables are counted: their changes are told to nobody, and rules
/// are to be back within two seconds.
const LEGACY_EVERY: Duration = Duration::from_millis(500);
/// Wait before an engine that is not there is asked again.
const ENGINE_AGAIN: Duration = Duration::from_millis(500);
/// Wait after a failure of the kernel.
const KERNEL_AGAIN: Duration = Duration::from_secs(5);

/// Starts the threads; they end with the process.
///
/// # Errors
/// When a thread cannot be made.
pub fn watch(engine_host: String, news: &NewsSender) -> Result<()> {
    start("keeper-engine", news, move |news| follow_engine(&engine_host, news))?;
    start("keeper-links", news, follow_links)?;
    start("keeper-rules", news, follow_rules)
}

fn start(name: &str, news: &NewsSender, follow: impl FnOnce(&NewsSender) + Send + 'static) -> Result<()> {
    let news = news.clone();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || follow(&news))
        .map(drop)
        .map_err(|error| Error::kernel("start thread", name, error))
}

fn follow_engine(host: &str, news: &NewsSender) {
    let socket = host.strip_prefix("unix://").map(Path::new);
    loop {
        if socket.is_none_or(Path::exists) {
            let ended = Engine::new(host).and_then(|engine| engine.follow(|| news.tell(News::Engine)));
            if let Err(error) = ended {
                tracing::debug!("following the engine: {error}");
            }
            // Events may have been missed.
            news.tell(News::Engine);
        }
        thread::sleep(ENGINE_AGAIN);
    }
}

fn follow_links(news: &NewsSender) {
    let mut watch = None;
    loop {
        let changed = match &watch {
            None => LinkWatch::open().and_then(LinkWatch::with_addresses).map(|new| {
                watch = Some(new);
                true
            }),
            Some(watch) => watch.wait(Instant::now() + super::EVERYTHING_EVERY),
        };
        match changed {
            Ok(true) => news.tell(News::Links),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!("watching interfaces: {error}");
                watch = None;
                thread::sleep(KERNEL_AGAIN);
            }
        }
    }
}

fn follow_rules(news: &NewsSender) {
    let socket = nftables_socket().inspect_err(|error| tracing::debug!("watching nftables: {error}")).ok();
    let mut legacy = sys::legacy_entries();
    loop {
        let changed = match &socket {
            Some(socket) => wait(socket, LEGACY_EVERY).unwrap_or_else(|error| {
                tracing::warn!("watching nftables: {error}");
                thread::sleep(KERNEL_AGAIN);
                true
            }),
            None => {
                thread::sleep(LEGACY_EVERY);
                false
            }
        };
        let counted = sys::legacy_entries();
        if changed || counted != legacy {
            legacy = counted;
            news.tell(News::Firewall);
        }
    }
}

fn nftables_socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.add_membership(NFTABLES_GROUP)?;
    Ok(socket)
}

/// True if something came within `limit`; all of it is taken off the queue.
fn wait(socket: &Socket, limit: Duration) -> io::Result<bool> {
    // SAFETY: the descriptor belongs to `socket`, which outlives the borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    if !sys::wait_readable(fd, Instant::now() + limit)? {
        return Ok(false);
    }
    loop {
        let mut nothing: &mut [u8] = &mut [];
        match socket.recv(&mut nothing, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}
