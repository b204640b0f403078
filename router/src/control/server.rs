//! The control socket: clients of `weave-api`.

use super::core::Event;
use crate::rt::{self, UnixListener, UnixStream};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use weave_api::problem::{Code, Problem};
use weave_api::request::Reply;
use weave_api::server::{
    CLIENTS_MAX, Conversation, Incoming, REQUEST_TIME_LIMIT, hello_frame, response_frames,
};

/// Bytes read from a client at once.
const READ: usize = 16 << 10;
/// Wait after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the core leaves the answer to a request.
pub(super) struct Answer(rt::Sender<Result<Reply, Problem>>);

impl Answer {
    /// Gives the answer; a client that went away misses it.
    pub(super) fn give(self, result: Result<Reply, Problem>) {
        let _ = self.0.try_send(result);
    }
}

/// Serves clients until the runtime ends.
pub(super) async fn serve(listener: UnixListener, events: rt::Sender<Event>) {
    let clients = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok(stream) if clients.get() < CLIENTS_MAX => {
                clients.set(clients.get() + 1);
                let (clients, events) = (Rc::clone(&clients), events.clone());
                rt::spawn(async move {
                    if let Err(error) = talk(stream, events).await {
                        tracing::debug!("a client of the control socket: {error}");
                    }
                    clients.set(clients.get() - 1);
                });
            }
            Ok(_) => tracing::debug!("too many clients of the control socket"),
            Err(error) => {
                tracing::debug!("accepting a client: {error}");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn talk(mut stream: UnixStream, events: rt::Sender<Event>) -> io::Result<()> {
    write(&mut stream, &hello_frame()).await?;
    let mut conversation = Conversation::default();
    let mut buffer = vec![0; READ];
    // For a whole request: one that trickles in must not hold its place for ever.
    let mut deadline = Instant::now() + REQUEST_TIME_LIMIT;
    loop {
        while let Some(incoming) = conversation.next_incoming() {
            match incoming {
                Incoming::Request { id, request } => {
                    let (sender, receiver) = rt::bounded(1);
                    let gone = |_| io::Error::other("the control core has ended");
                    events.send(Event::Asked(request, Answer(sender))).await.map_err(gone)?;
                    let outcome = receiver.recv().await.unwrap_or_else(|_| {
                        Err(Problem::new(Code::NotReady, "cannot answer", "the router is stopping", ""))
                    });
                    for frame in response_frames(id, outcome) {
                        write(&mut stream, &frame).await?;
                    }
                }
                Incoming::Refused(frame) => write(&mut stream, &frame).await?,
                Incoming::Close(frame) => return write(&mut stream, &frame).await,
            }
            deadline = Instant::now() + REQUEST_TIME_LIMIT;
        }
        let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no request within the time limit"));
        let left = deadline.saturating_duration_since(Instant::now());
        let len = rt::timeout(left, stream.read(&mut buffer)).await.unwrap_or_else(late)?;
        if len == 0 {
            return Ok(());
        }
        conversation.push(buffer.get(..len).unwrap_or_default());
    }
}

async fn write(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"));
    rt::timeout(REQUEST_TIME_LIMIT, stream.write_all(bytes)).await.unwrap_or_else(late)
}
