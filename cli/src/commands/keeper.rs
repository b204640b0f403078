//! `weave keeper`: keeps this host's side of the network as the state says. Started by the commands
//! that need it; see [`weave_host::keeper`].

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::fs::OFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use weave_host::keeper::{KeeperConfig, News, run as keep, watch};
use weave_host::{exposed, records};

use super::attach::tell_router;
use super::{dns, expose};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::root;
use crate::running::{Claim, Daemon, KEEPER_LOG, Running};

/// News that waits for the keeper, at most; more of the same kind adds nothing.
const NEWS: usize = 16;
/// Time a keeper has to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Keeps until it is asked to end; ends at once where another keeps already.
pub fn run(environment: &Environment) -> Result<()> {
    root::require("keeper")?;
    let run_dir = environment.run_dir()?;
    let _ = rustix::process::setsid();
    let Ok(_claim) = Claim::take(&run_dir, Daemon::Keeper) else { return Ok(()) };
    let _ = std::env::set_current_dir("/");
    log_to_stderr();
    let failed = |error: std::io::Error| Failure::because("cannot keep this host", error);
    let (sender, news) = sync_channel(NEWS);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    let stop = sender.clone();
    std::thread::Builder::new()
        .name("keeper-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                // A hang-up is what a reload sends: everything is looked at anyway.
                let what = if signal == SIGHUP { News::Firewall } else { News::Stop };
                let _ = stop.send(what);
            }
        })
        .map_err(failed)?;
    let config = KeeperConfig {
        state_dir: environment.state_dir()?,
        engine_host: environment.engine_host()?,
        policy: expose::policy(environment, environment.port()?)?,
    };
    watch(config.engine_host.clone(), &sender)
        .map_err(|error| Failure::because("cannot keep this host", error))?;
    dns::guard::watch(run_dir.clone(), config.state_dir.clone()).map_err(failed)?;
    let state_dir = config.state_dir.clone();
    keep(config, &news, || {
        dns::publish::write(&run_dir, &state_dir);
        tell_router(&run_dir);
    });
    Ok(())
}

fn log_to_stderr() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("info"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}

/// Sets the host up around a router that was started, and has that kept.
pub fn take_up(environment: &Environment, port: u16, mtu: u16, with_dns: bool) {
    expose::prepare(environment, port, mtu);
    if with_dns {
        dns::launch::beside_router(environment);
    }
    ensure(environment);
}

/// Starts the keeper of this host unless it runs. What the caller did stays done without it.
pub fn ensure(environment: &Environment) {
    let started = environment.run_dir().and_then(|run_dir| {
        if Running::find(&run_dir, Daemon::Keeper)?.is_some() {
            return Ok(());
        }
        start(&run_dir)
    });
    if let Err(failure) = started {
        output::warn(format_args!("nobody keeps what was set up: {failure}"));
    }
}

fn start(run_dir: &Path) -> Result<()> {
    crate::launch::make_run_dir(run_dir)?;
    let failed =
        |error: std::io::Error| Failure::new("cannot start the keeper", error, "check WEAVE_RUN_DIR");
    let log = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(run_dir.join(KEEPER_LOG))
        .map_err(failed)?;
    let executable = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(executable)
        .arg("keeper")
        .env_remove("WEAVE_PASSWORD")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    // A router that starts it outlives it, perhaps: no zombie stays.
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Ends the keeper of `run_dir`, if one runs.
pub fn end(run_dir: &Path) -> Result<()> {
    let Some(running) = Running::find(run_dir, Daemon::Keeper)? else { return Ok(()) };
    if running.terminate() && running.wait(ENDS_WITHIN)? {
        return Ok(());
    }
    if running.wait(Duration::ZERO)? {
        return Ok(());
    }
    Err(Failure::new("cannot stop the keeper", "it does not end", "end the process `weave keeper` by hand"))
}

/// Ends the keeper unless there is something to keep without a router: containers that may run
/// again, exposed addresses, and the DNS.
pub fn end_if_idle(environment: &Environment) -> Result<()> {
    let state_dir = environment.state_dir()?;
    let exposed = exposed::read_all(&state_dir).is_ok_and(|all| all.is_empty());
    let attached =
        records::read_all(&state_dir).is_ok_and(|(all, _)| all.iter().all(|record| !record.is_of_engine()));
    let dns = dns::settings(environment)?.enabled;
    if exposed && attached && !dns { end(&environment.run_dir()?) } else { Ok(()) }
}
