//! The control core: links, timers, control socket.
//!
//! One task owns all state ([`core::Core`]) and handles one event after the
//! other; sockets, dials and clients are tasks that only carry events to it.

mod beside;
mod core;
mod greeting;
mod http;
mod lanes;
mod link;
mod metrics;
mod ports;
mod relayed;
mod server;
mod status;
mod tap;
mod updates;
mod watchdog;

use crate::rt;
use crate::state::Saver;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use weave_api::names::SIDECAR_ID;
use weave_api::target::Target;
use weave_api::updates::READERS_MAX;
use weave_crypto::LocalPeer;
use weave_forward::{ControlSockets, Group};
use weave_wire::Nickname;

pub(crate) use core::End;
pub(crate) use greeting::{entropy, random_u64};
pub(crate) use tap::Tap;

/// What the control core is started with.
pub(crate) struct Setup {
    pub(crate) local: Arc<LocalPeer>,
    pub(crate) nickname: Nickname,
    pub(crate) run: u32,
    pub(crate) config: Arc<crate::Config>,
    pub(crate) targets: Vec<Target>,
    pub(crate) recent: Vec<Target>,
    pub(crate) group: Group,
    pub(crate) tap: Arc<Tap>,
    pub(crate) sockets: ControlSockets,
    pub(crate) listener: std::net::TcpListener,
    pub(crate) http: Option<std::net::TcpListener>,
    pub(crate) control_socket: PathBuf,
    pub(crate) names_socket: PathBuf,
    pub(crate) addresses_socket: PathBuf,
    pub(crate) saver: Saver,
    pub(crate) degraded: Vec<(&'static str, String)>,
    pub(crate) signals: rt::Receiver<Signal>,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// End.
    Stop,
    /// Read the password file again.
    Reload,
}

/// Runs the control core on this thread until it is told to stop; `ready` is
/// called when it listens.
///
/// # Errors
/// Why it could not go on.
pub(crate) fn run(setup: Setup, ready: impl FnOnce() + 'static) -> Result<End, String> {
    rt::run(async move {
        let (events, told, inbox) = core::inbox();
        let Setup { sockets, listener, http, signals, .. } = setup;
        let bind = |path: &Path, waiting, other| {
            rt::UnixListener::bind(path, waiting, other)
                .map_err(|error| format!("cannot listen on {}: {error}", path.display()))
        };
        let server = bind(&setup.control_socket, weave_api::server::CLIENTS_MAX, None)?;
        let names = bind(&setup.names_socket, READERS_MAX, Some(SIDECAR_ID))?;
        let addresses = bind(&setup.addresses_socket, READERS_MAX, None)?;
        sockets
            .send
            .set_nonblocking(true)
            .map_err(|error| format!("cannot use the socket of the control lane: {error}"))?;
        let mesh_port_socket = sockets
            .receive
            .try_clone()
            .map_err(|error| format!("cannot send from the mesh port: {error}"))?;
        let config = Arc::clone(&setup.config);
        let (look_beside, looks) = rt::bounded(1);
        let mut core = core::Core::new(
            core::Parts {
                local: setup.local,
                nickname: setup.nickname,
                run: setup.run,
                config: setup.config,
                group: setup.group,
                tap: setup.tap,
                heartbeats: sockets.send,
                mesh_port_socket,
                saver: setup.saver,
                degraded: setup.degraded,
                events: events.clone(),
                told,
                look_beside,
            },
            &setup.targets,
            setup.recent,
        );
        rt::spawn(core::accept(rt::TcpListener::new(listener), events.clone()));
        rt::spawn(core::receive(rt::UdpReceiver::new(sockets.receive), events.clone()));
        rt::spawn(core::reports(core.reports(), events.clone()));
        rt::spawn(core::signals(signals, events.clone()));
        rt::spawn(updates::serve(names, events.clone(), core::Event::ReadsNames));
        rt::spawn(updates::serve(addresses, events.clone(), core::Event::ReadsAddresses));
        if let Some(listener) = http {
            rt::spawn(http::serve(rt::TcpListener::new(listener), Arc::clone(&config), events.clone()));
        }
        rt::spawn(beside::watch(config, looks, events.clone()));
        if let Some(every) = watchdog::every() {
            rt::spawn(watchdog::run(every, events.clone()));
        }
        rt::spawn(server::serve(server, events));
        ready();
        let result = core.run(inbox).await;
        // What was said last has to leave the sockets.
        rt::sleep(Duration::from_millis(20)).await;
        result
    })
    .map_err(|error| format!("cannot start the control core: {error}"))?
}
