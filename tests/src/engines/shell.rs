//! The shell of a host: variables stay from one line to the next.

use std::path::{Path, PathBuf};
use std::process::Command;

use weave_perf::lab::Host;

use crate::world::{World, weave};

/// Gives a command the addresses of all hosts, `$HOST1` and so on, and the executable under test
/// and `tools` in its path.
pub(super) fn set_variables(command: &mut Command, world: &World, tools: &Path) {
    for index in world.indices() {
        command.env(format!("HOST{}", index + 1), world.host(index).v4().to_string());
    }
    let mut path = vec![weave().parent().unwrap().to_owned(), tools.to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    path.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    command.env("PATH", std::env::join_paths(path).unwrap()).env_remove("DOCKER_HOST");
}

/// A line of shell that finds the variables that earlier ones set on this host, and leaves its own.
pub(super) fn remembering(host: &Host, line: &str) -> String {
    let file = host.directory().join("variables");
    let file = file.display();
    // A line in the background must not end with variables that are older than those of others.
    format!("set -a\n[ -f {file} ] && . {file}\n{line}\nstatus=$?\nexport -p >{file}\nexit $status\n")
}
