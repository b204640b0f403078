//! What commands ask: `status`, or `lookup NAME`; one line each way.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_local;
use tokio::time::timeout;
use weave_api::names::{ANSWER_WITHIN, LINE_MAX, Lookup};

use crate::server::Server;
use crate::zone::Found;

/// Wait after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers commands in the background.
pub(crate) fn serve(server: &Rc<Server>, listener: std::os::unix::net::UnixListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let server = Rc::clone(server);
    spawn_local(async move {
        loop {
            match listener.accept().await {
                // One after the other: they come from people.
                Ok((stream, _)) => {
                    let _ = timeout(ANSWER_WITHIN, answer(&server, stream)).await;
                }
                Err(error) => {
                    tracing::debug!("accepting a command: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

async fn answer(server: &Server, mut stream: UnixStream) -> io::Result<()> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_MAX && stream.read(&mut byte).await? == 1 && byte != [b'\n'] {
        line.extend(byte);
    }
    let line = String::from_utf8_lossy(&line).into_owned();
    let answer = match line.split_once(' ') {
        None if line == "status" => serde_json::to_vec(&server.status())?,
        Some(("lookup", name)) => {
            let addresses = match server.zone.borrow().find(name) {
                Found::Addresses(addresses) => addresses,
                Found::Domain | Found::Nothing => Vec::new(),
            };
            serde_json::to_vec(&Lookup { addresses })?
        }
        _ => return Ok(()),
    };
    stream.write_all(&answer).await?;
    stream.write_all(b"\n").await
}
