//! What re-keying asks of its driver, and what it refuses.

use crate::{Key, LinkKeys};
use weave_wire::SessionIndex;
use weave_wire::link::message::Message;

/// What the driver is to do, in the order given.
#[derive(Debug, Clone)]
pub enum RekeyAction {
    /// Send this on the TCP link.
    Send(Message),
    /// Seal what follows on the TCP link under this key.
    SwitchTcpSend(Key),
    /// Open what follows on the TCP link under this key.
    SwitchTcpReceive(Key),
    /// Accept datagrams of this session in all shards; when all have said so,
    /// call [`Rekey::on_receive_installed`].
    InstallReceive {
        /// Our name of the session in the headers of the peer.
        session: SessionIndex,
        /// The keys of its epoch.
        keys: LinkKeys,
    },
    /// Send all further datagrams under these keys.
    SwitchSend {
        /// The peer's name of the session.
        session: SessionIndex,
        /// The keys of its epoch.
        keys: LinkKeys,
    },
    /// Forget this session of ours and its keys.
    DropReceive(SessionIndex),
}

/// The peer broke the protocol: close the TCP connection. The link and its keys
/// are as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// A message that is not due from this peer, in this epoch, on this connection.
    #[error("the peer sent a re-key message out of order ({0})")]
    Unexpected(&'static str),
    /// A key of low order, or our own.
    #[error("the peer sent an invalid key share for re-keying")]
    BadShare,
}
