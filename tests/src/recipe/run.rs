//! Typing a recipe.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use weave_perf::lab::Process;

use super::expect::{missing, no_answer};
use super::terminal::Attached;
use super::{Demand, Recipe, Step, Whereabouts};
use crate::engines::{Engines, Inside, PlainOptions, Topology};
use crate::world::{Ran, wait_until};

/// Hosts of a recipe that says nothing of them.
const USUAL: (usize, usize) = (2, 1);
/// Time until what somebody waits for is there: a line typed again, an answer, a text that arrives.
const WITHIN: Duration = Duration::from_secs(15);
/// File in the directory where a container begins, with the number of what was typed last and may be running.
const TYPED: &str = "typed";

/// What `status` says of a link when there is one.
const LINKED: &str = "established";
/// Exit code of a shell for a program that is not there.
const NOT_FOUND: i32 = 127;

/// Types every line of a recipe; ends the test at the first that does not do what it should.
#[track_caller]
pub fn follow(name: &str, text: &str) {
    let recipe = Recipe::read(text);
    let (with, without) = recipe.hosts();
    type_all(name, &recipe, &Engines::placed(with, without, recipe.places.clone()));
}

/// The same on network namespaces without engines, those of the network joined in this way.
#[track_caller]
pub fn follow_plain(name: &str, text: &str, topology: Topology) {
    let recipe = Recipe::read(text);
    let (members, outside) = recipe.hosts();
    let (places, relays_type) = (recipe.places.clone(), recipe.relays.clone());
    let options = PlainOptions { topology, members, outside, places, relays_type };
    type_all(name, &recipe, &Engines::plain(&options));
}

#[track_caller]
fn type_all(name: &str, recipe: &Recipe, hosts: &Engines) {
    let mut session = Session { name, recipe, hosts, terminals: HashMap::new(), attached: None, made: 0 };
    recipe.steps.iter().for_each(|step| session.step(step));
}

impl Recipe {
    /// How many hosts of the network it has, and how many others.
    fn hosts(&self) -> (usize, usize) {
        (self.engines.unwrap_or(USUAL.0), self.plain.unwrap_or(USUAL.1))
    }
}

struct Session<'a> {
    name: &'a str,
    recipe: &'a Recipe,
    hosts: &'a Engines,
    /// What goes on, by its prompt.
    terminals: HashMap<String, Terminal>,
    /// The terminal attached to a container.
    attached: Option<Attached>,
    made: usize,
}

/// A line that goes on.
struct Terminal {
    _process: Process,
    output: PathBuf,
    /// What of its output arrived before, bytes.
    seen: usize,
}

impl Terminal {
    fn unseen(&self) -> String {
        let text = fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(text.get(self.seen..).unwrap_or_default()).into_owned()
    }
}

impl Session<'_> {
    #[track_caller]
    fn step(&mut self, step: &Step) {
        self.interrupt(&step.prompt);
        if step.demands.contains(&Demand::Direct) && self.hosts.has_relays() {
            return;
        }
        if !self.is_attached(&step.prompt)
            && let Some(attached) = self.attached.take()
        {
            attached.leave();
        }
        if let Some(container) = step.attaches() {
            self.attach(step, container);
        } else if step.is_endless() {
            self.begin(step);
        } else if !step.command.is_empty() {
            self.complete(step);
        }
        for demand in &step.demands {
            if let Demand::Arrives { prompt, text } = demand {
                self.await_arrival(step, prompt, text);
            }
        }
    }

    /// Whether the terminal of this prompt is attached to a container.
    fn is_attached(&self, prompt: &str) -> bool {
        let Some(attached) = &self.attached else { return false };
        matches!(self.place(prompt), Place::Container(container) if container == attached.container)
    }

    #[track_caller]
    fn attach(&mut self, step: &Step, container: &str) {
        let Place::Host(host) = self.place(&step.prompt) else { panic!("attached in a container") };
        let id = self.hosts.ok(host, &format!("echo {container}"));
        self.made += 1;
        let screen = self.hosts.world().lab().directory().join(format!("terminal-{}", self.made));
        self.attached = Some(Attached::begin(self.hosts, Inside { host, id }, &step.command, &screen));
    }

    /// Runs a line to its end and checks what came of it.
    #[track_caller]
    fn complete(&mut self, step: &Step) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let ran = self.run(step);
            let awaited = step.demands.iter().find_map(|demand| match demand {
                Demand::Until(text) => Some(text),
                Demand::Fails | Demand::Direct | Demand::Arrives { .. } => None,
            });
            let come = awaited.is_none_or(|text| ran.code == Some(0) && ran.stdout.contains(text));
            if come {
                self.check(step, &ran);
                if awaited.is_some_and(|text| text == LINKED) {
                    self.hosts.wait_joined();
                }
                return;
            }
            assert!(Instant::now() < deadline, "{}", self.said(step, "was typed in vain", &ran));
        }
    }

    #[track_caller]
    fn check(&self, step: &Step, ran: &Ran) {
        if let Some(line) = missing(&step.expected, &ran.stdout) {
            panic!("{}", self.said(step, &format!("did not print `{line}`"), ran));
        }
        assert_ne!(ran.code, Some(NOT_FOUND), "{}", self.said(step, "is no program", ran));
        let fails = step.demands.contains(&Demand::Fails) || no_answer(&step.expected);
        assert_eq!(ran.code != Some(0), fails, "{}", self.said(step, "ended wrongly", ran));
    }

    fn said(&self, step: &Step, what: &str, ran: &Ran) -> String {
        let Step { line, prompt, command, .. } = step;
        let Ran { code, stdout, stderr } = ran;
        format!("{}, line {line}: {prompt}: {command}\n{what} ({code:?}):\n{stdout}{stderr}", self.name)
    }

    #[track_caller]
    fn run(&mut self, step: &Step) -> Ran {
        if self.is_attached(&step.prompt)
            && let Some(attached) = &mut self.attached
        {
            return attached.run(&step.command);
        }
        self.run_alone(step)
    }

    fn run_alone(&self, step: &Step) -> Ran {
        match self.place(&step.prompt) {
            Place::Host(host) => self.hosts.sh(host, &step.command),
            Place::Container(container) => self.hosts.inside(&container, &step.command),
        }
    }

    /// Starts a line that goes on, and waits until it has begun.
    #[track_caller]
    fn begin(&mut self, step: &Step) {
        self.made += 1;
        let directory = self.hosts.world().lab().directory();
        let output = directory.join(format!("terminal-{}", self.made));
        let file = File::create(&output).unwrap();
        let process = match self.place(&step.prompt) {
            Place::Host(host) => {
                let typed = self.typed_on(host);
                let line = format!("echo $$ >{typed}\n{}", step.command);
                self.hosts.spawn(host, &format!("exec setsid -w sh -c {}", quoted(&line)), file)
            }
            Place::Container(container) => {
                let line = quoted(&format!("echo $$ >{TYPED}\n{}", step.command));
                let line = format!("exec docker exec {} sh -c {line}", container.id);
                self.hosts.spawn(container.host, &line, file)
            }
        };
        let terminal = Terminal { _process: process, output, seen: 0 };
        if let Some(port) = step.listens_at() {
            let listens = format!("cat /proc/net/tcp /proc/net/udp /proc/net/tcp6 | grep -q ':{port:04X} '");
            let asked = Step { command: listens, ..Step::at(&step.prompt) };
            wait_until(
                WITHIN,
                || format!("{}, line {}: nothing listens: {}", self.name, step.line, terminal.unseen()),
                || self.run_alone(&asked).code == Some(0),
            );
        } else if step.command.starts_with("ping ") {
            wait_until(
                WITHIN,
                || format!("{}, line {}: no answer: {}", self.name, step.line, terminal.unseen()),
                || terminal.unseen().contains("bytes from "),
            );
        }
        self.terminals.insert(step.prompt.clone(), terminal);
    }

    #[track_caller]
    fn await_arrival(&mut self, step: &Step, prompt: &str, text: &str) {
        let terminal = self.terminals.get_mut(prompt).unwrap_or_else(|| panic!("nothing runs at {prompt}"));
        let arrived = |unseen: &str| unseen.find(text).map(|start| start + text.len());
        wait_until(
            WITHIN,
            || format!("{}, line {}: `{text}` does not arrive at {prompt}", self.name, step.line),
            || arrived(&terminal.unseen()).is_some(),
        );
        terminal.seen += arrived(&terminal.unseen()).unwrap();
    }

    /// Ends what goes on at a prompt, as Ctrl-C does.
    fn interrupt(&mut self, prompt: &str) {
        let Some(terminal) = self.terminals.remove(prompt) else { return };
        // One that has ended by itself is no matter.
        let _ = match self.place(prompt) {
            Place::Host(host) => self.hosts.sh(host, &format!("kill -- -$(cat {})", self.typed_on(host))),
            Place::Container(container) => self.hosts.inside(&container, &format!("kill -- -$(cat {TYPED})")),
        };
        drop(terminal);
    }

    fn typed_on(&self, host: usize) -> String {
        self.hosts.world().host(host).directory().join("typed").display().to_string()
    }

    fn place(&self, prompt: &str) -> Place {
        match self.recipe.place_of(prompt) {
            Whereabouts::Host(host) => Place::Host(host),
            Whereabouts::Container { host, variable } => {
                let id = self.hosts.ok(host, &format!("echo ${variable}"));
                Place::Container(Inside { host, id })
            }
        }
    }
}

impl Step {
    /// Nothing yet, at a prompt.
    fn at(prompt: &str) -> Self {
        let (expected, demands) = (Vec::new(), Vec::new());
        Self { line: 0, prompt: prompt.to_owned(), command: String::new(), expected, demands }
    }
}

/// Where a line is typed.
enum Place {
    Host(usize),
    Container(Inside),
}

/// One word of shell.
fn quoted(line: &str) -> String {
    format!("'{}'", line.replace('\'', r"'\''"))
}
