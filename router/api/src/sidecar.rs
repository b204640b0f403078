//! Asks the DNS sidecar about itself, over its own socket.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use weave_wire::HostName;

use crate::REPLY_MAX;
use crate::names::{ANSWER_WITHIN, Lookup, SidecarStatus, sidecar_socket};

/// What the sidecar tells of itself within `limit`.
///
/// # Errors
/// When it does not answer, or makes no sense.
pub fn status(run_dir: &Path, limit: Duration) -> io::Result<SidecarStatus> {
    ask(run_dir, "status", limit)
}

/// What a name stands for.
///
/// # Errors
/// When it does not answer, or makes no sense.
pub fn lookup(run_dir: &Path, name: &HostName) -> io::Result<Lookup> {
    ask(run_dir, &format!("lookup {name}"), ANSWER_WITHIN)
}

/// Connects within `limit`: with a full backlog the kernel would wait for as long as the sidecar
/// hangs.
fn connect(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    // It holds for connecting, too (unix(7)).
    socket.set_write_timeout(Some(limit))?;
    socket.connect(&socket2::SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

fn ask<T: DeserializeOwned>(run_dir: &Path, line: &str, limit: Duration) -> io::Result<T> {
    let deadline = Instant::now() + limit;
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    let mut stream = connect(&sidecar_socket(run_dir), limit)?;
    stream.set_write_timeout(left()?)?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.ends_with(b"\n") && answer.len() <= REPLY_MAX {
        stream.set_read_timeout(left()?)?;
        match stream.read(&mut chunk)? {
            0 => break,
            len => answer.extend_from_slice(chunk.get(..len).unwrap_or_default()),
        }
    }
    Ok(serde_json::from_slice(&answer)?)
}
