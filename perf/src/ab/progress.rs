//! Says what is being done, on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Options;
use super::error::Error;
use super::measure::STEPS;
use super::metric::{METRICS, Sample};

/// What starting and removing one tunnel takes, roughly.
const AROUND: Duration = Duration::from_millis(1500);

/// Where the run stands.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    rounds: u16,
    now: String,
}

impl Progress {
    /// Announces what will be measured and how long that takes.
    pub fn start(options: &Options, names: &[String]) -> Self {
        let turns = names.len() as u32 * u32::from(options.rounds);
        let window = options.window();
        let measured = (window.warm_up + window.duration) * (STEPS.len() as u32 - 1);
        let minutes = ((measured + AROUND) * turns).as_secs_f64() / 60.0;
        let bar = if stderr().is_terminal() {
            ProgressBar::new(u64::from(turns) * STEPS.len() as u64)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent}% {msg} (left: {eta})") {
            bar.set_style(style);
        }
        let progress = Self { bar, rounds: options.rounds, now: String::new() };
        progress.say(&format!(
            "comparing {}: {} rounds of {} s each, about {minutes:.0} minutes",
            names.join(", "),
            options.rounds,
            options.seconds
        ));
        progress
    }

    /// A tunnel's turn begins.
    pub fn begin(&mut self, round: u16, name: &str) {
        self.now = format!("round {round}/{}, {name}", self.rounds);
        // Steps of a turn that ended early count as done.
        self.bar.set_position(self.bar.position().next_multiple_of(STEPS.len() as u64));
    }

    /// A step of the turn begins.
    pub fn step(&self, step: &str) {
        self.bar.set_message(format!("{}: {step}", self.now));
        self.bar.inc(1);
    }

    /// A turn is over.
    pub fn done(&self, round: u16, name: &str, sample: &Sample) {
        let figures: Vec<_> = METRICS
            .iter()
            .filter_map(|m| {
                let value = sample.get(m)? / m.scale();
                let [what, unit] = m.heading();
                Some(format!("{what} {value:.*} {unit}", m.digits()))
            })
            .collect();
        self.say(&format!("round {round}/{} {name}: {}", self.rounds, figures.join(", ")));
    }

    /// A turn ended early.
    pub fn failed(&self, round: u16, name: &str, error: &Error) {
        self.say(&format!("round {round}/{} {name}: FAILED: {error}", self.rounds));
    }

    /// All is measured.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, line: &str) {
        // Nothing is left to tell it to when stderr is gone.
        self.bar.suspend(|| {
            let _ = writeln!(stderr(), "{line}");
        });
    }
}
