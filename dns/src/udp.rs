//! Questions in datagrams.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hickory_server::net::xfer::Protocol;
use tokio::net::UdpSocket;

use crate::answer::Outcome;
use crate::counters::count;
use crate::server::Server;

/// Longest question read, bytes; what is longer is none.
const QUESTION_MAX: usize = 4096;
/// Questions answered before others have their turn.
const AT_ONCE: usize = 64;
/// Wait after a failure of the kernel.
const AGAIN: Duration = Duration::from_millis(100);

/// Answers until the task is ended.
pub(crate) async fn serve(server: Rc<Server>, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0; QUESTION_MAX];
    loop {
        if let Err(error) =
            socket.readable().await.and_then(|()| answer_waiting(&server, &socket, &mut buffer))
        {
            tracing::debug!("receiving a question: {error}");
            tokio::time::sleep(AGAIN).await;
        }
        tokio::task::yield_now().await;
    }
}

fn answer_waiting(server: &Rc<Server>, socket: &Rc<UdpSocket>, buffer: &mut [u8]) -> std::io::Result<()> {
    for _ in 0..AT_ONCE {
        let (len, source) = match socket.try_recv_from(buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        match server.answer(buffer.get(..len).unwrap_or_default(), source, Protocol::Udp) {
            Outcome::Send(answer) => send(server, socket, &answer, source),
            Outcome::Drop => {}
            Outcome::Forward(request) => {
                let (server, socket) = (Rc::clone(server), Rc::clone(socket));
                tokio::task::spawn_local(async move {
                    let answer = server.forward(&request).await;
                    send(&server, &socket, &answer, source);
                });
            }
        }
    }
    Ok(())
}

/// Nobody waits for room in the socket: who asked asks again.
fn send(server: &Server, socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if socket.try_send_to(answer, to).is_err() {
        count(&server.counters.unsent);
    }
}
