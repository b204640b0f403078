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
                server.zone.borrow_mut().mark_stale();
            }
            tokio::task::yield_now().await;
        }
    }
}

fn take(server: &Rc<Server>, update: NamesUpdate) {
    match update {
        NamesUpdate::Set(names) => server.zone.borrow_mut().set_others(names),
        NamesUpdate::Complete => {
            tracing::info!("the router tells of names");
            server.router_lost.set(None);
            let server = Rc::clone(server);
            spawn_local(async move {
                tokio::time::sleep(STALE).await;
                // Another router may be on its way up: what was marked anew is its matter.
                if server.router_lost.get().is_none() {
                    server.zone.borrow_mut().drop_stale();
                }
            });
        }
    }
}
