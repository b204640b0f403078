//! `weave stop`: ends the router. Interfaces, addresses and state stay.

use std::path::Path;
use std::time::Duration;

use weave_api::client::{Client, ClientError};

use super::{dns, keeper};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::root;
use crate::running::{Daemon, Running};

/// Time a router has to answer the request.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Time a router has to end after it was asked, and again after the signal.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Ends the router, if one runs, and the DNS beside it. `pid`: only if it is that process, which is
/// empty where it has ended: a service manager stops what ended by `weave stop`, too, and another
/// router may run by then.
pub fn run(keep_dns: bool, pid: Option<&str>, environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    root::require("stop")?;
    if let Some(pid) = pid {
        let runs = Running::find(&run_dir, Daemon::Router)?.and_then(|running| running.pid());
        if runs.is_none_or(|runs| runs.as_raw_nonzero().to_string() != pid) {
            return Ok(());
        }
    }
    let stopped = stop(&run_dir, Client::stop)?;
    let ended = !keep_dns && dns::launch::end(None, environment)?;
    if !stopped {
        let rest = if ended { "its DNS was stopped" } else { "nothing to stop" };
        output::note(format_args!("no router runs here ({}): {rest}", run_dir.display()));
    }
    keeper::end_if_idle(environment)
}

/// Ends the router of `run_dir`, which is asked by `ask`; false when none runs.
pub fn stop(
    run_dir: &Path,
    ask: impl FnOnce(&mut Client) -> std::result::Result<(), ClientError>,
) -> Result<bool> {
    let Some(running) = Running::find(run_dir, Daemon::Router)? else {
        return Ok(false);
    };
    let asked = Client::connect(run_dir, ANSWER_WITHIN).and_then(|mut client| ask(&mut client));
    if asked.is_ok() && running.wait(GONE_WITHIN)? {
        return Ok(true);
    }
    // It hangs, or its socket was removed: the signal needs neither.
    if running.terminate() && running.wait(GONE_WITHIN)? {
        return Ok(true);
    }
    if running.kill() && running.wait(GONE_WITHIN)? {
        output::warn("the router neither answered nor ended by itself: it was killed");
        return Ok(true);
    }
    if running.wait(Duration::ZERO)? {
        return Ok(true);
    }
    let remedy = running.pid().map_or_else(
        || "end its process by hand: it runs in another process namespace".to_owned(),
        |pid| format!("`kill -9 {}` ends it; containers keep their addresses", pid.as_raw_nonzero()),
    );
    let why = asked.err().map_or_else(|| "it does not end".to_owned(), |error| error.to_string());
    Err(Failure::new("cannot stop the router", why, remedy))
}
