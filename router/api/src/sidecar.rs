//! Asks the DNS sidecar about itself, over its own socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use weave_wire::HostName;

use crate::REPLY_MAX;
use crate::names::{ANSWER_WITHIN, Lookup, SidecarStatus, sidecar_socket};

/// What the sidecar tells of itself; each read and write takes at most `limit`.
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

fn ask<T: DeserializeOwned>(run_dir: &Path, line: &str, limit: Duration) -> io::Result<T> {
    let mut stream = UnixStream::connect(sidecar_socket(run_dir))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(REPLY_MAX as u64)).read_until(b'\n', &mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
