//! Routers that start: each is given the queues of the tap, and the host is set up around it
//! once it runs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
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

/// What the keeper's threads know together of bridge and tap.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    mtu: Arc<Mutex<Option<u32>>>,
    taps_restored: Arc<AtomicU64>,
}

impl Devices {
    /// The MTU of both, bytes; `None` while it is not known. What a router that starts wants
    /// replaces it. Whoever changes the two devices holds it locked: what is half done is not put
    /// right by another thread.
    pub(super) fn mtu(&self) -> MutexGuard<'_, Option<u32>> {
        self.mtu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Times a deleted tap was made again.
    pub(super) fn taps_restored(&self) -> u64 {
        self.taps_restored.load(Ordering::Relaxed)
    }
}

/// Serves routers, one after the other, on a thread that ends with the process.
///
/// # Errors
/// When the thread cannot be made.
pub fn serve_routers(
    listener: KeeperListener,
    state_dir: PathBuf,
    devices: Devices,
    news: NewsSender,
) -> Result<()> {
    const NAME: &str = "keeper-routers";
    let serve = move || {
        loop {
            match listener.accept() {
                Ok(router) => {
                    let found = serve(&router, &state_dir, &devices).unwrap_or_else(|error| {
                        tracing::debug!("a router: {error}");
                        News::NoRouter
                    });
                    news.tell(found);
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

/// From the first word of a router to the last: what that is news of.
fn serve(router: &OwnedFd, state_dir: &Path, devices: &Devices) -> io::Result<News> {
    let answer = |answer: Answer| send(router.as_fd(), &answer, &[]);
    let Some((request, queues)) = receive(router.as_fd(), ASKS_WITHIN)? else { return Ok(News::NoRouter) };
    match request {
        Request::Queues { version: VERSION, wanted } => start(router, wanted, state_dir, devices),
        Request::Restore { version: VERSION, wanted } => {
            let restored = restore(wanted, &queues, devices);
            if let Err(error) = &restored {
                tracing::warn!("making the tap again: {error}");
            }
            answer(done(restored)).map(|()| News::Links)
        }
        Request::Queues { .. } | Request::Restore { .. } => {
            answer(Answer::Version(VERSION)).map(|()| News::NoRouter)
        }
        Request::Runs(_) | Request::Failed => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn done(done: Result<()>) -> Answer {
    done.map_or_else(|error| Answer::Refused(error.to_string()), |()| Answer::Done)
}

/// The start of a router.
fn start(router: &OwnedFd, wanted: Wanted, state_dir: &Path, devices: &Devices) -> io::Result<News> {
    let answer = |answer: Answer| send(router.as_fd(), &answer, &[]);
    let before = match hand_over(router, wanted, devices) {
        Ok(before) => before,
        Err(error) => return answer(Answer::Refused(error.to_string())).map(|()| News::NoRouter),
    };
    let (news, did) = match receive(router.as_fd(), STARTS_WITHIN) {
        Ok(Some((Request::Runs(policy), _))) => (News::Router, set_up(wanted.mtu, state_dir, &policy)),
        // It may live, and will not be told from one that runs.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(News::Router),
        Ok(_) | Err(_) => (News::NoRouter, before.restore(&mut devices.mtu())),
    };
    if let Err(error) = &did {
        let what = if news == News::Router { "setting the host up" } else { "undoing a start" };
        tracing::warn!("{what}: {error}");
    }
    // One that is gone needs no answer.
    let _ = answer(done(did));
    Ok(news)
}

/// Makes the tap of a router that runs again, unless it is there.
fn restore(wanted: Wanted, queues: &[OwnedFd], devices: &Devices) -> Result<()> {
    let mut host = Netlink::open()?;
    let mut mtu = devices.mtu();
    *mtu = Some(wanted.mtu);
    bridge::ensure(&mut host, wanted.mtu)?;
    if tap::restore_queues(&mut host, TAP, queues, wanted.mtu, wanted.offloads)? {
        devices.taps_restored.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("the tap was gone: made again");
    }
    Ok(())
}

/// Opens the queues and sends them; the keeper keeps none.
fn hand_over(router: &OwnedFd, wanted: Wanted, devices: &Devices) -> Result<Before> {
    let mut host = Netlink::open()?;
    let mut mtu = devices.mtu();
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
