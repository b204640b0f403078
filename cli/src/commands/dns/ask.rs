//! Asks the sidecar.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::de::DeserializeOwned;
use weave_api::REPLY_MAX;
use weave_api::names::{ANSWER_WITHIN, Lookup, SidecarStatus, sidecar_socket};
use weave_wire::HostName;

/// What the sidecar tells of itself.
pub fn status(run_dir: &Path) -> std::io::Result<SidecarStatus> {
    ask(run_dir, "status")
}

/// What a name stands for.
pub fn lookup(run_dir: &Path, name: &HostName) -> std::io::Result<Lookup> {
    ask(run_dir, &format!("lookup {name}"))
}

fn ask<T: DeserializeOwned>(run_dir: &Path, line: &str) -> std::io::Result<T> {
    let mut stream = UnixStream::connect(sidecar_socket(run_dir))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(REPLY_MAX as u64)).read_until(b'\n', &mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
