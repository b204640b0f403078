//! `weave launch-dns` and `weave stop-dns`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use clap::{ArgAction, Args};
use ipnet::IpNet;
use weave_host::Netlink;
use weave_host::names::{DEFAULT_TTL_S, DnsSettings, is_here};
use weave_host::records::{Record, Records, read_all};
use weave_wire::HostName;

use super::sidecar::{self, READY};
use super::{SIDECAR, publish};
use crate::commands::{elsewhere, keeper};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::launch::make_run_dir;
use crate::output;
use crate::root;
use crate::running::{self, DNS_LOCK, DNS_LOG, Daemon, Running};

/// Time a sidecar has to be ready, or to end.
const WITHIN: Duration = Duration::from_secs(10);
/// How long another command may start or end it.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
/// Longest line that says how it went, bytes.
const OUTCOME_MAX: u64 = 4096;
/// Longest time a name may be remembered, seconds: a week.
const TTL_MAX: i64 = 604_800;

/// What `launch-dns` takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// An address of its own on the network, with the length of the network
    #[arg(value_parser = crate::cidr::parse)]
    cidr: Option<IpNet>,
    /// The domain of all names
    #[arg(long, value_name = "DOMAIN", default_value = "weave.local", value_parser = HostName::typed)]
    domain: HostName,
    /// How long a name may be remembered by who asked, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TTL_S,
          value_parser = clap::value_parser!(u32).range(0..=TTL_MAX))]
    ttl: u32,
    /// false: containers that have ended keep their names until they are removed
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    watch: bool,
    /// Be asked on this address of the host only, beside its own on the network
    #[arg(long, value_name = "ADDRESS", value_parser = one_address)]
    listen: Option<IpAddr>,
    /// Ask the host's resolvers each time
    #[arg(long)]
    no_cache: bool,
    /// Log more
    #[arg(long)]
    debug: bool,
    /// Be the DNS in this process, for a service manager; `weave stop-dns` ends it
    #[arg(long)]
    foreground: bool,
}

/// Starts the sidecar with these settings, or gives them to the one that runs.
pub fn run(arguments: &Arguments, environment: &Environment) -> Result<()> {
    root::require("launch-dns")?;
    let new = DnsSettings {
        enabled: true,
        cidr: arguments.cidr,
        domain: arguments.domain.clone(),
        ttl_s: arguments.ttl,
        watch: arguments.watch,
        cache: !arguments.no_cache,
        listen: arguments.listen,
        debug: arguments.debug,
    };
    if arguments.foreground {
        return foreground(&new, environment);
    }
    change(|_| new, environment)?;
    keeper::ensure(environment);
    if let Some(address) = arguments.listen.filter(|address| !is_ours(*address)) {
        output::warn(format_args!("{address} is no address of this host: nobody can ask there until it is"));
    }
    Ok(())
}

/// On all addresses it would be asked from the underlay.
fn one_address(text: &str) -> std::result::Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|error: std::net::AddrParseError| error.to_string())?;
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::from([255; 4]) {
        return Err("it is not the address of one host: name one of this host, or leave it out".to_owned());
    }
    Ok(address)
}

/// Whether an interface of this host has the address, as far as can be seen.
fn is_ours(address: IpAddr) -> bool {
    let known = Netlink::open().and_then(|mut host| host.addresses());
    address.is_loopback() || known.map_or(true, |all| all.iter().any(|one| one.cidr.addr() == address))
}

/// Is the sidecar with these settings, in place of one that runs. The keeper starts another if this
/// one ends by itself, as always; who takes its place here again ends that one.
fn foreground(new: &DnsSettings, environment: &Environment) -> Result<()> {
    let (run_dir, state_dir) = (environment.run_dir()?, environment.state_dir()?);
    // By a process that has its privileges yet.
    keeper::ensure(environment);
    let lock = lock(&run_dir)?;
    let old = super::settings(environment)?;
    write(new, &state_dir)?;
    // Its address is one of this host now.
    let attached = || publish::write(&run_dir, &state_dir);
    let ready = move || {
        drop(lock);
        // Fails when no service manager asked for it: nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    };
    let served = terminate(&run_dir)
        .and_then(|_| publish::tell(environment))
        .and_then(|()| sidecar::serve(environment, attached, ready, sidecar::beat));
    if served.is_err() {
        // Else the keeper would go on trying what does not work. Not to be had once the privileges are
        // gone, and what failed is to be told.
        let _ = write(&old, &state_dir);
    }
    served
}

/// Has the sidecar run beside a router that was launched, as it was launched last. One that does not start
/// now is tried again by the keeper.
///
/// # Errors
/// Why it did not start.
pub fn beside_router(environment: &Environment) -> Result<()> {
    change(|old| DnsSettings { enabled: true, ..old }, environment).inspect_err(|_| {
        if let Ok(state_dir) = environment.state_dir() {
            have_kept(&state_dir);
        }
    })
}

/// A router is launched without it: one that ended with the host, and not by `weave stop`, stays away.
/// One that runs was launched by itself.
pub fn not_beside_router(environment: &Environment) {
    if let Err(failure) = forget_unless_it_runs(environment) {
        output::warn(failure);
    }
}

fn forget_unless_it_runs(environment: &Environment) -> Result<()> {
    let (run_dir, state_dir) = (environment.run_dir()?, environment.state_dir()?);
    if !super::settings(environment)?.enabled {
        return Ok(());
    }
    let _lock = lock(&run_dir)?;
    let settings = super::settings(environment)?;
    if settings.enabled && Running::find(&run_dir, Daemon::Dns)?.is_none() {
        write(&DnsSettings { enabled: false, ..settings }, &state_dir)?;
    }
    Ok(())
}

/// Has the keeper start the sidecar, as it was launched last: for who has no privileges.
pub fn have_kept(state_dir: &Path) {
    let wanted = super::settings_in(state_dir)
        .and_then(|settings| write(&DnsSettings { enabled: true, ..settings }, state_dir));
    if let Err(failure) = wanted {
        output::warn(failure);
    }
}

/// Ends the sidecar, if it runs. `pid`: only if it is that process, which is empty where it has
/// ended: a service manager stops what another command put a sidecar of its own in the place of.
pub fn stop(pid: Option<&str>, environment: &Environment) -> Result<()> {
    root::require("stop-dns")?;
    if pid == Some("") {
        return Ok(());
    }
    match (end(pid, environment)?, pid) {
        (false, Some(_)) => return Ok(()),
        (false, None) => output::note("no DNS runs here: nothing to stop"),
        (true, _) => {}
    }
    keeper::end_if_idle(environment)
}

/// Ends the sidecar, if it is process `pid` or none is named, and has nobody start it again; false
/// when it did not run.
pub fn end(pid: Option<&str>, environment: &Environment) -> Result<bool> {
    let (run_dir, state_dir) = (environment.run_dir()?, environment.state_dir()?);
    let settings = super::settings(environment)?;
    if !settings.enabled && Running::find(&run_dir, Daemon::Dns)?.is_none() {
        return Ok(false);
    }
    let _lock = lock(&run_dir)?;
    // Looked at under the lock: before it another sidecar may just take its place.
    let runs = Running::find(&run_dir, Daemon::Dns)?.and_then(|running| running.pid());
    if pid.is_some_and(|pid| runs.is_none_or(|runs| runs.as_raw_nonzero().to_string() != pid)) {
        return Ok(false);
    }
    if settings.enabled {
        write(&DnsSettings { enabled: false, ..settings }, &state_dir)?;
    }
    let ended = terminate(&run_dir)?;
    // Its interface went with it: nobody is to find its record.
    forget_record(&state_dir)?;
    publish::tell(environment)?;
    Ok(ended)
}

fn forget_record(state_dir: &Path) -> Result<()> {
    let failed = |error: weave_host::Error| Failure::because("cannot forget the address of the DNS", error);
    let mut host = Netlink::open().map_err(failed)?;
    remove_interfaces(&mut host, &mut Records::open(state_dir).map_err(failed)?).map_err(failed)
}

/// Removes what is left of a sidecar that has ended: its namespace may take a while to go.
pub fn remove_interfaces(host: &mut Netlink, records: &mut Records) -> weave_host::Result<()> {
    let own = records.all().iter().filter(|record| record.container == SIDECAR);
    for interface in own.map(|record| record.host_interface()).collect::<Vec<_>>() {
        if let Some(link) = host.link(&interface)? {
            host.delete_link(&link)?;
        }
    }
    records.prune(host)
}

/// Starts the sidecar with other settings; when that fails, all is as it was.
fn change(new: impl FnOnce(DnsSettings) -> DnsSettings, environment: &Environment) -> Result<()> {
    let (run_dir, state_dir) = (environment.run_dir()?, environment.state_dir()?);
    let _lock = lock(&run_dir)?;
    let old = super::settings(environment)?;
    let new = new(old.clone());
    let runs = Running::find(&run_dir, Daemon::Dns)?.is_some();
    let answers = || weave_api::sidecar::status(&run_dir, weave_api::names::ANSWER_WITHIN).is_ok();
    let is_attached = || new.cidr.is_none() || interface(&state_dir).is_some();
    if runs && old == new && is_attached() && answers() {
        return Ok(());
    }
    if let Some(cidr) = new.cidr.filter(|cidr| old.cidr != Some(*cidr)) {
        elsewhere::refuse_attached(&[cidr], environment)?
            .map_err(|error| Failure::because(format_args!("cannot give the DNS {cidr}"), error))?;
    }
    write(&new, &state_dir)?;
    let begun = terminate(&run_dir)
        .and_then(|_| publish::tell(environment))
        .and_then(|()| spawn(&run_dir, &state_dir));
    if let Err(failure) = begun {
        write(&old, &state_dir)?;
        publish::tell(environment)?;
        if runs && old.enabled && Running::find(&run_dir, Daemon::Dns)?.is_none() {
            spawn(&run_dir, &state_dir)?;
        }
        return Err(failure);
    }
    // Its address is one of this host now.
    publish::tell(environment)
}

/// Starts a sidecar that runs anew, with this program.
pub fn renew(environment: &Environment) -> Result<()> {
    let (run_dir, state_dir) = (environment.run_dir()?, environment.state_dir()?);
    let _lock = lock(&run_dir)?;
    if super::settings(environment)?.enabled && terminate(&run_dir)? {
        publish::write(&run_dir, &state_dir);
        spawn(&run_dir, &state_dir)?;
        publish::write(&run_dir, &state_dir);
    }
    Ok(())
}

/// The host's end of the interface that the sidecar has its own address on, if it is there.
pub fn interface(state_dir: &Path) -> Option<String> {
    let (records, _) = read_all(state_dir).ok()?;
    let own = records.iter().find(|record| record.container == SIDECAR && is_here(record));
    own.map(Record::host_interface)
}

/// Starts a sidecar anew that has lost the interface of its own address.
pub fn renew_without_interface(run_dir: &Path, state_dir: &Path) -> Result<()> {
    let _lock = lock(run_dir)?;
    // Looked at under the lock: before it one may just have got it, or need none any more.
    let settings = DnsSettings::read(state_dir)
        .map_err(|error| Failure::because("cannot read how the DNS was launched", error))?;
    let needs = settings.is_some_and(|settings| settings.enabled && settings.cidr.is_some());
    if needs && interface(state_dir).is_none() && terminate(run_dir)? {
        publish::write(run_dir, state_dir);
        spawn(run_dir, state_dir)?;
        publish::write(run_dir, state_dir);
    }
    Ok(())
}

/// What became of a start.
pub enum Begun {
    /// It runs.
    Started,
    /// It is not to run, or runs already.
    NotWanted,
}

/// Starts a sidecar that is to run and does not.
pub fn begin_if_wanted(run_dir: &Path, state_dir: &Path) -> Result<Begun> {
    let _lock = lock(run_dir)?;
    let settings = DnsSettings::read(state_dir)
        .map_err(|error| Failure::because("cannot read how the DNS was launched", error))?;
    let is_wanted = settings.is_some_and(|settings| settings.enabled);
    if !is_wanted || Running::find(run_dir, Daemon::Dns)?.is_some() {
        return Ok(Begun::NotWanted);
    }
    publish::write(run_dir, state_dir);
    spawn(run_dir, state_dir)?;
    publish::write(run_dir, state_dir);
    Ok(Begun::Started)
}

/// Kept by whoever starts or ends the sidecar.
fn lock(run_dir: &Path) -> Result<File> {
    make_run_dir(run_dir)?;
    let path = run_dir.join(DNS_LOCK);
    running::lock(&path, LOCK_LIMIT).map_err(|error| {
        let remedy = if error.kind() == ErrorKind::TimedOut {
            "wait for that command, or end it; `weave keeper --renew` ends a keeper that hangs"
        } else {
            "check WEAVE_RUN_DIR"
        };
        Failure::new(format_args!("cannot lock {}", path.display()), error, remedy)
    })
}

fn write(settings: &DnsSettings, state_dir: &Path) -> Result<()> {
    let aside = settings
        .write(state_dir)
        .map_err(|error| Failure::because("cannot write down how the DNS is launched", error))?;
    aside.iter().for_each(output::warn);
    Ok(())
}

fn terminate(run_dir: &Path) -> Result<bool> {
    let Some(running) = Running::find(run_dir, Daemon::Dns)? else { return Ok(false) };
    if (running.terminate() && running.wait(WITHIN)?) || running.wait(Duration::ZERO)? {
        return Ok(true);
    }
    if running.kill() && running.wait(WITHIN)? {
        output::warn("the DNS did not end by itself: it was killed");
        return Ok(true);
    }
    Err(Failure::new("cannot stop the DNS", "it does not end", "end the process `weave dns` by hand"))
}

/// Starts the sidecar and waits until it is asked.
fn spawn(run_dir: &Path, state_dir: &Path) -> Result<()> {
    let failed = |why: &dyn std::fmt::Display| {
        let log = run_dir.join(DNS_LOG);
        Failure::new("cannot start the DNS", why, format_args!("look into {}", log.display()))
    };
    let mut child = running::daemon("dns", DNS_LOG, run_dir, state_dir)
        .and_then(|mut sidecar| sidecar.stdout(Stdio::piped()).spawn())
        .map_err(|error| failed(&error))?;
    let Some(stdout) = child.stdout.take() else { return Err(failed(&"it has no output")) };
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = stdout.take(OUTCOME_MAX).read_to_string(&mut line);
        let _ = sender.send(line);
    });
    let outcome = receiver.recv_timeout(WITHIN);
    if outcome.as_deref() == Ok(READY) {
        // A keeper outlives it, perhaps: no zombie stays.
        std::thread::spawn(move || child.wait());
        return Ok(());
    }
    let _ = child.kill().and_then(|()| child.wait());
    match outcome {
        Ok(line) if line.is_empty() => Err(failed(&"it ended early")),
        Ok(line) => Err(Failure::verbatim(line.trim_end())),
        Err(_) => Err(failed(&format_args!("it was not ready within {} s", WITHIN.as_secs()))),
    }
}
