//! The router's side of a conversation, without the socket.
//!
//! For each client the router keeps one [`Conversation`], sends
//! [`hello_frame`], feeds what it reads to [`Conversation::push`] and takes what
//! came of it from [`Conversation::next_incoming`] until `None`. Answers are
//! made by [`response_frames`]. Limits on clients and on time are the caller's:
//! [`CLIENTS_MAX`], [`REQUEST_TIME_LIMIT`].

use std::time::Duration;

use crate::frame::{Decoder, FrameError, encode};
use crate::problem::{Code, Problem};
use crate::request::{Envelope, Hello, Outcome, Reply, Request, Response};
use crate::status::PAGE_ENTRIES;
use crate::{REPLY_MAX, REQUEST_MAX};

/// Most clients at once.
pub const CLIENTS_MAX: usize = 32;
/// Time a client has to send one request, and to take an answer.
pub const REQUEST_TIME_LIMIT: Duration = Duration::from_secs(5);

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A request to answer under `id`.
    Request {
        /// The client's id of it.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// A request that is answered already: send the frame and go on.
    Refused(Vec<u8>),
    /// The stream makes no sense: send the frame and close.
    Close(Vec<u8>),
}

/// One client's stream.
#[derive(Debug)]
pub struct Conversation {
    decoder: Decoder,
    greeted: bool,
    closed: bool,
}

impl Default for Conversation {
    fn default() -> Self {
        Self { decoder: Decoder::new(REQUEST_MAX), greeted: false, closed: false }
    }
}

impl Conversation {
    /// Takes bytes as they were read from the client.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.decoder.push(bytes);
        }
    }

    /// What the bytes held; `None`: read more. After [`Incoming::Close`] always `None`.
    pub fn next_incoming(&mut self) -> Option<Incoming> {
        if self.closed {
            return None;
        }
        if !self.greeted {
            match self.decoder.next_value::<Hello>() {
                Ok(None) => return None,
                Ok(Some(hello)) => match hello.check() {
                    Ok(()) => self.greeted = true,
                    Err(problem) => return Some(self.close(problem)),
                },
                Err(error) => return Some(self.close(unreadable(&error))),
            }
        }
        match self.decoder.next_value::<Envelope>() {
            Ok(None) => None,
            Ok(Some(envelope)) => Some(match Request::from_envelope(&envelope) {
                Ok(request) => Incoming::Request { id: envelope.id, request },
                Err(problem) => Incoming::Refused(problem_frame(envelope.id, problem)),
            }),
            Err(error) => Some(self.close(unreadable(&error))),
        }
    }

    fn close(&mut self, problem: Problem) -> Incoming {
        self.closed = true;
        Incoming::Close(problem_frame(0, problem))
    }
}

fn unreadable(error: &FrameError) -> Problem {
    let code = match error {
        FrameError::TooLarge { .. } => Code::TooLarge,
        FrameError::Json(_) | FrameError::Truncated => Code::BadRequest,
    };
    Problem::new(code, "cannot read the request", error, "")
}

/// The first frame to send.
#[must_use]
pub fn hello_frame() -> Vec<u8> {
    encode(&Hello::ours(), REPLY_MAX).unwrap_or_default()
}

/// The frames that answer request `id`.
#[must_use]
pub fn response_frames(id: u64, outcome: Result<Reply, Problem>) -> Vec<Vec<u8>> {
    let replies = match outcome {
        Err(problem) => return vec![problem_frame(id, problem)],
        Ok(Reply::Status(status)) => {
            status.into_pages().into_iter().map(|page| Reply::Status(Box::new(page))).collect()
        }
        Ok(Reply::Names(names)) if names.is_empty() => vec![Reply::Names(names)],
        Ok(Reply::Names(names)) => {
            names.chunks(PAGE_ENTRIES).map(|page| Reply::Names(page.to_vec())).collect()
        }
        Ok(reply @ (Reply::Done | Reply::Pinged(_) | Reply::AttachedElsewhere(_))) => vec![reply],
    };
    let last = replies.len() - 1;
    let frame =
        |(index, reply)| encode(&Response { id, more: index < last, outcome: Outcome::Ok(reply) }, REPLY_MAX);
    match replies.into_iter().enumerate().map(frame).collect() {
        Ok(frames) => frames,
        Err(error) => vec![problem_frame(id, Problem::new(Code::TooLarge, "cannot answer", error, ""))],
    }
}

/// The frame that refuses request `id` (0: the conversation).
fn problem_frame(id: u64, problem: Problem) -> Vec<u8> {
    encode(&Response { id, more: false, outcome: Outcome::Error(problem) }, REPLY_MAX).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn greeted() -> Conversation {
        let mut conversation = Conversation::default();
        conversation.push(&encode(&Hello::ours(), REQUEST_MAX).unwrap());
        conversation
    }

    fn code_of(frame: &[u8]) -> Code {
        let mut decoder = Decoder::new(REPLY_MAX);
        decoder.push(frame);
        match decoder.next_value::<Response>().unwrap().unwrap().outcome {
            Outcome::Error(problem) => problem.code,
            Outcome::Ok(reply) => panic!("{reply:?}"),
        }
    }

    #[test]
    fn requests_come_out_in_order_with_their_ids() {
        let mut conversation = greeted();
        for id in [4, 2] {
            conversation.push(&encode(&Request::Stop.to_envelope(id).unwrap(), REQUEST_MAX).unwrap());
        }
        assert_eq!(conversation.next_incoming(), Some(Incoming::Request { id: 4, request: Request::Stop }));
        assert_eq!(conversation.next_incoming(), Some(Incoming::Request { id: 2, request: Request::Stop }));
        assert_eq!(conversation.next_incoming(), None);
    }

    #[test]
    fn an_unknown_command_is_refused_and_the_conversation_goes_on() {
        let mut conversation = greeted();
        let envelope = Envelope { id: 9, command: "explode".into(), arguments: None };
        conversation.push(&encode(&envelope, REQUEST_MAX).unwrap());
        conversation.push(&encode(&Request::Status.to_envelope(10).unwrap(), REQUEST_MAX).unwrap());
        let Some(Incoming::Refused(frame)) = conversation.next_incoming() else { panic!() };
        assert_eq!(code_of(&frame), Code::UnknownCommand);
        assert_eq!(
            conversation.next_incoming(),
            Some(Incoming::Request { id: 10, request: Request::Status })
        );
    }

    #[test]
    fn another_version_ends_the_conversation() {
        let mut conversation = Conversation::default();
        let hello = Hello { control_protocol: 2, software: "9".into() };
        conversation.push(&encode(&hello, REQUEST_MAX).unwrap());
        let Some(Incoming::Close(frame)) = conversation.next_incoming() else { panic!() };
        assert_eq!(code_of(&frame), Code::Version);
        assert_eq!(conversation.next_incoming(), None);
    }

    #[test]
    fn a_request_over_the_limit_ends_the_conversation_before_it_is_stored() {
        let mut conversation = greeted();
        conversation.push(&u32::try_from(REQUEST_MAX + 1).unwrap().to_be_bytes());
        let Some(Incoming::Close(frame)) = conversation.next_incoming() else { panic!() };
        assert_eq!(code_of(&frame), Code::TooLarge);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(greet: bool, chunks: Vec<Vec<u8>>) {
            let mut conversation = if greet { greeted() } else { Conversation::default() };
            for chunk in chunks {
                conversation.push(&chunk);
                while conversation.next_incoming().is_some() {}
            }
        }

        #[test]
        fn arbitrary_text_in_frames_never_panics(texts in proptest::collection::vec("\\PC{0,60}", 0..5)) {
            let mut conversation = greeted();
            for text in texts {
                conversation.push(&u32::try_from(text.len()).unwrap().to_be_bytes());
                conversation.push(text.as_bytes());
                while conversation.next_incoming().is_some() {}
            }
        }
    }
}
