//! The first messages of a TCP connection: handshake or resumption.
//!
//! Each runs as a task of its own under a time limit and ends with a
//! [`Greeted`] connection or a reason. What strangers cost is limited before
//! (`weave_mesh::admission`).

use crate::rt::{self, TcpStream};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use weave_crypto::{
    Established, Failure, Handshake, HandshakeError, LinkChoice, LocalPeer, PasswordOffer, ResumeError,
    Resumed, Resumption, Secrets,
};
use weave_wire::SessionIndex;
use weave_wire::link::handshake::{LENGTH_LEN, Mode, message_len};
use weave_wire::link::resume::{LinkId as LinkName, Opening};

/// Time for the whole exchange.
const LIMIT: Duration = Duration::from_secs(10);
/// Wait before a refused connection is closed: between one and two of these.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);

/// The links that can be resumed, by their public names.
pub(super) type Resumptions = Rc<RefCell<HashMap<LinkName, Resumption>>>;

/// A connection whose peer is authenticated.
pub(super) struct Greeted {
    /// The connection.
    pub(super) stream: TcpStream,
    /// Which link it carries.
    pub(super) outcome: Outcome,
}

/// The link of a greeted connection.
pub(super) enum Outcome {
    /// A new one.
    New(Box<Established>, SessionIndex),
    /// One that goes on.
    Resumed(LinkName, Box<Resumed>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetingError {
    /// The network.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("the peer did not finish the handshake within {} s", LIMIT.as_secs())]
    TimedOut,
    /// Others came, and there are so many at once.
    #[error("the handshake had to make room for others: too many were under way")]
    Evicted,
    /// The handshake.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The resumption.
    #[error("resuming the link: {0}")]
    Resume(#[from] ResumeError),
    /// This host was dialled.
    #[error("{}", Failure::Ourselves)]
    Ourselves,
    /// The way leads through the network that links are to make.
    #[error("the way to this address leads through the weave network itself")]
    ThroughUs,
    /// An established link leads there; there is nothing to dial.
    #[error("there is a link to this address")]
    Linked,
    /// Nothing came: a look at the port.
    #[error("the peer closed the connection before it said anything")]
    Silent,
    /// The peer does not know the link any more.
    #[error("the peer closed the connection instead of resuming the link")]
    NotResumed,
}

impl GreetingError {
    /// True for reasons that time alone does not cure.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Handshake(error) => !matches!(error.cause, Failure::Interrupted | Failure::Over),
            Self::Ourselves | Self::ThroughUs => true,
            Self::Io(_)
            | Self::TimedOut
            | Self::Evicted
            | Self::Silent
            | Self::Linked
            | Self::Resume(_)
            | Self::NotResumed => false,
        }
    }
}

/// Random bytes from the kernel. A kernel without them cannot run a router, and
/// nothing may go on with predictable keys.
pub(crate) fn entropy(bytes: &mut [u8]) {
    if let Err(error) = getrandom::fill(bytes) {
        tracing::error!("the kernel gives no random bytes: {error}");
        std::process::abort();
    }
}

/// A random number.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    entropy(&mut bytes);
    u64::from_be_bytes(bytes)
}

/// Dials a handshake over `stream`; `attempt` counts failures before,
/// `trusted_subnet`: it leads to one.
pub(super) async fn initiate(
    mut stream: TcpStream,
    local: Arc<LocalPeer>,
    attempt: u32,
    trusted_subnet: bool,
) -> Result<Greeted, GreetingError> {
    let exchange = async {
        let choice = choose(trusted_subnet, &local.secrets);
        let offer = PasswordOffer::nth(attempt, &local.secrets);
        let (handshake, first) = Handshake::initiate(local, choice, offer, &mut entropy);
        stream.write_all(&first).await?;
        let established = shake(&mut stream, handshake, None).await?;
        Ok(Outcome::New(established, choice.session))
    };
    let outcome = rt::timeout(LIMIT, exchange).await.unwrap_or(Err(GreetingError::TimedOut))?;
    Ok(Greeted { stream, outcome })
}

/// Dials the resumption of a link over `stream`.
pub(super) async fn resume(mut stream: TcpStream, link: Resumption) -> Result<Greeted, GreetingError> {
    let exchange = async {
        let (dial, request) = link.dial(&mut entropy);
        stream.write_all(&request).await?;
        let accept = read(&mut stream).await.map_err(|_| GreetingError::NotResumed)?;
        let (proof, resumed) = dial.on_accept(&accept)?;
        stream.write_all(&proof).await?;
        Ok(Outcome::Resumed(link.link_id(), Box::new(resumed)))
    };
    let outcome = rt::timeout(LIMIT, exchange).await.unwrap_or(Err(GreetingError::TimedOut))?;
    Ok(Greeted { stream, outcome })
}

/// Answers whatever the peer begins on an accepted connection; `trusted_subnet`:
/// it comes from one.
pub(super) async fn answer(
    mut stream: TcpStream,
    local: Arc<LocalPeer>,
    links: Resumptions,
    trusted_subnet: bool,
) -> Result<Greeted, GreetingError> {
    let exchange = async {
        let first = read(&mut stream).await.map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof { GreetingError::Silent } else { error.into() }
        })?;
        match Opening::of(&first) {
            Opening::Handshake => {
                let choice = choose(trusted_subnet, &local.secrets);
                let handshake = Handshake::respond(local, choice, &mut entropy);
                let established = shake(&mut stream, handshake, Some(first)).await?;
                Ok(Outcome::New(established, choice.session))
            }
            Opening::Resume(name) => {
                let link = links.borrow().get(&name).cloned().ok_or(ResumeError::OtherLink)?;
                let (answer, accept) = link.answer(&first, &mut entropy)?;
                stream.write_all(&accept).await?;
                let proof = read(&mut stream).await?;
                Ok(Outcome::Resumed(name, Box::new(answer.on_proof(&proof)?)))
            }
        }
    };
    match rt::timeout(LIMIT, exchange).await.unwrap_or(Err(GreetingError::TimedOut)) {
        Ok(outcome) => Ok(Greeted { stream, outcome }),
        Err(error) => {
            // All refusals look alike from outside.
            #[expect(clippy::cast_precision_loss, reason = "jitter")]
            let jitter = random_u64() as f64 / u64::MAX as f64;
            rt::sleep(REFUSAL_DELAY.mul_f64(1.0 + jitter)).await;
            Err(error)
        }
    }
}

fn choose(trusted_subnet: bool, secrets: &Secrets) -> LinkChoice {
    // A clear network has no secrecy to give up.
    let trusted_subnet = trusted_subnet && secrets.mode() == Mode::Encrypted;
    LinkChoice { session: SessionIndex(random_u64()), trusted_subnet }
}

async fn shake(
    stream: &mut TcpStream,
    mut handshake: Handshake,
    first: Option<Vec<u8>>,
) -> Result<Box<Established>, GreetingError> {
    let mut first = first;
    loop {
        let message = match first.take() {
            Some(message) => message,
            None => match read(stream).await {
                Ok(message) => message,
                Err(_) => return Err(handshake.interrupted().into()),
            },
        };
        match handshake.on_message(&message) {
            Ok(step) => {
                stream.write_all(&step.send).await?;
                if let Some(established) = step.established {
                    return Ok(established);
                }
            }
            Err(error) => {
                // The peer may be gone already; the error is what counts.
                let _ = stream.write_all(&error.reply).await;
                return Err(error.into());
            }
        }
    }
}

/// Reads one message; its length was checked before any of it is kept.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut field = [0; LENGTH_LEN];
    stream.read_exact(&mut field).await?;
    let len = message_len(field).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
