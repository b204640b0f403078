//! Questions over connections (RFC 7766): two bytes of length before each message.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hickory_server::net::xfer::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::answer::Outcome;
use crate::counters::count;
use crate::server::Server;

/// Connections at once, at most.
const CONNECTIONS_MAX: usize = 64;
/// Those of one source.
const PER_SOURCE_MAX: usize = 8;
/// Time between two questions, and for one to come or an answer to go.
const IDLE: Duration = Duration::from_secs(10);
/// Wait after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

thread_local! {
    /// Connections by source, on all addresses: everything runs on one thread.
    static OPEN: RefCell<HashMap<IpAddr, usize>> = RefCell::default();
}

/// A connection's place.
struct Place(IpAddr);

impl Place {
    /// `None` when there is no room for another.
    fn take(source: IpAddr) -> Option<Self> {
        OPEN.with_borrow_mut(|open| {
            let all: usize = open.values().sum();
            let own = open.get(&source).copied().unwrap_or_default();
            if all >= CONNECTIONS_MAX || own >= PER_SOURCE_MAX {
                return None;
            }
            open.insert(source, own + 1);
            Some(Self(source))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| match open.get_mut(&self.0) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                open.remove(&self.0);
            }
        });
    }
}

/// Serves connections until the task is ended.
pub(crate) async fn serve(server: Rc<Server>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            // Strangers take no place of others.
            Ok((_, source)) if !server.access.borrow().allows(source.ip().to_canonical()) => {
                count(&server.counters.refused)
            }
            Ok((stream, source)) => match Place::take(source.ip()) {
                Some(place) => {
                    let server = Rc::clone(&server);
                    tokio::task::spawn_local(async move {
                        let _place = place;
                        if let Err(error) = answer(&server, stream, source).await {
                            tracing::debug!(%source, "a connection: {error}");
                        }
                    });
                }
                None => count(&server.counters.tcp_full),
            },
            Err(error) => {
                tracing::debug!("accepting a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(server: &Server, mut stream: TcpStream, source: SocketAddr) -> io::Result<()> {
    loop {
        let Some(question) = timeout(IDLE, read(&mut stream)).await?? else { return Ok(()) };
        let answer = match server.answer(&question, source, Protocol::Tcp) {
            Outcome::Send(answer) => answer,
            Outcome::Drop => return Ok(()),
            Outcome::Forward(request) => server.forward(&request).await,
        };
        let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&len.to_be_bytes(), answer.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// The next question; `None` at the end.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 2];
    match stream.read_exact(&mut len).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut question).await?;
    Ok(Some(question))
}
