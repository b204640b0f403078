//! Routers that start: each is given the queues of the tap, and the host is set up around it
//! once it runs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{News, NewsSender};
use crate::bridge::{self, BRIDGE};
use crate::error::{Error, Result};
use crate::exposed::ExposedAddresses;
use crate::keeper_socket::{Answer, KeeperListener, Request, VERSION, Wanted, receive, send};
use crate::netlink::{Link, Netlink};
use crate::policy::HostPolicy;
use crate::records::Records;
use crate::tap::{self, TAP};

/// Time a router has to say what it wants.
const ASKS_WITHIN: Duration = Duration::from_secs(1);
/// Time it has to start with its queues.
const STARTS_WITHIN: Duration = Duration::from_secs(120);
/// Wait after a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The MTU of the network, bytes: of bridge and tap; `None` while it is not known. What a router
/// that starts wants replaces it. Whoever changes the two devices holds it locked: what is half done
/// is not put right by another thread.
#[derive(Debug, Clone, Default)]
pub struct NetworkMtu(Arc<Mutex<Option<u32>>>);

impl NetworkMtu {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves routers, one after the other, on a thread that ends with the process.
///
/// # Errors
/// When the thread cannot be made.
pub fn serve_routers(
    listener: KeeperListener,
    state_dir: PathBuf,
    mtu: NetworkMtu,
    news: NewsSender,
) -> Result<()> {
    const NAME: &str = "keeper-routers";
    let serve = move || {
        loop {
            match listener.accept() {
                Ok(router) => {
                    let runs = serve(&router, &state_dir, &mtu).unwrap_or_else(|error| {
                        tracing::debug!("a router: {error}");
                        false
                    });
                    news.tell(if runs { News::Router } else { News::NoRouter });
                }
                Err(error) => {
                    tracing::debug!("accepting a router: {error}");
                    thread::sleep(ACCEPT_AGAIN);
                }
            }
        }
    };
    let thread = thread::Builder::new().name(NAME.to_owned()).spawn(serve);
    thread.map(drop).map_err(|error| Error::kernel("start thread", NAME, error))
}

/// From the first word of a router to the last; true if it runs.
fn serve(router: &OwnedFd, state_dir: &Path, mtu: &NetworkMtu) -> io::Result<bool> {
    let answer = |answer: Answer| send(router.as_fd(), &answer, &[]);
    let Some((request, _)) = receive(router.as_fd(), ASKS_WITHIN)? else { return Ok(false) };
    let wanted = match request {
        Request::Queues { version: VERSION, wanted } => wanted,
        Request::Queues { .. } => return answer(Answer::Version(VERSION)).map(|()| false),
        Request::Runs(_) | Request::Failed => return Err(io::ErrorKind::InvalidData.into()),
    };
    let before = match hand_over(router, wanted, mtu) {
        Ok(before) => before,
        Err(error) => return answer(Answer::Refused(error.to_string())).map(|()| false),
    };
    let (runs, done) = match receive(router.as_fd(), STARTS_WITHIN) {
        Ok(Some((Request::Runs(policy), _))) => (true, set_up(wanted.mtu, state_dir, &policy)),
        // It may live, and will not be told from one that runs.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
        Ok(Some((Request::Failed | Request::Queues { .. }, _)) | None) | Err(_) => {
            (false, before.restore(&mut mtu.lock()))
        }
    };
    if let Err(error) = &done {
        tracing::warn!("{}: {error}", if runs { "setting the host up" } else { "undoing a start" });
    }
    // One that is gone needs no answer.
    let _ = answer(done.map_or_else(|error| Answer::Refused(error.to_string()), |()| Answer::Done));
    Ok(runs)
}

/// Opens the queues and sends them; the keeper keeps none.
fn hand_over(router: &OwnedFd, wanted: Wanted, mtu: &NetworkMtu) -> Result<Before> {
    let mut host = Netlink::open()?;
    let mut mtu = mtu.lock();
    let before = Before::read(&mut host)?;
    *mtu = Some(wanted.mtu);
    let handed = bridge::ensure(&mut host, wanted.mtu)
        .and_then(|_| tap::open_queues(&mut host, TAP, wanted.queues, wanted.mtu, wanted.offloads))
        .and_then(|queues| {
            let fds: Vec<_> = queues.fds.iter().map(AsFd::as_fd).collect();
            send(router.as_fd(), &Answer::Queues(queues.features), &fds)
                .map_err(|error| Error::kernel("hand over the queues of", TAP, error))
        });
    match handed {
        Ok(()) => Ok(before),
        Err(error) => Err(error.after_undo(before.restore(&mut mtu))),
    }
}

/// Addresses and rules of the host and its containers around a router that runs.
fn set_up(mtu: u32, state_dir: &Path, policy: &HostPolicy) -> Result<()> {
    let mut host = Netlink::open()?;
    let link = bridge::ensure(&mut host, mtu)?;
    policy.write(state_dir)?;
    Records::open(state_dir)?.set_guard(&mut host)?;
    let degraded = ExposedAddresses::open(state_dir)?.restore(&mut host, &link, policy)?;
    degraded.iter().for_each(|degraded| tracing::warn!("{degraded}"));
    Ok(())
}

/// Bridge and tap as a router found them: the MTU of each that was there.
struct Before {
    bridge: Option<u32>,
    tap: Option<u32>,
}

impl Before {
    fn read(host: &mut Netlink) -> Result<Self> {
        let mut mtu = |name| Ok(host.link(name)?.map(|link| link.mtu));
        Ok(Self { bridge: mtu(BRIDGE)?, tap: mtu(TAP)? })
    }

    /// Puts both back; a bridge that others use by now stays.
    fn restore(&self, mtu: &mut Option<u32>) -> Result<()> {
        *mtu = self.tap;
        let mut host = Netlink::open()?;
        let tap = match (self.tap, host.link(TAP)?) {
            (Some(mtu), Some(link)) if link.kind == "tun" && link.mtu != mtu => host.set_mtu(&link, mtu),
            (None, Some(link)) if link.kind == "tun" => host.delete_link(&link),
            (_, Some(_) | None) => Ok(()),
        };
        let Some(link) = host.link(BRIDGE)?.filter(|link| link.kind == "bridge") else { return tap };
        let bridge = match self.bridge {
            Some(mtu) if link.mtu != mtu => host.set_mtu(&link, mtu),
            Some(_) => Ok(()),
            None if is_used(&mut host, &link)? => Ok(()),
            None => host.delete_link(&link),
        };
        tap.and(bridge)
    }
}

fn is_used(host: &mut Netlink, bridge: &Link) -> Result<bool> {
    let has_ports = host.links()?.iter().any(|port| port.controller == Some(bridge.index));
    Ok(has_ports || host.addresses()?.iter().any(|address| address.index == bridge.index))
}
