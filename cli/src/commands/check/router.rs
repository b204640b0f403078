//! How the router of this host stands, and what runs beside it.

use std::path::Path;

use weave_api::client::TIME_LIMIT;
use weave_api::keeper::{self, Keeper};
use weave_api::names::ANSWER_WITHIN;
use weave_api::status::{Connection, ConnectionState, Degraded};
use weave_api::{Client, ClientError, Status, sidecar};
use weave_host::engine::Engine;

use super::{Finding, remedies};
use crate::commands::dns;
use crate::environment::Environment;
use crate::failure::Result;

/// Links, and states of them, that are named one by one, at most.
const NAMED: usize = 16;
/// The states that say that no keeper runs, or that it hangs.
const NO_KEEPER: &str = "no_keeper";
const KEEPER_HANGS: &str = "keeper_hangs";
/// What to do about a state whose cure is not in its reason.
const DEGRADED: &str = "it works; docs/troubleshooting.md says what each such state means";

/// Looks at the router, and at its links if it runs.
pub(super) fn look(environment: &Environment) -> Result<(Option<Status>, Vec<Finding>)> {
    let run_dir = environment.run_dir()?;
    let status = match Client::connect(&run_dir, TIME_LIMIT).and_then(|mut client| client.status()) {
        Ok(status) => status,
        Err(error) => {
            let remedy = match error {
                ClientError::NotRunning(_) => "weave launch",
                ClientError::Refused(_) => "weave stop; weave launch",
                ClientError::Socket(_)
                | ClientError::Io(_)
                | ClientError::TimedOut(_)
                | ClientError::Closed
                | ClientError::Nonsense(_) => "look into its log; run this as root",
            };
            return Ok((None, vec![Finding::failed("router", error, remedy)]));
        }
    };
    let mut findings = vec![version(&status)];
    let is_of_keeper = |degraded: &Degraded| [NO_KEEPER, KEEPER_HANGS].contains(&degraded.name.as_str());
    for degraded in status.degraded.iter().filter(|degraded| !is_of_keeper(degraded)) {
        findings.push(Finding::warning(&degraded.name, &degraded.reason, DEGRADED));
    }
    findings.extend(keeper(&run_dir, &status));
    findings.extend(links(&status));
    Ok((Some(status), findings))
}

/// What of the keeper no degraded state says.
fn keeper(run_dir: &Path, router: &Status) -> Option<Finding> {
    let hangs = router.degraded.iter().find(|degraded| degraded.name == KEEPER_HANGS);
    match keeper::look(run_dir) {
        Ok(Keeper::Tells(_)) if let Some(hangs) = hangs => {
            let text = format!("it does not answer since {} s: it hangs, or was stopped", hangs.since_s);
            Some(Finding::failed("keeper", text, "weave keeper --renew"))
        }
        Ok(Keeper::Absent) => {
            let text =
                "it does not run: containers that start again are not attached, flushed rules stay away";
            Some(Finding::failed("keeper", text, "weave keeper --renew"))
        }
        Ok(Keeper::Silent) => None,
        Ok(Keeper::Tells(status)) => {
            let guard = if status.guard.is_some() { "guards the containers" } else { "no guard" };
            Some(Finding::ok("keeper", format_args!("{} runs, {guard}", status.software.version)))
        }
        Err(error) => Some(Finding::warning("keeper", error, "look into its log; run this as root")),
    }
}

fn version(status: &Status) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let network = if status.encrypted { "encrypted" } else { "clear" };
    if status.version == ours {
        return Finding::ok("router", format_args!("{ours} runs, {network}, port {}", status.port));
    }
    let text = format!("it is of version {}, this command of {ours}", status.version);
    Finding::warning("router", text, "weave stop; weave launch")
}

fn links(status: &Status) -> Vec<Finding> {
    let (up, down): (Vec<_>, Vec<_>) =
        status.connections.iter().partition(|link| link.state == ConnectionState::Established);
    let mut findings = Vec::new();
    if !status.connections.is_empty() || !status.targets.is_empty() {
        let text = format!("{} established of {}", up.len(), status.connections.len());
        findings.push(if up.is_empty() {
            Finding::failed("links", text, "see below; `weave connect PEER` names a peer")
        } else {
            Finding::ok("links", text)
        });
    }
    for link in down.into_iter().filter(|link| link.reason.is_some()).take(NAMED) {
        let reason = link.reason.as_deref().unwrap_or_default();
        let look = || format!("`weave check {}` looks at the way there", link.address);
        let remedy = remedies::of_link(reason).map_or_else(look, ToOwned::to_owned);
        findings.push(Finding::warning(format_args!("link {}", called(link)), reason, remedy));
    }
    for link in &up {
        if link.mtu.is_some_and(|mtu| mtu != status.mtu) {
            let theirs = link.mtu.unwrap_or_default();
            let text = format!("its containers have an MTU of {theirs}, those here {}", status.mtu);
            let remedy = "set one WEAVE_MTU on all hosts, then `weave stop` and `weave launch`";
            findings.push(Finding::failed(format_args!("link {}", called(link)), text, remedy));
        }
    }
    let degraded = up.iter().flat_map(|link| link.degraded.iter().map(move |degraded| (link, degraded)));
    for (link, degraded) in degraded.take(NAMED) {
        let text = format!("{}: {}", degraded.name, degraded.reason);
        findings.push(Finding::warning(format_args!("link {}", called(link)), text, DEGRADED));
    }
    findings
}

fn called(link: &Connection) -> String {
    link.nickname.as_ref().map_or_else(|| link.address.to_string(), ToString::to_string)
}

/// Looks at the engine and the DNS.
pub(super) fn services(environment: &Environment) -> Result<Vec<Finding>> {
    Ok(vec![engine(&environment.engine_host()?), names(environment)?])
}

fn engine(host: &str) -> Finding {
    match Engine::new(host).and_then(|engine| engine.list()) {
        Ok(containers) => Finding::ok("engine", format_args!("{host}: {} containers", containers.len())),
        Err(error) => {
            let remedy = "start it, or set DOCKER_HOST; `attach pid:N` and `netns:NAME` need none";
            Finding::warning("engine", error, remedy)
        }
    }
}

fn names(environment: &Environment) -> Result<Finding> {
    let settings = dns::settings(environment);
    Ok(match sidecar::status(&environment.run_dir()?, ANSWER_WITHIN) {
        Ok(sidecar) if sidecar.listening.is_empty() => {
            let text = format!("it listens nowhere: {}", sidecar.not_listening.join("; "));
            Finding::failed(
                "DNS",
                text,
                "weave launch-dns CIDR, weave expose CIDR, or an engine with a bridge",
            )
        }
        Ok(sidecar) => {
            let text = format!("{} names of {}", sidecar.names, sidecar.domain);
            match sidecar.not_listening.as_slice() {
                [] => Finding::ok("DNS", text),
                elsewhere => {
                    let text = format!("{text}; does not listen: {}", elsewhere.join("; "));
                    Finding::warning("DNS", text, "stop what has that port, then `weave launch-dns`")
                }
            }
        }
        Err(error) => match settings {
            Ok(settings) if settings.enabled => Finding::failed("DNS", error, "weave launch-dns"),
            Ok(_) => Finding::ok("DNS", "not launched"),
            Err(unread) => Finding::warning("DNS", unread, "run this as root"),
        },
    })
}
