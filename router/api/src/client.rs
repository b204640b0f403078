//! A blocking client: each call has a time limit.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::frame::{Decoder, FrameError, encode};
use crate::names::NameEntry;
use crate::problem::Problem;
use crate::request::{AttachedElsewhere, Hello, Outcome, Pinged, Reply, Request, Response};
use crate::socket::{self, SocketError};
use crate::status::{PAGES_MAX, Status};
use crate::target::Target;
use crate::{REPLY_MAX, REQUEST_MAX};
use weave_wire::PeerName;

/// Time a router has to answer when the caller has no wish of its own.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Why the router could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No router listens there.
    #[error("no router runs here ({0})")]
    NotRunning(String),
    /// The place of the socket is not fit for use.
    #[error(transparent)]
    Socket(SocketError),
    /// Reading or writing failed.
    #[error("the control socket failed: {0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("the router gave no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The router closed the stream before it answered.
    #[error("the router closed the control socket")]
    Closed,
    /// What came is not what this protocol allows.
    #[error("the router's answer makes no sense: {0}")]
    Nonsense(String),
    /// The router refused.
    #[error(transparent)]
    Refused(#[from] Problem),
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        Self::Nonsense(error.to_string())
    }
}

/// A conversation with a router.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
    time_limit: Duration,
    next_id: u64,
}

impl Client {
    /// Connects to the router of `run_dir`. Each later call may take `time_limit`.
    ///
    /// # Errors
    /// When no router listens, this user may not ask, the socket's place is not
    /// safe, or the router speaks another version.
    pub fn connect(run_dir: &Path, time_limit: Duration) -> Result<Self, ClientError> {
        let path = socket::check(run_dir).map_err(|error| {
            if let SocketError::Absent(_) = error {
                ClientError::NotRunning(error.to_string())
            } else {
                ClientError::Socket(error)
            }
        })?;
        let stream = connect_within(&path, time_limit)?;
        let mut client = Self { stream, decoder: Decoder::new(REPLY_MAX), time_limit, next_id: 1 };
        let deadline = Instant::now() + time_limit;
        client.send(&encode(&Hello::ours(), REQUEST_MAX)?)?;
        client.receive::<Hello>(deadline)?.check()?;
        Ok(client)
    }

    /// The whole state.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        let mut whole: Option<Status> = None;
        self.ask(&Request::Status, |reply| match (reply, &mut whole) {
            (Reply::Status(page), None) => {
                whole = Some(*page);
                Ok(())
            }
            (Reply::Status(page), Some(whole)) => {
                whole.append(*page);
                Ok(())
            }
            (Reply::Done | Reply::Names(_) | Reply::Pinged(_) | Reply::AttachedElsewhere(_), _) => {
                Err(ClientError::Nonsense("no status in the answer".into()))
            }
        })?;
        whole.ok_or(ClientError::Closed)
    }

    /// All names of the mesh.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn names(&mut self) -> Result<Vec<NameEntry>, ClientError> {
        let mut names = Vec::new();
        self.ask(&Request::Names, |reply| match reply {
            Reply::Names(page) => {
                names.extend(page);
                Ok(())
            }
            Reply::Done | Reply::Status(_) | Reply::Pinged(_) | Reply::AttachedElsewhere(_) => {
                Err(ClientError::Nonsense("no names in the answer".into()))
            }
        })?;
        Ok(names)
    }

    /// Which of `addresses` containers of other hosts have.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn attached_elsewhere(
        &mut self,
        addresses: Vec<IpAddr>,
    ) -> Result<Vec<AttachedElsewhere>, ClientError> {
        let mut found = Vec::new();
        self.ask(&Request::AttachedElsewhere { addresses }, |reply| match reply {
            Reply::AttachedElsewhere(answer) => {
                found = answer;
                Ok(())
            }
            Reply::Done | Reply::Status(_) | Reply::Names(_) | Reply::Pinged(_) => {
                Err(ClientError::Nonsense("no addresses in the answer".into()))
            }
        })?;
        Ok(found)
    }

    /// One round trip to `peer` with a packet of `size` bytes.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses. That no answer came is none.
    pub fn ping(&mut self, peer: PeerName, size: u16) -> Result<Pinged, ClientError> {
        let mut pinged = None;
        self.ask(&Request::Ping { peer, size }, |reply| match reply {
            Reply::Pinged(answer) => {
                pinged = Some(answer);
                Ok(())
            }
            Reply::Done | Reply::Status(_) | Reply::Names(_) | Reply::AttachedElsewhere(_) => {
                Err(ClientError::Nonsense("no round trip in the answer".into()))
            }
        })?;
        pinged.ok_or(ClientError::Closed)
    }

    /// Adds targets, or with `replace` dials exactly these.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn connect_peers(&mut self, peers: Vec<Target>, replace: bool) -> Result<(), ClientError> {
        self.command(&Request::Connect { replace, peers })
    }

    /// Stops reconnecting to targets.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn forget(&mut self, peers: Vec<Target>) -> Result<(), ClientError> {
        self.command(&Request::Forget { peers })
    }

    /// Frees the names of peers of the keys they are bound to.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn forget_identities(&mut self, names: Vec<PeerName>) -> Result<(), ClientError> {
        self.command(&Request::ForgetIdentity { names })
    }

    /// Asks the router to tell the mesh that this host leaves for good, and to end.
    /// It is still there when this returns.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn leave(&mut self) -> Result<(), ClientError> {
        self.command(&Request::Leave)
    }

    /// Asks the router to end. It is still there when this returns.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn stop(&mut self) -> Result<(), ClientError> {
        self.command(&Request::Stop)
    }

    /// Tells the router to read the attachment records again.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn attachments_changed(&mut self) -> Result<(), ClientError> {
        self.command(&Request::AttachmentsChanged)
    }

    /// Tells the router to read its password file again.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn reload(&mut self) -> Result<(), ClientError> {
        self.command(&Request::Reload)
    }

    /// Has the router log as much as `level` says from now on.
    ///
    /// # Errors
    /// When the router cannot be asked or refuses.
    pub fn log_level(&mut self, level: &str) -> Result<(), ClientError> {
        self.command(&Request::LogLevel { level: level.into() })
    }

    fn command(&mut self, request: &Request) -> Result<(), ClientError> {
        self.ask(request, |_| Ok(()))
    }

    fn ask(
        &mut self,
        request: &Request,
        mut take: impl FnMut(Reply) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.time_limit;
        let id = self.next_id;
        self.next_id += 1;
        let envelope = request.to_envelope(id).map_err(FrameError::from)?;
        self.send(&encode(&envelope, REQUEST_MAX)?)?;
        for _ in 0..PAGES_MAX {
            let response: Response = self.receive(deadline)?;
            match response.outcome {
                // Id 0 speaks of the whole conversation.
                Outcome::Error(problem) if response.id == id || response.id == 0 => {
                    return Err(problem.into());
                }
                Outcome::Ok(reply) if response.id == id => take(reply)?,
                Outcome::Error(_) | Outcome::Ok(_) => {
                    return Err(ClientError::Nonsense(format!(
                        "it answers request {}, not {id}",
                        response.id
                    )));
                }
            }
            if !response.more {
                return Ok(());
            }
        }
        Err(ClientError::Nonsense(format!("it has more than {PAGES_MAX} pages")))
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), ClientError> {
        self.stream.set_write_timeout(Some(self.time_limit))?;
        match self.stream.write_all(frame) {
            // A router that closed may have said why: reading tells.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| self.io_error(error)),
        }
    }

    fn receive<T: DeserializeOwned>(&mut self, deadline: Instant) -> Result<T, ClientError> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(value) = self.decoder.next_value()? {
                return Ok(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::TimedOut(self.time_limit));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(length) => self.decoder.push(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io_error(error)),
            }
        }
    }

    fn io_error(&self, error: io::Error) -> ClientError {
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            ClientError::TimedOut(self.time_limit)
        } else if matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
            ClientError::Closed
        } else {
            ClientError::Io(error)
        }
    }
}

/// Connects on a thread of its own: with a full backlog `connect` would wait
/// for as long as the router hangs.
fn connect_within(path: &Path, time_limit: Duration) -> Result<UnixStream, ClientError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread_path = path.to_owned();
    std::thread::Builder::new().name("connect".into()).spawn(move || {
        let _ = sender.send(UnixStream::connect(thread_path));
    })?;
    match receiver.recv_timeout(time_limit) {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(ClientError::NotRunning(format!("nobody listens on {}", path.display())))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err(ClientError::NotRunning(format!("{} does not exist", path.display())))
        }
        Ok(Err(error)) => Err(ClientError::Io(error)),
        Err(_) => Err(ClientError::TimedOut(time_limit)),
    }
}
