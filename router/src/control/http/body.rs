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
pub(super) struct Body {
    content: Content,
    /// With whom it goes to the client.
    patience: Option<Rc<Patience>>,
}

enum Content {
    /// What is left of it, and the place it takes while it is sent.
    Whole { rest: Bytes, _place: Option<Place> },
    /// Events as they come, each of which gives the client more time.
    Events { listener: Listener, rest: Bytes },
}

impl Body {
    /// All of it, which takes a place while it is sent.
    pub(super) const fn placed(rest: Bytes, place: Place) -> Self {
        Self { content: Content::Whole { rest, _place: Some(place) }, patience: None }
    }

    /// Events as they come.
    pub(super) const fn events(listener: Listener) -> Self {
        Self { content: Content::Events { listener, rest: Bytes::new() }, patience: None }
    }

    /// The same, for a client that is waited for so.
    pub(super) fn with(mut self, patience: Rc<Patience>) -> Self {
        self.patience = Some(patience);
        self
    }
}

impl From<Bytes> for Body {
    fn from(rest: Bytes) -> Self {
        Self { content: Content::Whole { rest, _place: None }, patience: None }
    }
}

impl Drop for Body {
    /// By then the connection has all of it.
    fn drop(&mut self) {
        if let Some(patience) = &self.patience {
            patience.answered();
        }
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
        let Self { content, patience } = self.get_mut();
        match content {
            Content::Whole { rest, .. } => Poll::Ready(piece(rest).map(|piece| Ok(Frame::data(piece)))),
            Content::Events { listener, rest } => {
                if rest.is_empty() {
                    // Asked for when the one before is on its way: a client that does not read gets
                    // no more time.
                    let Some(event) = ready!(listener.poll_next(cx)) else { return Poll::Ready(None) };
                    if let Some(patience) = patience {
                        patience.begin();
                    }
                    *rest = event;
                }
                Poll::Ready(piece(rest).map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole { rest, .. } if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole { rest, .. } => SizeHint::with_exact(rest.len() as u64),
            Content::Events { .. } => SizeHint::default(),
        }
    }
}
