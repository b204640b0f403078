//! The names of other hosts: the router tells them over its socket of names.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::spawn_local;
use weave_api::frame::Decoder;
use weave_api::names::{NamesUpdate, names_socket};
use weave_api::{Hello, REPLY_MAX};

use crate::server::Server;

/// Wait before a router that is not there is looked for again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long names hold that a new run of the router has not told yet: it has to find its peers.
const STALE: Duration = Duration::from_secs(10);
/// Bytes read at once.
const READ: usize = 64 << 10;

/// Follows one router after the other, for ever.
pub(crate) async fn follow(server: Rc<Server>) {
    loop {
        if let Err(error) = follow_one(&server).await {
            tracing::debug!("the socket of names: {error}");
        }
        if server.router_lost.get().is_none() {
            tracing::warn!("the router is gone: names of other hosts hold as they were");
            server.router_lost.set(Some(Instant::now()));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow_one(server: &Rc<Server>) -> io::Result<()> {
    let mut stream = UnixStream::connect(names_socket(&server.run_dir)).await?;
    let mut decoder = Decoder::new(REPLY_MAX);
    let mut buffer = vec![0; READ];
    let mut greeted = false;
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        decoder.push(buffer.get(..len).unwrap_or_default());
        loop {
            if greeted {
                let Some(update) = decoder.next_value().map_err(io::Error::other)? else { break };
                take(server, update);
            } else {
                let Some(hello) = decoder.next_value::<Hello>().map_err(io::Error::other)? else { break };
                hello.check().map_err(io::Error::other)?;
                greeted = true;
                greet(server);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Another router tells its names from here on.
fn greet(server: &Server) {
    server.router_connections.set(server.router_connections.get() + 1);
    server.zone.borrow_mut().mark_stale();
}

fn take(server: &Rc<Server>, update: NamesUpdate) {
    match update {
        NamesUpdate::Set(names) => server.zone.borrow_mut().set_others(names),
        NamesUpdate::Complete => {
            tracing::info!("the router tells of names");
            server.router_lost.set(None);
            let (server, connection) = (Rc::clone(server), server.router_connections.get());
            spawn_local(async move {
                tokio::time::sleep(STALE).await;
                drop_stale(&server, connection);
            });
        }
    }
}

/// Forgets what the router of this connection has not told again.
fn drop_stale(server: &Server, connection: u64) {
    // Another router may be on its way up, or have come: what was marked anew is its matter, and it
    // has its own time.
    let is_lost = server.router_lost.get().is_some();
    if !is_lost && server.router_connections.get() == connection {
        server.zone.borrow_mut().drop_stale();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::runtime::Builder;
    use tokio::task::LocalSet;
    use weave_api::names::Says;

    use super::*;
    use crate::answer::tests::server;
    use crate::zone::Found;

    #[test]
    fn each_router_has_its_own_time_to_find_its_peers() {
        let server = Rc::new(server());
        let name = "far.weave.local";
        let says = Says {
            origin: "02:00:00:00:00:02".parse().unwrap(),
            address: [10, 2, 1, 7].into(),
            container: Default::default(),
        };
        let known = || server.zone.borrow().find(name) != Found::Nothing;
        // The timers it starts are not waited for.
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            greet(&server);
            take(&server, NamesUpdate::Set([(name.parse().unwrap(), vec![says])].into()));
            take(&server, NamesUpdate::Complete);
            let first = server.router_connections.get();
            // It starts again, and has not found the peer of that name.
            server.router_lost.set(Some(Instant::now()));
            greet(&server);
            take(&server, NamesUpdate::Complete);
            drop_stale(&server, first);
            assert!(known(), "the time of the first router ended");
            drop_stale(&server, server.router_connections.get());
            assert!(!known(), "the time of the second router ended");
        });
    }
}
