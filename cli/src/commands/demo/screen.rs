//! What the demonstration shows: a line for each result, and what it is at.

use std::fmt::Display;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Result;
use crate::output;

/// Width of the names of results, characters.
const NAME_WIDTH: usize = 12;
/// How often the sign of life turns.
const TURN: Duration = Duration::from_millis(100);

/// Results on standard output; on standard error, if that is a terminal, the
/// step at work.
pub struct Screen {
    progress: ProgressBar,
}

impl Screen {
    /// An empty screen.
    pub fn new() -> Self {
        let progress = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} …") {
            progress.set_style(style);
        }
        progress.enable_steady_tick(TURN);
        Self { progress }
    }

    /// Says what is being done.
    pub fn step(&self, text: impl Display) {
        self.progress.set_message(text.to_string());
    }

    /// Shows a result.
    pub fn line(&self, name: &str, value: impl Display) -> Result<()> {
        self.progress.suspend(|| output::print(format_args!("{name:>NAME_WIDTH$}  {value}\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}
