//! What answers carry.

use super::Place;
use super::feed::Listener;
use super::patience::Patience;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Bytes given to a connection at once: it copies them and keeps them until they are sent.
const PIECE: usize = 16 << 10;

/// The body of an answer.
pub(super) enum Body {
    /// What is left of it, and the place it takes while it is sent.
    Whole { rest: Bytes, _place: Option<Place> },
    /// Events as they come, each of which gives the client more time.
    Events { listener: Listener, rest: Bytes, patience: Rc<Patience> },
}

impl From<Bytes> for Body {
    fn from(rest: Bytes) -> Self {
        Self::Whole { rest, _place: None }
    }
}

/// The next piece of `rest`; `None` at its end.
fn piece(rest: &mut Bytes) -> Option<Bytes> {
    if rest.is_empty() { None } else { Some(rest.split_to(rest.len().min(PIECE))) }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole { rest, .. } => Poll::Ready(piece(rest).map(|piece| Ok(Frame::data(piece)))),
            Self::Events { listener, rest, patience } => {
                if rest.is_empty() {
                    // Asked for when the one before is on its way: a client that does not read gets
                    // no more time.
                    let Some(event) = ready!(listener.poll_next(cx)) else { return Poll::Ready(None) };
                    patience.begin();
                    *rest = event;
                }
                Poll::Ready(piece(rest).map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole { rest, .. } if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { rest, .. } => SizeHint::with_exact(rest.len() as u64),
            Self::Events { .. } => SizeHint::default(),
        }
    }
}
