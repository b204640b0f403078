//! Where the control socket is, and when its place can be trusted.
//!
//! Both ends hold to the same rule: the socket lives in a directory `control`
//! of mode 0700 that belongs to root (or to the user who runs this process);
//! symbolic links are not followed. So whoever reaches the socket is root.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest path a Unix socket can have, bytes (`sun_path` less its NUL).
pub const SOCKET_PATH_MAX: usize = 107;

/// Why the place of the control socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// There is no socket: no router runs with this run directory.
    #[error("{} does not exist", .0.display())]
    Absent(PathBuf),
    /// This user may not look there.
    #[error("{} may be entered by root only", .0.display())]
    NotPermitted(PathBuf),
    /// Someone else could have put the socket there.
    #[error("{} {}", .path.display(), .why)]
    Unsafe {
        /// What was looked at.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The path does not fit a socket address.
    #[error("{} is longer than the {SOCKET_PATH_MAX} bytes of a socket's path", .0.display())]
    TooLong(PathBuf),
    /// The file system said no.
    #[error("{}: {}", .path.display(), .error)]
    Io {
        /// What was looked at or made.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// The directory of the control socket.
#[must_use]
pub fn directory(run_dir: &Path) -> PathBuf {
    run_dir.join("control")
}

/// The control socket of the router whose run directory is `run_dir`.
#[must_use]
pub fn path(run_dir: &Path) -> PathBuf {
    directory(run_dir).join("control.sock")
}

/// Makes the run directory (0711) and the socket's directory (0700) if they are
/// absent, checks the latter and gives the path to bind. For the router.
///
/// # Errors
/// When they cannot be made or the place is not safe.
pub fn prepare(run_dir: &Path) -> Result<PathBuf, SocketError> {
    let socket = path(run_dir);
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(SocketError::TooLong(socket));
    }
    make(run_dir, 0o711)?;
    make(&directory(run_dir), 0o700)?;
    check_directory(&directory(run_dir))?;
    Ok(socket)
}

/// Checks the place and gives the path to connect to. For the client.
///
/// # Errors
/// When there is no socket or the place is not safe.
pub fn check(run_dir: &Path) -> Result<PathBuf, SocketError> {
    let socket = path(run_dir);
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(SocketError::TooLong(socket));
    }
    check_directory(&directory(run_dir))?;
    let kind = look(&socket)?.file_type();
    if kind.is_socket() {
        Ok(socket)
    } else {
        Err(SocketError::Unsafe { path: socket, why: "is not a socket" })
    }
}

fn make(path: &Path, mode: u32) -> Result<(), SocketError> {
    match std::fs::DirBuilder::new().recursive(false).mode(mode).create(path) {
        // The mode of a new directory is narrowed by the umask; what others may
        // read here (pid files) they shall.
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|error| io_error(path, error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io_error(path, error)),
    }
}

fn check_directory(path: &Path) -> Result<(), SocketError> {
    let metadata = look(path)?;
    let wrong = |why| Err(SocketError::Unsafe { path: path.to_owned(), why });
    if metadata.file_type().is_symlink() {
        return wrong("is a symbolic link, which is not followed here");
    }
    if !metadata.is_dir() {
        return wrong("is not a directory");
    }
    let own = std::fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or(0);
    if metadata.uid() != 0 && metadata.uid() != own {
        return wrong("does not belong to root");
    }
    if metadata.mode() & 0o077 != 0 {
        return wrong("is open to other users (its mode must be 0700)");
    }
    Ok(())
}

fn look(path: &Path) -> Result<std::fs::Metadata, SocketError> {
    std::fs::symlink_metadata(path).map_err(|error| io_error(path, error))
}

fn io_error(path: &Path, error: io::Error) -> SocketError {
    // One path for each kind of failure keeps the texts of both ends the same.
    if error.kind() == io::ErrorKind::NotFound {
        SocketError::Absent(path.to_owned())
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        SocketError::NotPermitted(path.to_owned())
    } else {
        SocketError::Io { path: path.to_owned(), error }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixListener;

    fn why(result: Result<PathBuf, SocketError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_prepared_place_with_a_socket_is_good() {
        let run = tempfile::tempdir().unwrap();
        let run_dir = run.path().join("run");
        let socket = prepare(&run_dir).unwrap();
        assert!(matches!(check(&run_dir), Err(SocketError::Absent(_))));
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(check(&run_dir).unwrap(), socket);
        assert_eq!(prepare(&run_dir).unwrap(), socket);
        assert_eq!(look(&run_dir).unwrap().mode() & 0o777, 0o711);
    }

    #[test]
    fn a_place_others_can_reach_is_refused() {
        let run = tempfile::tempdir().unwrap();
        let socket = prepare(run.path()).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(directory(run.path()), std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(why(check(run.path())).contains("0700"));
        assert!(why(prepare(run.path())).contains("0700"));
    }

    #[test]
    fn symbolic_links_are_refused() {
        let run = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let socket = prepare(elsewhere.path()).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(directory(elsewhere.path()), directory(run.path())).unwrap();
        assert!(why(check(run.path())).contains("symbolic link"));

        std::fs::remove_file(directory(run.path())).unwrap();
        prepare(run.path()).unwrap();
        std::os::unix::fs::symlink(&socket, path(run.path())).unwrap();
        assert!(why(check(run.path())).contains("not a socket"));
    }

    #[test]
    fn no_run_directory_means_no_router() {
        assert!(matches!(check(Path::new("/nonexistent/weave")), Err(SocketError::Absent(_))));
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_said_before_anything_is_made() {
        let run = tempfile::tempdir().unwrap();
        let run_dir = run.path().join("x".repeat(100));
        assert!(matches!(prepare(&run_dir), Err(SocketError::TooLong(_))));
        assert!(!run_dir.exists());
    }
}
