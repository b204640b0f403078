//! A TCP connection as hyper wants it.

use crate::rt::TcpStream;
use futures_lite::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Bytes read at once.
const READ: usize = 4 << 10;

/// See the module.
pub(super) struct Stream {
    stream: TcpStream,
    buffer: Box<[u8; READ]>,
}

impl Stream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Box::new([0; READ]) }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, buffer } = self.get_mut();
        let room = cursor.remaining().min(READ);
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        let len = ready!(Pin::new(stream).poll_read(cx, buffer))?;
        cursor.put_slice(buffer.get(..len).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
