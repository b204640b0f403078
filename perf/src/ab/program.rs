//! Programs of this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::{Error, Result};

/// Where programs are, should `PATH` lack the half of them, as it does without a login of root.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The first file `name` among the directories that hold programs.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// The file itself, whatever directory it will be started in.
///
/// # Errors
/// There is no such file.
pub fn named(program: &Path) -> Result<PathBuf> {
    program.canonicalize().map_err(|e| Error::file("find the program", program, e))
}

/// The build of `weave` that was named; none named: the one beside this program or in `PATH`.
///
/// # Errors
/// There is none.
pub fn weave(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(program) => named(program),
        None => beside_this_program("weave").or_else(|| find("weave")).ok_or_else(|| {
            Error::Request("there is no weave beside this program or in PATH: give one by --weave".to_owned())
        }),
    }
}

/// A program in the directory of this one.
pub fn beside_this_program(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    Some(own.with_file_name(name)).filter(|program| program.is_file())
}

/// The first line that `program` with `argument` prints, as a rule its version; nothing if it
/// prints none.
pub fn first_line(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name_and_a_missing_one_is_not() {
        assert!(find("sh").unwrap().is_absolute());
        assert_eq!(find("no-such-program-here"), None);
        assert!(named(Path::new("no/such/program")).is_err());
    }
}
