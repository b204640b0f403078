//! Frames: 4 bytes of length, big-endian, then one JSON object.
//!
//! Sans-io: [`encode`] makes bytes to write, a [`Decoder`] is fed bytes as they
//! were read. Both hold to a limit that the caller names.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of length before each frame.
pub const LENGTH_LEN: usize = 4;

/// Why bytes are no frame. After any of these the stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame is longer than allowed.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// Length announced or needed, bytes.
        length: usize,
        /// Longest allowed, bytes.
        limit: usize,
    },
    /// The content is not JSON of the expected shape, or cannot be written as JSON.
    #[error("a frame is not what it should be: {0}")]
    Json(#[from] serde_json::Error),
    /// The other end closed the stream inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
}

/// The frame that holds `value`.
///
/// # Errors
/// When it would be longer than `limit` bytes.
pub fn encode<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; LENGTH_LEN];
    serde_json::to_writer(&mut frame, value)?;
    let length = frame.len() - LENGTH_LEN;
    let header = u32::try_from(length)
        .ok()
        .filter(|_| length <= limit)
        .ok_or(FrameError::TooLarge { length, limit })?;
    frame[..LENGTH_LEN].copy_from_slice(&header.to_be_bytes());
    Ok(frame)
}

/// Cuts a stream of bytes into frames.
///
/// Holds at most one frame of `limit` bytes and what was pushed behind it;
/// call [`Decoder::next_frame`] until `None` before pushing again.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder of frames of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, limit }
    }

    /// Takes bytes as they were read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The content of the next whole frame; `None`: more bytes are needed.
    ///
    /// # Errors
    /// When the frame is longer than the limit, known as soon as its length is.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let Some((header, rest)) =
            self.buffer.get(self.start..).and_then(|rest| rest.split_first_chunk::<LENGTH_LEN>())
        else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLarge { length, limit: self.limit });
        }
        let Some(content) = rest.get(..length) else {
            return Ok(None);
        };
        self.start += LENGTH_LEN + length;
        Ok(Some(content))
    }

    /// The next whole frame read as a `T`; `None`: more bytes are needed.
    ///
    /// # Errors
    /// When the frame is too long or no `T`.
    pub fn next_value<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        match self.next_frame()? {
            Some(content) => Ok(Some(serde_json::from_slice(content)?)),
            None => Ok(None),
        }
    }

    /// The other end closed the stream.
    ///
    /// # Errors
    /// When that cut a frame.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.start == self.buffer.len() { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_over_the_limit_is_refused_by_both_ends() {
        assert!(matches!(
            encode(&"x".repeat(99), 100),
            Err(FrameError::TooLarge { length: 101, limit: 100 })
        ));
        assert!(encode(&"x".repeat(98), 100).is_ok());
        let mut decoder = Decoder::new(100);
        decoder.push(&101u32.to_be_bytes());
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLarge { length: 101, limit: 100 })));
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_known() {
        let mut decoder = Decoder::new(100);
        assert!(decoder.end().is_ok());
        decoder.push(&encode(&"x", 100).unwrap());
        assert!(decoder.end().is_err());
        assert_eq!(decoder.next_value::<String>().unwrap().unwrap(), "x");
        assert!(decoder.end().is_ok());
        decoder.push(&[0]);
        assert!(decoder.end().is_err());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut_of_the_stream(
            texts in proptest::collection::vec("\\PC{0,40}", 0..10),
            cuts in proptest::collection::vec(1usize..50, 1..100),
        ) {
            let stream: Vec<u8> = texts.iter().flat_map(|text| encode(text, 1000).unwrap()).collect();
            let mut decoder = Decoder::new(1000);
            let mut seen = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                decoder.push(now);
                rest = later;
                while let Some(text) = decoder.next_value::<String>().unwrap() {
                    seen.push(text);
                }
            }
            prop_assert!(decoder.end().is_ok());
            prop_assert_eq!(seen, texts);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut decoder = Decoder::new(64);
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_value::<serde_json::Value>() {}
        }
    }
}
