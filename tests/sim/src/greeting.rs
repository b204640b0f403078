//! The first messages of a connection: handshake or resumption.
//!
//! Follows `router/src/control/greeting.rs`, without the arithmetic.

use crate::frames::Session;
use crate::identity::Who;
use crate::tcp::Greeting;
use std::time::Duration;
use weave_mesh::{DialId, Ticket};

/// Time for the whole exchange.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Wait before a refused connection is closed: between one and two of these.
pub const REFUSAL_DELAY: Duration = Duration::from_secs(1);

/// What a dial is for.
#[derive(Debug, Clone, Copy)]
pub enum Dial {
    /// A new link.
    Link {
        /// The dialler's entry.
        id: DialId,
    },
    /// A link that goes on.
    Resume(Session),
}

/// How far an exchange is.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// Dialled; nobody answered yet.
    Connecting(Dial),
    /// We said hello.
    SaidHello(Dial),
    /// We confirmed; the peer is who it says.
    Confirmed(Dial, Who),
    /// We asked to go on.
    AskedToResume(Session),
    /// Somebody connected.
    Accepted(Ticket),
    /// We said hello back.
    Answered(Ticket, Who),
    /// We proved that we know the link.
    ProvedLink(Ticket, Session),
    /// To be closed at the deadline.
    Refused(Ticket),
}

/// What becomes of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send this, and go on.
    Send(Greeting),
    /// The link is made; send this before, if there is something.
    Made(Who, Option<Greeting>),
    /// The link goes on; send this before, if there is something.
    Resumed(Session, Option<Greeting>),
    /// Refused, by the end that was dialled: it closes after a while.
    Refuse,
    /// Refused, by the end that dialled.
    Failed {
        /// Time alone does not cure it.
        refused: bool,
    },
}

/// Takes the next message. `knows`: whether a link can go on.
pub fn on_message(stage: &mut Stage, ours: Who, greeting: Greeting, knows: impl Fn(Session) -> bool) -> Step {
    let is_ourselves =
        |who: &Who| who.name == ours.name || who.uid == ours.uid || who.identity == ours.identity;
    match (*stage, greeting) {
        (Stage::Accepted(ticket), Greeting::Hello(who)) if !is_ourselves(&who) => {
            *stage = Stage::Answered(ticket, who);
            Step::Send(Greeting::HelloBack(ours))
        }
        (Stage::SaidHello(dial), Greeting::HelloBack(who)) if !is_ourselves(&who) => {
            *stage = Stage::Confirmed(dial, who);
            Step::Send(Greeting::Confirm)
        }
        (Stage::Answered(_, who), Greeting::Confirm) => Step::Made(who, Some(Greeting::Confirmed)),
        (Stage::Confirmed(_, who), Greeting::Confirmed) => Step::Made(who, None),
        (Stage::Accepted(ticket), Greeting::Resume(session)) if knows(session) => {
            *stage = Stage::ProvedLink(ticket, session);
            Step::Send(Greeting::Accept)
        }
        (Stage::AskedToResume(session), Greeting::Accept) => Step::Resumed(session, Some(Greeting::Proof)),
        (Stage::ProvedLink(_, session), Greeting::Proof) => Step::Resumed(session, None),
        (Stage::Accepted(_) | Stage::Answered(..) | Stage::ProvedLink(..) | Stage::Refused(_), _) => {
            Step::Refuse
        }
        (Stage::Connecting(_) | Stage::SaidHello(_) | Stage::Confirmed(..) | Stage::AskedToResume(_), _) => {
            Step::Failed { refused: true }
        }
    }
}
