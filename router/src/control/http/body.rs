//! What answers carry.

use super::feed::Listener;
use super::{NEXT_REQUEST_WITHIN, Place};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// The body of an answer.
pub(super) enum Body {
    /// All of it, and the place it takes while it is sent.
    Whole { bytes: Option<Bytes>, _place: Option<Place> },
    /// Events as they come, each of which gives the client more time.
    Events { listener: Listener, deadline: Rc<Cell<Instant>> },
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole { bytes: Some(bytes), _place: None }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events { listener, deadline } => {
                // Asked for when the one before is on its way: a client that does not read gets no
                // more time.
                let event = ready!(listener.poll_next(cx));
                deadline.set(Instant::now() + NEXT_REQUEST_WITHIN);
                Poll::Ready(event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole { bytes: None, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Events { .. } => SizeHint::default(),
        }
    }
}
