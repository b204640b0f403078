//! A TCP connection as hyper wants it.

use super::patience::Patience;
use crate::rt::TcpStream;
use futures_lite::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Bytes read at once.
const READ: usize = 4 << 10;

/// See the module.
pub(super) struct Stream {
    stream: TcpStream,
    buffer: Box<[u8; READ]>,
    patience: Rc<Patience>,
}

impl Stream {
    pub(super) fn new(stream: TcpStream, patience: Rc<Patience>) -> Self {
        Self { stream, buffer: Box::new([0; READ]), patience }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, buffer, patience } = self.get_mut();
        let room = cursor.remaining().min(READ);
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        let len = ready!(Pin::new(stream).poll_read(cx, buffer))?;
        if len > 0 {
            patience.read();
        }
        cursor.put_slice(buffer.get(..len).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // Called once nothing is left to write.
        self.patience.sent();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
