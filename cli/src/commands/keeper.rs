//! `weave keeper`: keeps this host's side of the network as the state says. Started by the commands
//! that need it; see [`weave_host::keeper`].

mod elsewhere;

use std::cell::Cell;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use weave_api::Software;
use weave_api::keeper::{GuardStatus, Keeper, KeeperDegraded, KeeperRepairs, KeeperStatus};
use weave_host::engine::{Engine, place};
use weave_host::firewall::{Degraded, Guard};
use weave_host::keeper::{
    Devices, Elsewhere, Findings, KeeperConfig, News, has_work, news, run as keep, serve_routers, watch,
};
use weave_host::keeper_socket::{KeeperClient, KeeperError, KeeperListener, Queues, Wanted};
use weave_host::policy::HostPolicy;
use weave_host::records;
use weave_router::config::LogLevel;
use weave_router::{logging, privileges};

use super::attach::tell_router;
use super::{dns, expose};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::root;
use crate::running::{self, Claim, Daemon, KEEPER_LOG, Running};

/// Time a keeper has to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Time a router waits for the queues of the tap.
const QUEUES_WITHIN: Duration = Duration::from_secs(15);
/// Time a keeper that runs has to listen: after it, it is replaced.
const SOCKET_WITHIN: Duration = Duration::from_secs(5);
/// How often a keeper is started that another one is in the way of.
const STARTS_MAX: usize = 5;
/// How often a keeper that does not listen is tried.
const ASKED_AGAIN: Duration = Duration::from_millis(10);
/// How often a keeper looks whether it can be found still.
const CLAIM_LOOKED_EVERY: Duration = Duration::from_secs(1);
/// How often the logs are looked at.
const LOGS_LOOKED_EVERY: Duration = Duration::from_secs(10);
/// Time to set the host up around a router, or to undo that.
const SET_UP_WITHIN: Duration = Duration::from_secs(20);

/// Keeps until it is asked to end; ends at once where another keeps already. `for_router`: a
/// router that starts waits for it, and nothing is kept before that one runs.
pub fn run(environment: &Environment, for_router: bool) -> Result<()> {
    root::require("keeper")?;
    let run_dir = environment.run_dir()?;
    let _ = rustix::process::setsid();
    let Ok(claim) = Claim::take(&run_dir, Daemon::Keeper) else { return Ok(()) };
    logging::start(LogLevel::Info, "");
    // Before the first thread: privileges are a matter of each.
    privileges::keep_those_of_keeper().map_err(|(step, error)| {
        Failure::because("cannot keep this host", format_args!("{step}: {error}"))
    })?;
    let failed = |error: std::io::Error| Failure::because("cannot keep this host", error);
    let refused = |error: weave_host::Error| Failure::because("cannot keep this host", error);
    let config = KeeperConfig {
        state_dir: environment.state_dir()?,
        engine_host: environment.engine_host()?,
        policy: expose::policy(environment, environment.port()?, false)?,
        for_router,
        elsewhere: Elsewhere::default(),
    };
    let _ = std::env::set_current_dir("/");
    weave_api::socket::prepare(&run_dir).map_err(|error| {
        Failure::new("cannot make the keeper's socket", error, "correct it or name another WEAVE_RUN_DIR")
    })?;
    // At once: one that tells nothing passes for a version before those that tell.
    let own = KeeperStatus {
        pid: std::process::id(),
        software: Software::ours(),
        engine: Some(place(&config.engine_host)),
        ..Default::default()
    };
    tell(&run_dir, &own);
    let listener = KeeperListener::bind(&weave_api::socket::directory(&run_dir)).map_err(failed)?;
    let (sender, news) = news();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    let stop = sender.clone();
    std::thread::Builder::new()
        .name("keeper-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                // A hang-up is what a reload sends: everything is looked at anyway.
                stop.tell(if signal == SIGHUP { News::Firewall } else { News::Stop });
            }
        })
        .map_err(failed)?;
    let (claim, stop) = (Arc::new(claim), sender.clone());
    watch_claim(Arc::downgrade(&claim), move || stop.tell(News::Stop)).map_err(failed)?;
    watch(config.engine_host.clone(), &sender).map_err(refused)?;
    elsewhere::follow(run_dir.clone(), config.elsewhere.clone(), sender.clone()).map_err(failed)?;
    let devices = Devices::default();
    serve_routers(listener, config.state_dir.clone(), devices.clone(), sender).map_err(refused)?;
    dns::guard::watch(run_dir.clone(), config.state_dir.clone()).map_err(failed)?;
    keep_logs_short(run_dir.clone()).map_err(failed)?;
    close_stdout().map_err(failed)?;
    let (state_dir, of_names) = (config.state_dir.clone(), run_dir.clone());
    let names_changed = move || {
        dns::publish::write(&of_names, &state_dir);
        tell_router(&of_names);
    };
    let beats = Cell::new(0);
    let tell_found = |found: &Findings| {
        tell(&run_dir, &KeeperStatus { beat: Some(beats.get()), ..standing(&own, found) });
    };
    let found = |found: &Findings| {
        tell_found(found);
        tell_router(&run_dir);
    };
    let beat = |found: &Findings| {
        beats.set(beats.get() + 1);
        tell_found(found);
    };
    keep(config, devices, news, names_changed, found, beat).map_err(refused)?;
    // Else it is that of another.
    if claim.is_in_place() {
        let _ = std::fs::remove_file(weave_api::keeper::file(&run_dir));
    }
    Ok(())
}

/// Calls `removed` once the place of the keeper in the run directory is removed, as a reset does: no
/// command finds it any more.
fn watch_claim(claim: Weak<Claim>, removed: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let watch = move || {
        while claim.upgrade().is_some_and(|claim| claim.is_in_place()) {
            std::thread::sleep(CLAIM_LOOKED_EVERY);
        }
        if claim.upgrade().is_some() {
            tracing::warn!("the place of this keeper in the run directory was removed: it ends");
            removed();
        }
    };
    std::thread::Builder::new().name("keeper-claim".into()).spawn(watch).map(drop)
}

/// Keeps the logs of all daemons from growing without end, until the process ends.
fn keep_logs_short(run_dir: PathBuf) -> std::io::Result<()> {
    let keep = move || {
        loop {
            std::thread::sleep(LOGS_LOOKED_EVERY);
            running::put_long_logs_aside(&run_dir);
        }
    };
    std::thread::Builder::new().name("keeper-logs".into()).spawn(keep).map(drop)
}

/// For routers and commands that ask how this host stands.
fn tell(run_dir: &Path, status: &KeeperStatus) {
    if let Err(error) = weave_api::keeper::write(run_dir, status) {
        tracing::warn!("telling how this host stands: {error}");
    }
}

fn standing(own: &KeeperStatus, found: &Findings) -> KeeperStatus {
    let state =
        |state: &Degraded| KeeperDegraded { name: state.name.to_owned(), reason: state.reason.clone() };
    KeeperStatus {
        firewall: found.firewall.map(|firewall| firewall.to_string()),
        guard: found.guard_dropped.map(|dropped| GuardStatus { dropped }),
        repairs: KeeperRepairs { devices: found.repairs.devices, rules: found.repairs.rules },
        degraded: found.degraded.iter().chain(&found.containers).chain(&found.insides).map(state).collect(),
        changed: found.changed,
        ..own.clone()
    }
}

/// Puts daemons of this program in the place of those that run, keeper and sidecar: after an
/// upgrade they go on with the executable they were started from. The router is left alone.
pub fn renew(environment: &Environment) -> Result<()> {
    root::require("keeper --renew")?;
    let run_dir = environment.run_dir()?;
    let ran = Running::find(&run_dir, Daemon::Keeper)?.is_some();
    end(&run_dir)?;
    // Whatever becomes of the DNS: a keeper that runs tries it again.
    let dns = dns::launch::renew(environment);
    if ran || Running::find(&run_dir, Daemon::Router)?.is_some() {
        let keeper = start_to_stay(environment, &run_dir);
        if let (Err(failure), Err(_)) = (&keeper, &dns) {
            output::warn(failure);
        }
        return dns.and(keeper);
    }
    dns
}

/// Starts a keeper and sees that it listens and stays.
fn start_to_stay(environment: &Environment, run_dir: &Path) -> Result<()> {
    start(environment, false, Stdio::piped()).map(|child| await_listening(child, QUEUES_WITHIN))?;
    // One that ends holds its file a little longer than its output.
    if let Some(running) = Running::find(run_dir, Daemon::Keeper)?
        && !running.wait(running.dying_limit())?
    {
        return Ok(());
    }
    let remedy = format!("look into {}, then try again", run_dir.join(KEEPER_LOG).display());
    Err(Failure::new("cannot renew the keeper", "it ended as soon as it was started", remedy))
}

/// Whoever started it and reads from it learns by this that it listens.
fn close_stdout() -> std::io::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}

/// Refuses to begin what could not be guarded.
pub fn check_guard(guard: bool) -> Result<()> {
    let checked = if guard { Guard::check() } else { Ok(()) };
    checked.map_err(|error| Failure::because("cannot launch", error))
}

/// Starts the keeper of this host unless it runs. What the caller did stays done without it.
pub fn ensure(environment: &Environment) {
    let started = environment.run_dir().and_then(|run_dir| {
        if Running::find(&run_dir, Daemon::Keeper)?.is_some() {
            return Ok(());
        }
        let mut child = start(environment, false, Stdio::null())?;
        // No zombie stays where the caller does.
        std::thread::spawn(move || child.wait());
        Ok(())
    });
    if let Err(failure) = started {
        output::warn(format_args!("nobody keeps what was set up: {failure}"));
    }
}

/// Says so where the keeper that runs follows another engine than the one that has a container: nobody
/// attaches that again.
pub fn warn_of_other_engine(container: &str, engine: &str, environment: &Environment) -> Result<()> {
    let Ok(Keeper::Tells(KeeperStatus { engine: Some(followed), .. })) =
        weave_api::keeper::look(&environment.run_dir()?)
    else {
        return Ok(());
    };
    // One engine may listen in two places.
    let is_known = || Engine::new(&followed).and_then(|engine| engine.find(container)).is_ok();
    if followed != engine && !is_known() {
        let fault = records::other_engine(engine, &followed);
        output::warn(format_args!("container {} {fault}", dns::shown(container)));
    }
    Ok(())
}

/// The queues of the tap for a router that starts, and what it ends the start by.
pub fn queues(environment: &Environment, wanted: Wanted) -> Result<(Queues, Start)> {
    let run_dir = environment.run_dir()?;
    let directory = weave_api::socket::directory(&run_dir);
    let failed = |why: &dyn std::fmt::Display| {
        let log = run_dir.join(KEEPER_LOG);
        let remedy = format!("look into {}; end a `weave keeper` that hangs by hand", log.display());
        Failure::new("cannot start: no queues of the tap", why, remedy)
    };
    let begin = Instant::now();
    let mut started = Vec::new();
    loop {
        let left = QUEUES_WITHIN.saturating_sub(begin.elapsed());
        let asked = KeeperClient::connect(&directory)
            .and_then(|client| client.queues(wanted, left).map(|queues| (queues, client)));
        match asked {
            Ok((queues, client)) => return Ok((queues, Start { client, keepers: started })),
            Err(KeeperError::Refused(why)) => {
                return Err(Failure::verbatim(format_args!("cannot start: {why}")));
            }
            Err(error) if begin.elapsed() >= QUEUES_WITHIN => return Err(failed(&error)),
            // That of an earlier version of this program.
            Err(KeeperError::Version(_)) => end(&run_dir)?,
            // It ends just now, or begins.
            Err(KeeperError::Broken(_) | KeeperError::Silent(_)) => std::thread::sleep(ASKED_AGAIN),
            Err(KeeperError::Absent) if Running::find(&run_dir, Daemon::Keeper)?.is_none() => {
                if started.len() >= STARTS_MAX {
                    return Err(failed(&"the keeper ends as soon as it is started"));
                }
                started.push(start_and_wait(environment, left)?);
            }
            Err(KeeperError::Absent) if begin.elapsed() >= SOCKET_WITHIN => end(&run_dir)?,
            Err(KeeperError::Absent) => std::thread::sleep(ASKED_AGAIN),
        }
    }
}

/// The start of a router that has its queues.
pub struct Start {
    client: KeeperClient,
    /// Keepers that were started for this; all but the last have ended.
    keepers: Vec<Child>,
}

impl Start {
    /// The router runs: has the host set up around it.
    pub fn runs(self, policy: HostPolicy) -> std::result::Result<(), String> {
        let done = self.client.runs(policy, SET_UP_WITHIN);
        // A router outlives its keeper, perhaps: no zombie stays.
        if !self.keepers.is_empty() {
            std::thread::spawn(move || self.keepers.into_iter().for_each(|mut keeper| drop(keeper.wait())));
        }
        done.map_err(|error| format!("this host is not set up around the router: {error}"))
    }

    /// The router does not run: the host is to be as it was.
    pub fn failed(self) {
        if let Err(error) = self.client.failed(SET_UP_WITHIN) {
            output::warn(format_args!("this host is not as it was before: {error}"));
        }
    }
}

/// Starts a keeper for a router and waits until it listens, or has ended.
fn start_and_wait(environment: &Environment, limit: Duration) -> Result<Child> {
    Ok(await_listening(start(environment, true, Stdio::piped())?, limit))
}

fn await_listening(mut child: Child, limit: Duration) -> Child {
    if let Some(stdout) = &child.stdout {
        let mut ready = [PollFd::new(stdout, PollFlags::IN)];
        let timeout = limit.try_into().unwrap_or_default();
        // One that is not ready is found so by the next try.
        let _ = poll(&mut ready, Some(&timeout));
    }
    child.stdout = None;
    child
}

fn start(environment: &Environment, for_router: bool, stdout: Stdio) -> Result<Child> {
    let (run_dir, state_dir) = (environment.run_dir()?, environment.state_dir()?);
    crate::launch::make_run_dir(&run_dir)?;
    let failed =
        |error: std::io::Error| Failure::new("cannot start the keeper", error, "check WEAVE_RUN_DIR");
    running::daemon("keeper", KEEPER_LOG, &run_dir, &state_dir)
        .and_then(|mut keeper| keeper.args(for_router.then_some("--for-router")).stdout(stdout).spawn())
        .map_err(failed)
}

/// How often it is looked for the process of a keeper that just starts.
const LOOKED_EVERY: Duration = Duration::from_millis(10);

/// Ends the keeper of `run_dir`, if one runs.
pub fn end(run_dir: &Path) -> Result<()> {
    let deadline = Instant::now() + ENDS_WITHIN;
    while let Some(running) = Running::find(run_dir, Daemon::Keeper)? {
        if running.terminate() && running.wait(ENDS_WITHIN)? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            break;
        }
        // One that just starts holds its lock before it says which process it is.
        std::thread::sleep(LOOKED_EVERY);
    }
    let Some(running) = Running::find(run_dir, Daemon::Keeper)? else { return Ok(()) };
    // What it was at is finished by the next one.
    if running.kill() && running.wait(ENDS_WITHIN)? {
        output::warn("the keeper did not end by itself: it was killed");
        return Ok(());
    }
    Err(Failure::new("cannot stop the keeper", "it does not end", "end the process `weave keeper` by hand"))
}

/// Ends the keeper unless a router runs or there is something to keep without one.
pub fn end_if_idle(environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    let is_needed = has_work(&environment.state_dir()?) || Running::find(&run_dir, Daemon::Router)?.is_some();
    if is_needed {
        return Ok(());
    }
    end(&run_dir)?;
    // A command may have found the keeper that was about to end, and so have started none.
    if has_work(&environment.state_dir()?) {
        ensure(environment);
    }
    Ok(())
}
