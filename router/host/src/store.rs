//! Files of the state directory: versioned JSON, written so that a crash
//! leaves the old content or the new one, never half of it.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::failpoint::{before_step, failpoint};

/// Longest file of the state directory, bytes.
pub const FILE_MAX: u64 = 1 << 20;

/// Most files of a directory that are listed.
pub const FILES_MAX: usize = 16_384;

/// How long another command may hold the lock.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// Between two tries for the lock: flock(2) knows no time limit and no news.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Content that may be kept in a file.
pub trait StateFile: Serialize + DeserializeOwned {
    /// What the file holds, for example `attachment`.
    const KIND: &'static str;
    /// Format of the content; raised with every change older programs cannot read.
    const VERSION: u32;
}

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored<T> {
    /// The content.
    Content(T),
    /// There is no such file.
    Absent,
    /// The file is there but damaged; why.
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    kind: String,
    version: u32,
    content: T,
}

/// Only what tells how to read the rest.
#[derive(Deserialize)]
struct Label {
    kind: String,
    version: u32,
}

/// A directory for state, readable by its owner only.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// The lock on a directory; dropping it gives it back.
#[derive(Debug)]
pub struct StateLock {
    _lock: Flock<File>,
}

impl StateDir {
    /// Opens the directory, making it (mode 0700) and its parents if they are not there.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| state_error("make directory", &path, &error))?;
        Ok(Self { path })
    }

    /// The directory as it is, which may be absent: all reads then find nothing.
    #[must_use]
    pub fn existing(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock that commands hold while they change files here.
    ///
    /// # Errors
    /// [`Error::State`] when another one holds it for more than half a minute.
    pub fn lock(&self) -> Result<StateLock> {
        const STEP: &str = "lock";
        let deadline = Instant::now() + LOCK_LIMIT;
        let open = || File::open(&self.path).map_err(|error| state_error(STEP, &self.path, &error));
        let mut directory = open()?;
        loop {
            match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if self.is_at(&lock) => return Ok(StateLock { _lock: lock }),
                // Who held it removed the directory, as `reset` does, and there may be another.
                Ok(_) => directory = StateDir::create(&self.path).and_then(|_| open())?,
                Err((file, Errno::EAGAIN | Errno::EINTR)) if Instant::now() < deadline => directory = file,
                Err((_, Errno::EAGAIN)) => {
                    return Err(Error::State {
                        step: STEP,
                        path: self.path.clone(),
                        cause: "another weave command or the keeper holds it".to_owned(),
                        remedy:
                            "wait for that command, or end it; `weave keeper --renew` ends a keeper that \
                                 hangs"
                                .to_owned(),
                    });
                }
                Err((_, error)) => return Err(state_error(STEP, &self.path, &error.into())),
            }
            thread::sleep(LOCK_RETRY);
        }
    }

    /// Whether an open directory is the one at this path.
    fn is_at(&self, directory: &File) -> bool {
        let number = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let now = fs::metadata(&self.path).map(number).ok();
        now.is_some() && now == directory.metadata().map(number).ok()
    }

    /// Reads the file `name`.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be read at all or was written by a newer version.
    pub fn read<T: StateFile>(&self, name: &str) -> Result<Stored<T>> {
        const STEP: &str = "read";
        let path = self.path.join(name);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text));
        match read {
            Ok(len) if len as u64 > FILE_MAX => {
                return Ok(Stored::Damaged(format!("longer than {FILE_MAX} bytes")));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::Absent),
            Err(error) => return Err(state_error(STEP, &path, &error)),
        }
        let label: Label = match serde_json::from_slice(&text) {
            Ok(label) => label,
            Err(error) => return Ok(Stored::Damaged(error.to_string())),
        };
        if label.kind != T::KIND {
            return Ok(Stored::Damaged(format!("holds {:?} instead of {:?}", label.kind, T::KIND)));
        }
        if label.version > T::VERSION {
            return Err(Error::State {
                step: STEP,
                path,
                cause: format!("written by a newer weave (format {}, known {})", label.version, T::VERSION),
                remedy: "use that weave, or remove the file".to_owned(),
            });
        }
        match serde_json::from_slice::<Envelope<T>>(&text) {
            Ok(envelope) => Ok(Stored::Content(envelope.content)),
            Err(error) => Ok(Stored::Damaged(error.to_string())),
        }
    }

    /// Reads a file that only the caller writes (or holds the lock for); a
    /// damaged one is set aside and reported in the second place.
    ///
    /// # Errors
    /// As [`StateDir::read`]; when the damaged file cannot be renamed.
    pub fn read_own<T: StateFile>(&self, name: &str) -> Result<(Option<T>, Option<Aside>)> {
        match self.read(name)? {
            Stored::Content(content) => Ok((Some(content), None)),
            Stored::Absent => Ok((None, None)),
            Stored::Damaged(cause) => {
                let kept = self.set_aside(name)?;
                Ok((None, Some(Aside { kept, cause })))
            }
        }
    }

    /// The content of every file, for who only looks: damaged ones are left out.
    ///
    /// # Errors
    /// As [`StateDir::names`] and [`StateDir::read`].
    pub fn read_all<T: StateFile>(&self) -> Result<Vec<T>> {
        let mut all = Vec::new();
        for name in self.names()? {
            if let Stored::Content(content) = self.read(&name)? {
                all.push(content);
            }
        }
        Ok(all)
    }

    /// The content of every file, as [`StateDir::read_own`]: damaged ones are set aside and come
    /// second.
    ///
    /// # Errors
    /// As [`StateDir::names`] and [`StateDir::read_own`].
    pub fn read_all_own<T: StateFile>(&self) -> Result<(Vec<T>, Vec<Aside>)> {
        let (mut all, mut aside) = (Vec::new(), Vec::new());
        for name in self.names()? {
            let (content, damaged) = self.read_own(&name)?;
            all.extend(content);
            aside.extend(damaged);
        }
        Ok((all, aside))
    }

    /// Renames a damaged file to `NAME.bad`, in place of an earlier one; says where it is.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be renamed.
    pub fn set_aside(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        let kept = self.path.join(format!("{name}.bad"));
        fs::rename(&path, &kept).map_err(|error| state_error("set aside", &path, &error))?;
        self.sync()?;
        Ok(kept)
    }

    /// Writes the file `name`, in place of an earlier one. When this returns,
    /// the content survives a loss of power.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be written; the earlier file is untouched then.
    pub fn write<T: StateFile>(&self, name: &str, content: &T) -> Result<()> {
        const STEP: &str = "write";
        let path = self.path.join(name);
        let failed = |error: &io::Error| state_error(STEP, &path, error);
        let envelope = Envelope { kind: T::KIND.to_owned(), version: T::VERSION, content };
        let mut text = serde_json::to_vec_pretty(&envelope).map_err(|error| failed(&error.into()))?;
        text.push(b'\n');
        if text.len() as u64 > FILE_MAX {
            return Err(failed(&io::Error::from_raw_os_error(libc::EFBIG)));
        }
        // One name for each file, so that crashes leave at most one behind.
        let temporary = self.path.join(format!(".{name}.tmp"));
        before_step("write a file").map_err(|error| failed(&error))?;
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| before_step("rename a file"))
            .and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(failed(&error));
        }
        failpoint("go on after a file was written");
        self.sync()
    }

    /// Removes the file `name`; whether it was there.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<bool> {
        let path = self.path.join(name);
        match before_step("remove a file").and_then(|()| fs::remove_file(&path)) {
            Ok(()) => self.sync().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(state_error("remove", &path, &error)),
        }
    }

    /// Names of the files here that end in `.json`, sorted; at most [`FILES_MAX`].
    ///
    /// # Errors
    /// [`Error::State`] when the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let failed = |error: &io::Error| state_error("list", &self.path, error);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&error)),
        };
        let mut names = Vec::new();
        for entry in entries.take(FILES_MAX) {
            let name = entry.map_err(|error| failed(&error))?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.ends_with(".json") && !name.starts_with('.'))
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A new, renamed or removed name survives a loss of power only after this.
    fn sync(&self) -> Result<()> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| state_error("write", &self.path, &error))
    }
}

/// A damaged file that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Where it is now.
    pub kept: PathBuf,
    /// What is wrong with it.
    pub cause: String,
}

impl Aside {
    /// Says it in the log.
    pub(crate) fn warn(&self) {
        tracing::warn!(kept = %self.kept.display(), "a damaged file was set aside: {}", self.cause);
    }
}

impl Display for Aside {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "a damaged file was set aside as {}: {}", self.kept.display(), self.cause)
    }
}

fn state_error(step: &'static str, path: &Path, error: &io::Error) -> Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "run as root, or set WEAVE_STATE_DIR to a directory of yours",
        Some(libc::ENOSPC | libc::EDQUOT) => "free space on this file system",
        Some(libc::EROFS) => "set WEAVE_STATE_DIR to a directory that can be written",
        _ => "check the file and its file system",
    };
    Error::State { step, path: path.to_owned(), cause: error.to_string(), remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Number {
        number: u64,
    }

    impl StateFile for Number {
        const KIND: &'static str = "number";
        const VERSION: u32 = 2;
    }

    fn directory() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::create(root.path().join("a/b")).unwrap();
        (root, state)
    }

    #[test]
    fn what_was_written_is_read_and_only_the_owner_may() {
        let (_root, state) = directory();
        assert_eq!(state.read::<Number>("n.json").unwrap(), Stored::Absent);
        for number in [1, 2] {
            state.write("n.json", &Number { number }).unwrap();
            assert_eq!(state.read("n.json").unwrap(), Stored::Content(Number { number }));
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(state.path()), mode(&state.path().join("n.json"))), (0o700, 0o600));
        assert_eq!(state.names().unwrap(), ["n.json"]);
        assert!(state.remove("n.json").unwrap());
        assert!(!state.remove("n.json").unwrap());
    }

    #[test]
    fn damaged_files_are_set_aside_and_said() {
        let (_root, state) = directory();
        let good = br#"{"kind":"number","version":2,"content":{"number":1}}"#;
        let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
        damaged.push(br#"{"kind":"other","version":2,"content":{"number":1}}"#.to_vec());
        damaged.push(br#"{"kind":"number","version":2,"content":{"number":-1}}"#.to_vec());
        damaged.push(vec![b' '; FILE_MAX as usize + 1]);
        for text in damaged {
            fs::write(state.path().join("n.json"), &text).unwrap();
            let (content, aside) = state.read_own::<Number>("n.json").unwrap();
            assert_eq!(content, None);
            assert_eq!(fs::read(aside.unwrap().kept).unwrap(), text);
            assert_eq!(state.read::<Number>("n.json").unwrap(), Stored::Absent);
        }
        assert_eq!(state.names().unwrap(), Vec::<String>::new(), "what is set aside is not listed");
    }

    #[test]
    fn a_file_of_a_newer_version_is_left_alone() {
        let (_root, state) = directory();
        let text = r#"{"kind":"number","version":3,"content":{"digits":[1]}}"#;
        fs::write(state.path().join("n.json"), text).unwrap();
        let error = state.read_own::<Number>("n.json").unwrap_err();
        assert!(error.to_string().contains("newer weave"), "{error}");
        assert_eq!(fs::read_to_string(state.path().join("n.json")).unwrap(), text);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_content() {
        let (_root, state) = directory();
        state.write("n.json", &Number { number: 1 }).unwrap();
        // Something in the way of the temporary file.
        fs::create_dir(state.path().join(".n.json.tmp")).unwrap();
        assert!(matches!(state.write("n.json", &Number { number: 2 }), Err(Error::State { .. })));
        assert_eq!(state.read("n.json").unwrap(), Stored::Content(Number { number: 1 }));
    }

    #[test]
    fn the_lock_keeps_others_waiting() {
        let (_root, state) = directory();
        let lock = state.lock().unwrap();
        let (taken, is_taken) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _lock = state.lock().unwrap();
                taken.send(()).unwrap();
            });
            assert!(is_taken.recv_timeout(Duration::from_millis(50)).is_err());
            drop(lock);
            is_taken.recv_timeout(Duration::from_secs(5)).unwrap();
        });
    }

    #[test]
    fn a_directory_that_is_not_there_holds_nothing() {
        let state = StateDir::existing("/no/such/directory");
        assert_eq!(state.read::<Number>("n.json").unwrap(), Stored::Absent);
        assert_eq!(state.names().unwrap(), Vec::<String>::new());
        assert!(state.write("n.json", &Number { number: 1 }).is_err());
    }
}
