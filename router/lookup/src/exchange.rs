//! One question to one server: a datagram, and a connection if the answer does not fit one.
//!
//! Each question has a socket of its own, on a port that the kernel picks at random, and a random
//! number. The socket is connected: datagrams of others do not reach it, and a server that is not
//! there is known at once. What comes and is not of this number and question is waited past.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_server::proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Longest answer that we ask for in a datagram, bytes: it fits any path without fragments.
const PAYLOAD: u16 = 1232;
/// Longest one that is read, bytes: some send more than they were asked for.
const RECEIVE_MAX: usize = 4096;
/// Wait before a datagram is taken for lost and the question is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a server says, within the time that the caller gives it.
pub(crate) async fn exchange(server: SocketAddr, query: &Query) -> io::Result<Message> {
    let answer = ask(server, &question(query, true)).await?;
    // Old servers do not know what EDNS is (RFC 6891, 7); most libraries never send it.
    if matches!(answer.metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp) {
        return ask(server, &question(query, false)).await;
    }
    Ok(answer)
}

fn question(query: &Query, with_edns: bool) -> Message {
    // Its number is random.
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    if with_edns {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        message.set_edns(edns);
    }
    message
}

async fn ask(server: SocketAddr, question: &Message) -> io::Result<Message> {
    let bytes = question.to_vec().map_err(io::Error::other)?;
    match by_datagram(server, question, &bytes).await? {
        Some(answer) => Ok(answer),
        None => by_connection(server, question, &bytes).await,
    }
}

/// `None`: the answer does not fit.
async fn by_datagram(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Option<Message>> {
    let any = if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    let mut buffer = vec![0; RECEIVE_MAX];
    loop {
        socket.send(bytes).await?;
        if let Ok(answer) = timeout(AGAIN, receive(&socket, question, &mut buffer)).await {
            return answer;
        }
    }
}

async fn receive(socket: &UdpSocket, question: &Message, buffer: &mut [u8]) -> io::Result<Option<Message>> {
    loop {
        let len = socket.recv(buffer).await?;
        let bytes = buffer.get(..len).unwrap_or_default();
        match answers(bytes, question) {
            // A record may be cut in the middle.
            Some(header) if header.metadata.truncation => return Ok(None),
            Some(_) => return Message::from_vec(bytes).map(Some).map_err(io::Error::other),
            None => {}
        }
    }
}

async fn by_connection(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut answer).await?;
    match answers(&answer, question) {
        Some(header) if !header.metadata.truncation => Message::from_vec(&answer).map_err(io::Error::other),
        Some(_) => Err(io::Error::other("it cuts its answers on a connection too")),
        None => Err(io::Error::other("it answers another question")),
    }
}

/// The header of what answers this question.
fn answers(bytes: &[u8], question: &Message) -> Option<Header> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).ok()?;
    let (metadata, questions) = (&header.metadata, header.counts.queries);
    let is_answer = metadata.id == question.metadata.id
        && metadata.message_type == MessageType::Response
        && metadata.op_code == OpCode::Query;
    // Who could not read the question cannot repeat it.
    let is_refusal = !matches!(metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
    let is_same = match questions {
        0 => is_refusal,
        1 => Query::read(&mut decoder).ok().as_ref() == question.queries.first(),
        _ => false,
    };
    (is_answer && is_same).then_some(header)
}
