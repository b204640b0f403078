//! Recipes: sessions as a page prints them, typed line by line.
//!
//! ```text
//! # a comment
//! host1$ weave launch
//! host2$ weave launch $HOST1
//! root@28841bd02eff:/# ping -c 1 -q 10.2.1.2
//! 1 packets transmitted, 1 packets received, 0% packet loss
//! ```
//!
//! A line with a prompt is typed at that host or in that container, a `\` at its end goes on in the
//! next; what follows it is what it shall print (see [`expect`]). It must succeed, unless it shall
//! print the statistics of a ping without answers. What ends only when somebody ends it (`nc`,
//! `ping` without a count) goes on until the next line is typed at the same prompt, which may be
//! empty; of such a ping an answer is awaited. What is typed in a container after `docker attach` is typed
//! at that terminal, until something is typed elsewhere. Lines that begin with `!` are for the reader of the recipe:
//!
//! ```text
//! ! engines 3, plain 0                  hosts of the network and others; 2 and 1 if not said
//! ! places 0,1 0 1                      the segments that each host is on; all on one if not said
//! ! at root@28841bd02eff: $C of host1   which container has this prompt
//! ! at host: host1                      which host has this prompt
//! ! relays export WEAVE_PORT=7001       relays, where there are some, type this before they are launched
//! ! until established                   the line above is typed again until it prints this
//! ! fails                               the line above does not succeed
//! ! direct                              the line above is typed only where there are no relays
//! ! arrives at host3: Hello, world.     what runs at that prompt prints this
//! ```

mod expect;
mod parse;
mod run;
mod terminal;

use weave_perf::lab::Place;

pub use run::{follow, follow_plain};

/// A whole recipe.
#[derive(Debug, Default)]
struct Recipe {
    engines: Option<usize>,
    plain: Option<usize>,
    places: Vec<Place>,
    /// What relays type before they are launched.
    relays: Vec<String>,
    /// Prompts and where they are.
    prompts: Vec<(String, Whereabouts)>,
    steps: Vec<Step>,
}

/// Where a prompt is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whereabouts {
    /// On a host, counted from 0.
    Host(usize),
    /// In the container that a variable of the shell of a host names.
    Container { host: usize, variable: String },
}

/// A line that is typed, and what comes of it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Its place in the file, for messages.
    line: usize,
    prompt: String,
    command: String,
    expected: Vec<String>,
    demands: Vec<Demand>,
}

/// What else must come of it.
#[derive(Debug, PartialEq, Eq)]
enum Demand {
    Until(String),
    Fails,
    Direct,
    Arrives { prompt: String, text: String },
}

impl Step {
    /// Ends only when somebody ends it.
    fn is_endless(&self) -> bool {
        let mut programs = self.command.split('|').map(str::trim);
        let counted = self.command.contains(" -c ");
        programs.any(|program| program.starts_with("nc ") || (program.starts_with("ping ") && !counted))
    }

    /// The container that it attaches a terminal to, as the shell of the host calls it.
    fn attaches(&self) -> Option<&str> {
        self.command.strip_prefix("docker attach ")
    }

    /// The port that it waits at for others.
    fn listens_at(&self) -> Option<u16> {
        let listens = self.command.starts_with("nc -l");
        let (_, after) = self.command.split_once("-p ").filter(|_| listens)?;
        after.split_whitespace().next()?.parse().ok()
    }
}
