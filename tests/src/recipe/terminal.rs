//! A terminal that is attached to a container (`docker attach`), with a person at it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weave_perf::lab::Process;

use crate::engines::{Engines, Inside};
use crate::world::{Ran, wait_until};

/// Time until a shell answers.
const WITHIN: Duration = Duration::from_secs(20);
/// What leaves a container as it is: Ctrl-P, Ctrl-Q.
const LEAVE: &[u8] = b"\x10\x11";
/// Prompt of a shell.
const PROMPT: &str = "# ";

/// An attached one.
pub(super) struct Attached {
    pub(super) container: Inside,
    process: Process,
    keyboard: File,
    screen: PathBuf,
}

impl Attached {
    /// Types a line on a host that attaches the container, and waits for the prompt there.
    #[track_caller]
    pub(super) fn begin(hosts: &Engines, container: Inside, line: &str, screen: &Path) -> Self {
        let keys = screen.with_extension("keys");
        nix::unistd::mkfifo(&keys, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        // Both ends at once: neither waits for the other.
        let keyboard = OpenOptions::new().read(true).write(true).open(&keys).unwrap();
        let line = format!("exec script -qfec \"{line}\" /dev/null <{}", keys.display());
        let process = hosts.spawn(container.host, &line, File::create(screen).unwrap());
        let mut attached = Self { container, process, keyboard, screen: screen.to_owned() };
        attached.keys(b"\n");
        wait_until(WITHIN, || format!("no prompt: {}", attached.text()), || attached.text().contains(PROMPT));
        attached
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.screen).unwrap_or_default()).into_owned()
    }

    fn keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Types a line there and waits until it has ended.
    #[track_caller]
    pub(super) fn run(&mut self, line: &str) -> Ran {
        let before = self.text().len();
        self.keys(format!("{line}\necho \"ended ($?)\"\n").as_bytes());
        let printed = || self.text().split_off(before);
        wait_until(WITHIN, || format!("{line}: {}", self.text()), || ended(&printed()).is_some());
        let stdout = printed();
        Ran { code: ended(&stdout), stdout, stderr: String::new() }
    }

    /// Leaves it as it is. A shell that is no engine's goes with its terminal.
    pub(super) fn leave(mut self) {
        self.keys(LEAVE);
        let is_of_engine = !self.container.id.contains(':') && !self.container.id.contains('/');
        if is_of_engine {
            self.process.wait(WITHIN).unwrap();
        }
    }
}

/// The exit code that a shell printed, if it did; what was typed is printed, too.
fn ended(printed: &str) -> Option<i32> {
    let codes = printed.split("ended (").skip(1);
    codes.filter_map(|rest| rest.split_once(')')?.0.parse().ok()).last()
}
