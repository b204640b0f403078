//! Messages between two routers, in the order of their use on a TCP connection:
//!
//! 1. [`handshake`] (or [`resume`], on a link that was there before): the only
//!    bytes a stranger can make us read; at most 512 each.
//! 2. [`record`]: from then on the stream is a sequence of sealed records.
//! 3. [`message`]: what the records carry.
//!
//! [`gossip`] is what the messages tell of other peers; [`heartbeat`] is what the control lane carries over UDP.

mod field;
pub mod gossip;
pub mod handshake;
pub mod heartbeat;
pub mod message;
pub mod record;
pub mod resume;

/// Why bytes are no message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The length field exceeds what is allowed at this point.
    #[error("a message of {len} bytes where at most {limit} are allowed")]
    TooLong {
        /// The length announced, bytes.
        len: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// The message ends before its fields do.
    #[error("a message ends in the middle of {what}")]
    Truncated {
        /// The part that is incomplete.
        what: &'static str,
    },
    /// A field holds a value that its type does not have.
    #[error("a message holds no valid {what}")]
    Invalid {
        /// The field.
        what: &'static str,
    },
    /// A field that must be there is not.
    #[error("a message lacks {what}")]
    Missing {
        /// The field.
        what: &'static str,
    },
    /// A field that may be there once is there more often.
    #[error("a message holds {what} twice")]
    Repeated {
        /// The field.
        what: &'static str,
    },
    /// The connection does not speak this protocol, or speaks it out of order.
    #[error("not {what}")]
    Unexpected {
        /// The message that was due.
        what: &'static str,
    },
}
