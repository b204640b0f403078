//! A process started in a host.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weave_host::PidFd;

use super::KILL_LIMIT;
use super::error::{Error, Result};

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    program: String,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(super) fn new(child: Child, program: String) -> Self {
        Self { child, program, ended: None }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its ends of the pipes that the command asked for.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends it a signal; one that has ended is no error.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // As long as it was not waited for, its number stays its own.
        if self.ended.is_none()
            && let Some(process) = PidFd::open(self.pid())?
        {
            process.signal(signal)?;
        }
        Ok(())
    }

    /// Its status if it has ended.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(|cause| self.lost(cause))?;
        }
        Ok(self.ended)
    }

    /// Waits for its end; kills it when that does not come within `limit`.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when it had to be killed.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        if self.status()?.is_none()
            && let Some(process) = PidFd::open(self.pid())?
            && !process.wait_end(deadline)?
        {
            self.kill()?;
            return Err(Error::TimedOut { program: self.program.clone(), limit });
        }
        let status = self.child.wait().map_err(|cause| self.lost(cause))?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When the caller may not, or it does not end.
    pub fn kill(&mut self) -> Result<()> {
        if self.status()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::SIGKILL)?;
        if let Some(process) = PidFd::open(self.pid())?
            && !process.wait_end(Instant::now() + KILL_LIMIT)?
        {
            return Err(Error::TimedOut { program: self.program.clone(), limit: KILL_LIMIT });
        }
        self.ended = Some(self.child.wait().map_err(|cause| self.lost(cause))?);
        Ok(())
    }

    fn lost(&self, cause: std::io::Error) -> Error {
        Error::Program { step: "await", program: self.program.clone(), cause }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is there to be told; what stays is found by its namespace.
        let _ = self.kill();
    }
}

/// How to call the program of a command in messages.
pub(super) fn name_of(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    match command.get_args().next() {
        Some(first) => format!("{program} {}", first.to_string_lossy()),
        None => program.into_owned(),
    }
}
