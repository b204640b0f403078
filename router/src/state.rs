//! What outlives a run: identity, kind of network, targets, recent peers.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use weave_api::target::Target;
use weave_crypto::{IDENTITY_LEN, new_seed};
use weave_host::store::{StateDir, StateFile};
use weave_wire::PeerName;
use zeroize::{Zeroize, Zeroizing};

const IDENTITY: &str = "identity.json";
const NETWORK: &str = "network.json";
const TARGETS: &str = "targets.json";
const RECENT: &str = "recent.json";
const RUNS: &str = "runs.json";
/// All of these.
pub const FILES: [&str; 5] = [IDENTITY, NETWORK, TARGETS, RECENT, RUNS];

/// Name and key of this host.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    name: PeerName,
    /// 32 bytes in hexadecimal digits. Anything else is a damaged file.
    #[serde(deserialize_with = "seed_text")]
    seed: String,
}

fn seed_text<'a, D: Deserializer<'a>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match parse_seed(&text) {
        Some(_) => Ok(text),
        None => Err(D::Error::custom("the seed is not 64 hexadecimal digits")),
    }
}

impl StateFile for IdentityFile {
    const KIND: &'static str = "identity";
    const VERSION: u32 = 1;
}

/// The kind of network this host belongs to.
#[derive(Debug, Serialize, Deserialize)]
struct Network {
    encrypted: bool,
}

impl StateFile for Network {
    const KIND: &'static str = "network";
    const VERSION: u32 = 1;
}

#[derive(Debug, Serialize, Deserialize)]
struct Targets(Vec<Target>);

impl StateFile for Targets {
    const KIND: &'static str = "targets";
    const VERSION: u32 = 1;
}

#[derive(Debug, Serialize, Deserialize)]
struct Recent(Vec<Target>);

impl StateFile for Recent {
    const KIND: &'static str = "recent peers";
    const VERSION: u32 = 1;
}

/// How often this state was launched: what this host tells of itself is newer than
/// what it told in any run before.
#[derive(Debug, Serialize, Deserialize)]
struct Runs(u32);

impl StateFile for Runs {
    const KIND: &'static str = "number of runs";
    const VERSION: u32 = 1;
}

/// The state as it was found.
pub(crate) struct State {
    directory: StateDir,
    pub(crate) name: PeerName,
    pub(crate) seed: Zeroizing<[u8; IDENTITY_LEN]>,
    /// Name or key are not those that are written down.
    is_new: bool,
    pub(crate) targets: Vec<Target>,
    pub(crate) recent: Vec<Target>,
    /// Number of this run, from 1.
    pub(crate) run: u32,
    /// Files that could not be read and were kept aside, one line each.
    pub(crate) warnings: Vec<String>,
}

/// Why the router does not start on this state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The host belonged to an encrypted network and no password was given.
    #[error(
        "this host belongs to an encrypted network and no password was given: give the password (WEAVE_PASSWORD or \
         --password-file), or leave that network on purpose with --clear, or forget everything with `weave reset`"
    )]
    PasswordMissing,
    /// A file.
    #[error(transparent)]
    File(#[from] weave_host::Error),
}

/// Refuses to go on in clear on a host of an encrypted network: the first thing
/// looked at, before anything is changed.
///
/// # Errors
/// [`StateError::PasswordMissing`], or the file cannot be read.
pub(crate) fn check_network(state_dir: &Path, encrypted: bool, clear: bool) -> Result<(), StateError> {
    use weave_host::store::Stored;
    if encrypted || clear {
        return Ok(());
    }
    match StateDir::existing(state_dir).read::<Network>(NETWORK)? {
        Stored::Content(Network { encrypted: false }) | Stored::Absent => Ok(()),
        // What cannot be read may have said "encrypted": fail closed.
        Stored::Content(Network { encrypted: true }) | Stored::Damaged(_) => Err(StateError::PasswordMissing),
    }
}

/// Gives this host a new name and key: another runs on a copy of its state.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn rename(state_dir: &Path) -> Result<PeerName, StateError> {
    let directory = StateDir::existing(state_dir);
    let _lock = directory.lock()?;
    let name = random_name();
    write_identity(&directory, name, &new_seed(&mut crate::control::entropy).into())?;
    Ok(name)
}

fn write_identity(
    directory: &StateDir,
    name: PeerName,
    seed: &Zeroizing<[u8; IDENTITY_LEN]>,
) -> Result<(), StateError> {
    let mut file = IdentityFile { name, seed: seed.iter().map(|byte| format!("{byte:02x}")).collect() };
    let written = directory.write(IDENTITY, &file);
    file.seed.zeroize();
    Ok(written?)
}

/// Reads the state; a host without an identity gets one. `targets` are those
/// given now; without any, the remembered ones count.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn open(
    state_dir: &Path,
    name: Option<PeerName>,
    targets: &[Target],
) -> Result<State, StateError> {
    let directory = StateDir::create(state_dir)?;
    let _lock = directory.lock()?;
    let mut warnings = Vec::new();
    let mut note = |aside: Option<weave_host::store::Aside>| {
        if let Some(aside) = aside {
            let kept = aside.kept.display();
            warnings.push(format!("a state file was damaged ({}) and is kept as {kept}", aside.cause));
        }
    };
    let (identity, aside) = directory.read_own::<IdentityFile>(IDENTITY)?;
    note(aside);
    let known = identity.and_then(|file| {
        let text = Zeroizing::new(file.seed);
        Some((file.name, parse_seed(&text)?))
    });
    let (old_name, seed) = match known {
        Some((name, seed)) => (Some(name), seed),
        None => (None, Zeroizing::new(new_seed(&mut crate::control::entropy))),
    };
    let name = name.or(old_name).unwrap_or_else(random_name);
    let is_new = old_name != Some(name);
    let (remembered, aside) = directory.read_own::<Targets>(TARGETS)?;
    note(aside);
    let targets = match targets {
        [] => remembered.map(|Targets(list)| list).unwrap_or_default(),
        given => given.to_vec(),
    };
    let (recent, aside) = directory.read_own::<Recent>(RECENT)?;
    note(aside);
    let recent = recent.map(|Recent(list)| list).unwrap_or_default();
    let (runs, aside) = directory.read_own::<Runs>(RUNS)?;
    note(aside);
    let run = runs.map_or(0, |Runs(number)| number).saturating_add(1);
    directory.write(RUNS, &Runs(run))?;
    Ok(State { directory, name, seed, is_new, targets, recent, run, warnings })
}

impl State {
    /// Writes down name and key, the kind of network and the targets: once everything
    /// else has started, so that a launch that fails changes none of them, and before
    /// the first frame.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn commit(&self, encrypted: bool) -> Result<(), StateError> {
        let _lock = self.directory.lock()?;
        if self.is_new {
            write_identity(&self.directory, self.name, &self.seed)?;
        }
        self.directory.write(NETWORK, &Network { encrypted })?;
        Ok(self.directory.write(TARGETS, &Targets(self.targets.clone()))?)
    }
}

fn parse_seed(text: &str) -> Option<Zeroizing<[u8; IDENTITY_LEN]>> {
    if text.len() != 2 * IDENTITY_LEN || !text.is_ascii() {
        return None;
    }
    let mut seed = Zeroizing::new([0; IDENTITY_LEN]);
    for (place, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(seed)
}

/// A random name in the form of a local unicast MAC.
fn random_name() -> PeerName {
    loop {
        let [a, b, c, d, e, f, ..] = crate::control::random_u64().to_be_bytes();
        if let Some(name) = PeerName::new([a & 0xfe | 2, b, c, d, e, f]) {
            return name;
        }
    }
}

/// Writes files in the background. Of each file only the newest content waits,
/// so that a slow disk holds up nothing and nothing grows.
pub(crate) struct Saver(Arc<Waiting>);

/// What is still to be written.
#[derive(Default)]
struct Waiting {
    contents: Mutex<Contents>,
    changed: Condvar,
}

#[derive(Default)]
struct Contents {
    targets: Option<Vec<Target>>,
    recent: Option<Vec<Target>>,
    /// The saver is gone: nothing will follow.
    last: bool,
}

impl Saver {
    /// Starts the thread that writes to `state_dir`; it ends with the saver,
    /// after the last file. The handle is joined to know that it has.
    pub(crate) fn start(state_dir: &Path) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let waiting = Arc::new(Waiting::default());
        let (directory, theirs) = (StateDir::existing(state_dir), Arc::clone(&waiting));
        let thread = std::thread::Builder::new().name("weave-state".into()).spawn(move || {
            while let Some(contents) = theirs.take() {
                let targets = contents.targets.map(|list| directory.write(TARGETS, &Targets(list)));
                let recent = contents.recent.map(|list| directory.write(RECENT, &Recent(list)));
                for error in [targets, recent].into_iter().flatten().filter_map(Result::err) {
                    tracing::error!("{error}");
                }
            }
        })?;
        Ok((Self(waiting), thread))
    }

    /// Remembers the targets.
    pub(crate) fn targets(&self, list: Vec<Target>) {
        self.0.change(|contents| contents.targets = Some(list));
    }

    /// Remembers where peers were.
    pub(crate) fn recent(&self, list: Vec<Target>) {
        self.0.change(|contents| contents.recent = Some(list));
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.0.change(|contents| contents.last = true);
    }
}

impl Waiting {
    fn change(&self, change: impl FnOnce(&mut Contents)) {
        // The lock is held for assignments only, which do not panic.
        change(&mut self.contents.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Waits for something to write; `None` when there will be nothing more.
    fn take(&self) -> Option<Contents> {
        let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |contents: &mut Contents| {
            contents.targets.is_none() && contents.recent.is_none() && !contents.last
        };
        let mut contents = self.changed.wait_while(contents, idle).unwrap_or_else(PoisonError::into_inner);
        if contents.targets.is_none() && contents.recent.is_none() {
            return None;
        }
        let last = contents.last;
        Some(std::mem::replace(&mut contents, Contents { last, ..Contents::default() }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_newest_content_of_each_file_is_written_before_the_saver_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        StateDir::create(directory.path()).unwrap();
        let (saver, thread) = Saver::start(directory.path()).unwrap();
        let list = |n: usize| vec![format!("10.0.0.{}", n % 200 + 1).parse::<Target>().unwrap()];
        for n in 0..500 {
            saver.targets(list(n));
            saver.recent(list(n + 1));
        }
        drop(saver);
        thread.join().unwrap();
        let state = open(directory.path(), None, &[]).unwrap();
        assert_eq!(state.targets, list(499));
        assert_eq!(state.recent, list(500));
    }

    #[test]
    fn a_name_is_written_down_with_what_else_a_launch_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let [first, other]: [PeerName; 2] =
            ["7a:00:00:00:00:01", "7a:00:00:00:00:02"].map(|name| name.parse().unwrap());
        let state = open(path, Some(first), &[]).unwrap();
        state.commit(false).unwrap();
        // A launch that failed.
        let failed = open(path, Some(other), &[]).unwrap();
        assert_eq!((failed.name, &failed.seed), (other, &state.seed));
        let again = open(path, None, &[]).unwrap();
        assert_eq!((again.name, &again.seed), (first, &state.seed));
    }

    #[test]
    fn an_identity_with_a_damaged_key_is_kept_aside_and_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        open(path, None, &[]).unwrap().commit(false).unwrap();
        let file = path.join(IDENTITY);
        let text = std::fs::read_to_string(&file).unwrap();
        let seed = text.find("\"seed\"").unwrap();
        std::fs::write(
            &file,
            text[..seed].to_owned() + &text[seed..].replacen(['a', 'b', 'c', '1', '2', '3'], "z", 1),
        )
        .unwrap();
        let state = open(path, None, &[]).unwrap();
        assert_eq!(state.warnings.len(), 1, "{:?}", state.warnings);
        let kept = std::fs::read_dir(path).unwrap().filter_map(Result::ok);
        let names: Vec<_> = kept.map(|entry| entry.file_name().into_string().unwrap()).collect();
        assert!(names.iter().any(|name| name.starts_with(IDENTITY) && name != IDENTITY), "{names:?}");
    }
}
