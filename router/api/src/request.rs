//! What is asked and answered.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::PROTOCOL_VERSION;
use crate::names::NameEntry;
use crate::problem::{Code, Problem};
use crate::status::Status;
use crate::target::Target;
use weave_wire::{Nickname, PeerName};

/// Most peers in one request.
pub const PEERS_MAX: usize = 512;
/// Most addresses in one request.
pub const ADDRESSES_MAX: usize = 512;

/// How a router is restarted: one of an encrypted network does not start without its password.
pub const RESTART: &str = "`systemctl restart weave` where it runs as a unit, else `weave stop --keep-dns` and \
                           `weave launch --password-file FILE`, as it was launched";

/// How long a round trip is waited for.
pub const PING_LIMIT: Duration = Duration::from_secs(2);

/// The first frame of each end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the control protocol the sender speaks.
    pub control_protocol: u16,
    /// Version of the sender's software, for people.
    pub software: String,
}

impl Hello {
    /// What this library says first.
    #[must_use]
    pub fn ours() -> Self {
        Self { control_protocol: PROTOCOL_VERSION, software: env!("CARGO_PKG_VERSION").into() }
    }

    /// Checks that the other end speaks our version.
    ///
    /// # Errors
    /// [`Code::Version`] with both versions.
    pub fn check(&self) -> Result<(), Problem> {
        if self.control_protocol == PROTOCOL_VERSION {
            return Ok(());
        }
        Err(Problem::new(
            Code::Version,
            "cannot talk over the control socket",
            format!(
                "this end is weave {} (control protocol {PROTOCOL_VERSION}), the other weave {} (control protocol {})",
                env!("CARGO_PKG_VERSION"),
                self.software,
                self.control_protocol
            ),
            format!("restart the router, so that both are of one version: {RESTART}"),
        ))
    }
}

/// A command for the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The whole state; answered with [`Reply::Status`] in one or more pages.
    Status,
    /// Add targets, or with `replace` dial exactly these.
    Connect {
        /// Forget the targets there were.
        replace: bool,
        /// The peers to dial, at most [`PEERS_MAX`].
        peers: Vec<Target>,
    },
    /// Stop reconnecting to these targets; live links stay.
    Forget {
        /// The targets to forget, at most [`PEERS_MAX`].
        peers: Vec<Target>,
    },
    /// Free the names of these peers of the keys they are bound to, for hosts that
    /// lost their state.
    ForgetIdentity {
        /// The names, at most [`PEERS_MAX`].
        names: Vec<PeerName>,
    },
    /// End the router. The answer comes before it ends.
    Stop,
    /// End it as a host that leaves for good: peers forget its key.
    Leave,
    /// The attachment records changed: read them again.
    AttachmentsChanged,
    /// Read the password file again.
    Reload,
    /// Log as much as this says from now on: `error`, `warn`, `info`, `debug` or `trace`.
    LogLevel {
        /// The level.
        level: String,
    },
    /// One round trip to a peer, the way that frames of containers take; answered with
    /// [`Reply::Pinged`] when it is made, or after [`PING_LIMIT`].
    Ping {
        /// The peer.
        peer: PeerName,
        /// Bytes of the packet: what a container of that MTU would send.
        size: u16,
    },
    /// All names of the mesh; answered with [`Reply::Names`] in one or more pages.
    Names,
    /// Which of these addresses containers of other hosts have; answered with
    /// [`Reply::AttachedElsewhere`].
    AttachedElsewhere {
        /// The addresses, at most [`ADDRESSES_MAX`].
        addresses: Vec<IpAddr>,
    },
    /// Reserved: events as they happen, many responses to one id.
    Subscribe,
}

/// A request as it stands in its frame.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Chosen by the client, repeated in each response.
    pub id: u64,
    /// Name of the command.
    pub command: String,
    /// What the command takes; absent for commands that take nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Box<RawValue>>,
}

#[derive(Serialize, Deserialize)]
struct ConnectArguments {
    #[serde(default)]
    replace: bool,
    peers: Vec<Target>,
}

#[derive(Serialize, Deserialize)]
struct LogLevelArguments {
    level: String,
}

#[derive(Serialize, Deserialize)]
struct PingArguments {
    peer: PeerName,
    size: u16,
}

#[derive(Serialize, Deserialize)]
struct ForgetArguments {
    peers: Vec<Target>,
}

#[derive(Serialize, Deserialize)]
struct ForgetIdentityArguments {
    names: Vec<PeerName>,
}

#[derive(Serialize, Deserialize)]
struct AttachedElsewhereArguments {
    addresses: Vec<IpAddr>,
}

impl Request {
    /// The name of the command in frames, logs and errors.
    #[must_use]
    pub const fn command(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Connect { .. } => "connect",
            Self::Forget { .. } => "forget",
            Self::ForgetIdentity { .. } => "forget-identity",
            Self::Stop => "stop",
            Self::Leave => "leave",
            Self::AttachmentsChanged => "attachments-changed",
            Self::Reload => "reload",
            Self::LogLevel { .. } => "log-level",
            Self::Ping { .. } => "ping",
            Self::Names => "names",
            Self::AttachedElsewhere { .. } => "attached-elsewhere",
            Self::Subscribe => "subscribe",
        }
    }

    /// The request as a frame's content, under `id`.
    ///
    /// # Errors
    /// When it cannot be written as JSON (never, but for a lack of memory).
    pub fn to_envelope(&self, id: u64) -> Result<Envelope, serde_json::Error> {
        let arguments = match self {
            Self::Connect { replace, peers } => Some(serde_json::value::to_raw_value(&ConnectArguments {
                replace: *replace,
                peers: peers.clone(),
            })?),
            Self::Forget { peers } => {
                Some(serde_json::value::to_raw_value(&ForgetArguments { peers: peers.clone() })?)
            }
            Self::ForgetIdentity { names } => {
                Some(serde_json::value::to_raw_value(&ForgetIdentityArguments { names: names.clone() })?)
            }
            Self::LogLevel { level } => {
                Some(serde_json::value::to_raw_value(&LogLevelArguments { level: level.clone() })?)
            }
            Self::Ping { peer, size } => {
                Some(serde_json::value::to_raw_value(&PingArguments { peer: *peer, size: *size })?)
            }
            Self::AttachedElsewhere { addresses } => {
                let addresses = addresses.clone();
                Some(serde_json::value::to_raw_value(&AttachedElsewhereArguments { addresses })?)
            }
            Self::Status
            | Self::Stop
            | Self::Leave
            | Self::AttachmentsChanged
            | Self::Reload
            | Self::Names
            | Self::Subscribe => None,
        };
        Ok(Envelope { id, command: self.command().into(), arguments })
    }

    /// Reads the request in `envelope`.
    ///
    /// # Errors
    /// [`Code::UnknownCommand`], [`Code::BadRequest`] or [`Code::TooLarge`].
    pub fn from_envelope(envelope: &Envelope) -> Result<Self, Problem> {
        match envelope.command.as_str() {
            "status" => Ok(Self::Status),
            "connect" => {
                let ConnectArguments { replace, peers } = arguments(envelope)?;
                Ok(Self::Connect { replace, peers: bounded(peers)? })
            }
            "forget" => {
                let ForgetArguments { peers } = arguments(envelope)?;
                Ok(Self::Forget { peers: bounded(peers)? })
            }
            "forget-identity" => {
                let ForgetIdentityArguments { names } = arguments(envelope)?;
                Ok(Self::ForgetIdentity { names: bounded(names)? })
            }
            "stop" => Ok(Self::Stop),
            "leave" => Ok(Self::Leave),
            "attachments-changed" => Ok(Self::AttachmentsChanged),
            "reload" => Ok(Self::Reload),
            "log-level" => {
                let LogLevelArguments { level } = arguments(envelope)?;
                Ok(Self::LogLevel { level })
            }
            "ping" => {
                let PingArguments { peer, size } = arguments(envelope)?;
                Ok(Self::Ping { peer, size })
            }
            "names" => Ok(Self::Names),
            "attached-elsewhere" => {
                let AttachedElsewhereArguments { addresses } = arguments(envelope)?;
                if addresses.len() > ADDRESSES_MAX {
                    let why = format!("{} addresses are more than {ADDRESSES_MAX}", addresses.len());
                    return Err(Problem::new(Code::TooLarge, "cannot look for addresses", why, "name fewer"));
                }
                Ok(Self::AttachedElsewhere { addresses })
            }
            "subscribe" => Ok(Self::Subscribe),
            other => Err(Problem::new(
                Code::UnknownCommand,
                "cannot do what was asked",
                format!("the router (weave {}) knows no command {:.40?}", env!("CARGO_PKG_VERSION"), other),
                "restart the router with the version of weave that asked",
            )),
        }
    }
}

fn arguments<'a, T: Deserialize<'a>>(envelope: &'a Envelope) -> Result<T, Problem> {
    let text = envelope.arguments.as_ref().map_or("{}", |raw| raw.get());
    serde_json::from_str(text).map_err(|error| {
        Problem::new(
            Code::BadRequest,
            format!("cannot read the arguments of {}", envelope.command),
            error,
            "",
        )
    })
}

fn bounded<T>(peers: Vec<T>) -> Result<Vec<T>, Problem> {
    if peers.len() <= PEERS_MAX {
        return Ok(peers);
    }
    Err(Problem::new(
        Code::TooLarge,
        "cannot change the targets",
        format!("{} peers are more than {PEERS_MAX}", peers.len()),
        "name fewer; peers find each other",
    ))
}

/// One answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// The id of the request.
    pub id: u64,
    /// Another response with this id follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Ok(Reply),
    /// It was not.
    Error(Problem),
}

/// What a router answers when it did what was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// The state, or a page of it.
    Status(Box<Status>),
    /// The names of the mesh, or a page of them.
    Names(Vec<NameEntry>),
    /// What came of a ping.
    Pinged(Pinged),
    /// Those of the addresses that containers of other hosts have.
    AttachedElsewhere(Vec<AttachedElsewhere>),
}

/// An address that a container of another host has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedElsewhere {
    /// The address.
    pub address: IpAddr,
    /// The host.
    pub peer: PeerName,
    /// What its operators call it.
    pub nickname: Nickname,
}

/// A round trip to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinged {
    /// How long it took, nanoseconds; absent if no answer came within [`PING_LIMIT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ns: Option<u64>,
    /// The peers on the way there, the last one itself. Answers may come another way.
    pub path: Vec<Hop>,
    /// Largest packet of a container that crosses the first link in one piece, bytes.
    pub path_mtu: u16,
}

/// A peer on a way, and the link that leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The peer.
    pub peer: PeerName,
    /// What its operators call it.
    pub nickname: Nickname,
    /// Whether data on that link is sealed.
    pub encrypted: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::frame::{Decoder, encode};
    use crate::{REPLY_MAX, REQUEST_MAX};

    fn through_a_frame(request: &Request) -> Request {
        let frame = encode(&request.to_envelope(7).unwrap(), REQUEST_MAX).unwrap();
        let mut decoder = Decoder::new(REQUEST_MAX);
        decoder.push(&frame);
        let envelope: Envelope = decoder.next_value().unwrap().unwrap();
        assert_eq!(envelope.id, 7);
        Request::from_envelope(&envelope).unwrap()
    }

    #[test]
    fn every_request_survives_its_frame() {
        let peers = vec!["host2".parse().unwrap(), "[fd00::2]:6800".parse().unwrap()];
        for request in [
            Request::Status,
            Request::Connect { replace: true, peers: peers.clone() },
            Request::Forget { peers },
            Request::ForgetIdentity { names: vec!["02:00:00:00:00:01".parse().unwrap()] },
            Request::Stop,
            Request::Leave,
            Request::AttachmentsChanged,
            Request::Reload,
            Request::LogLevel { level: "debug".into() },
            Request::Ping { peer: "02:00:00:00:00:01".parse().unwrap(), size: 64 },
            Request::Names,
            Request::AttachedElsewhere { addresses: vec!["10.2.1.1".parse().unwrap()] },
            Request::Subscribe,
        ] {
            assert_eq!(through_a_frame(&request), request);
        }
    }

    fn read(text: &str) -> Result<Request, Code> {
        let envelope: Envelope = serde_json::from_str(text).unwrap();
        Request::from_envelope(&envelope).map_err(|problem| problem.code)
    }

    #[test]
    fn unknown_commands_and_bad_arguments_are_typed_errors() {
        assert_eq!(read(r#"{"id":1,"command":"explode"}"#), Err(Code::UnknownCommand));
        assert_eq!(read(r#"{"id":1,"command":"connect"}"#), Err(Code::BadRequest));
        assert_eq!(
            read(r#"{"id":1,"command":"connect","arguments":{"peers":["a b"]}}"#),
            Err(Code::BadRequest)
        );
        let many = serde_json::to_string(&vec!["h"; PEERS_MAX + 1]).unwrap();
        assert_eq!(
            read(&format!(r#"{{"id":1,"command":"forget","arguments":{{"peers":{many}}}}}"#)),
            Err(Code::TooLarge)
        );
        let many = serde_json::to_string(&vec!["10.2.1.1"; ADDRESSES_MAX + 1]).unwrap();
        assert_eq!(
            read(&format!(r#"{{"id":1,"command":"attached-elsewhere","arguments":{{"addresses":{many}}}}}"#)),
            Err(Code::TooLarge)
        );
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let text = r#"{"id":1,"new":[],"command":"connect","arguments":{"peers":["h"],"gently":true}}"#;
        assert_eq!(read(text), Ok(Request::Connect { replace: false, peers: vec!["h".parse().unwrap()] }));
    }

    #[test]
    fn another_version_is_refused_with_both_named() {
        let hello = Hello { control_protocol: 9, software: "3.0.0".into() };
        let problem = hello.check().unwrap_err();
        assert_eq!(problem.code, Code::Version);
        assert!(problem.why.contains("3.0.0"));
        assert!(Hello::ours().check().is_ok());
    }

    #[test]
    fn responses_survive_their_frames() {
        for outcome in [Outcome::Ok(Reply::Done), Outcome::Error(Problem::failed("a", "b", "c"))] {
            let response = Response { id: 3, more: false, outcome };
            let frame = encode(&response, REPLY_MAX).unwrap();
            let mut decoder = Decoder::new(REPLY_MAX);
            decoder.push(&frame);
            assert_eq!(decoder.next_value::<Response>().unwrap().unwrap(), response);
        }
    }
}
