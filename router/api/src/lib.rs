//! The control socket of a router: its types, its frames and a client.
//!
//! A conversation is a sequence of frames over a Unix stream socket: 4 bytes of
//! length (big-endian), then one JSON object of that length. The first frame
//! each way is a [`Hello`] with the version of this protocol. Then the client
//! sends [`Envelope`]s, each with an id of its own, and the router answers each
//! with one or more [`Response`]s of that id; `more` announces another.
//! Fields that a reader does not know are ignored; a command that a router
//! does not know is answered with [`Code::UnknownCommand`].
//!
//! Nothing here knows an executor: [`frame`] and [`server`] turn bytes into
//! values and back; [`client`] drives them over a blocking socket.
#![forbid(unsafe_code)]

pub mod client;
pub mod frame;
pub mod keeper;
pub mod names;
pub mod problem;
pub mod report;
pub mod request;
pub mod server;
pub mod sidecar;
pub mod socket;
pub mod software;
pub mod status;
pub mod target;
pub mod updates;

pub use client::{Client, ClientError};
pub use problem::{Code, OneLine, Problem};
pub use report::Report;
pub use request::{Envelope, Hello, Outcome, Reply, Request, Response};
pub use software::Software;
pub use status::Status;
pub use target::Target;

/// Version of the control protocol. Raised when a reader of the version before
/// would misunderstand; new fields and commands do not raise it.
pub const PROTOCOL_VERSION: u16 = 1;
/// Largest frame a client may send, bytes after the length.
pub const REQUEST_MAX: usize = 64 * 1024;
/// Largest frame a router may send, bytes after the length.
pub const REPLY_MAX: usize = 1024 * 1024;
