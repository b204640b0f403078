//! How the router of this host stands, and what runs beside it.

use std::path::Path;

use weave_api::client::TIME_LIMIT;
use weave_api::keeper::{self, Keeper};
use weave_api::names::{ANSWER_WITHIN, SidecarStatus};
use weave_api::request::RESTART;
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

/// What to do about a DNS that something keeps from being asked.
const PORT_TAKEN: &str = "stop what has that port, then `weave launch-dns`";

/// Looks at the router, and at its links if it runs.
pub(super) fn look(environment: &Environment) -> Result<(Option<Status>, Vec<Finding>)> {
    let run_dir = environment.run_dir()?;
    let status = match Client::connect(&run_dir, TIME_LIMIT).and_then(|mut client| client.status()) {
        Ok(status) => status,
        Err(error) => {
            let remedy = match error {
                ClientError::NotRunning(_) => "weave launch",
                ClientError::Refused(_) => RESTART,
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
    Finding::warning("router", text, RESTART)
}

fn links(status: &Status) -> Vec<Finding> {
    let (up, down): (Vec<_>, Vec<_>) =
        status.connections.iter().partition(|link| link.state == ConnectionState::Established);
    let mut findings = Vec::new();
    // Strangers that were turned away are named below, and say nothing of the links of this host.
    let ours = status.connections.iter().filter(|link| !link.is_refused()).count();
    if ours > 0 || !status.targets.is_empty() {
        let text = format!("{} established of {ours}", up.len());
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
            let remedy = format!("set one WEAVE_MTU on all hosts, then {RESTART}");
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

/// Where the DNS can be asked. Without an address to be asked on it does what it should: a host
/// may have neither an engine's bridge nor an address on the network.
fn listens(sidecar: &SidecarStatus) -> Finding {
    let text = format!("{} names of {}", sidecar.names, sidecar.domain);
    match (sidecar.listening.as_slice(), sidecar.not_listening.as_slice()) {
        ([], []) => Finding::warning(
            "DNS",
            format_args!("{text}; it has no address to be asked on"),
            "weave launch-dns CIDR, weave expose CIDR, or an engine with a bridge",
        ),
        ([], elsewhere) => {
            Finding::failed("DNS", format_args!("it listens nowhere: {}", elsewhere.join("; ")), PORT_TAKEN)
        }
        (_, []) => Finding::ok("DNS", text),
        (_, elsewhere) => {
            let text = format!("{text}; does not listen: {}", elsewhere.join("; "));
            Finding::warning("DNS", text, PORT_TAKEN)
        }
    }
}

fn names(environment: &Environment) -> Result<Finding> {
    let settings = dns::settings(environment);
    Ok(match sidecar::status(&environment.run_dir()?, ANSWER_WITHIN) {
        Ok(sidecar) => listens(&sidecar),
        Err(error) => match settings {
            Ok(settings) if settings.enabled => Finding::failed("DNS", error, "weave launch-dns"),
            Ok(_) => Finding::ok("DNS", "not launched"),
            Err(unread) => Finding::warning("DNS", unread, "run this as root"),
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Standing;
    use super::*;

    fn status(targets: &str, connections: &str) -> Status {
        let text = format!(
            r#"{{"version": "0.1.0", "protocol": [1, 1], "name": "02:1f:3a:00:c4:07", "nickname": "host1",
                "uid": "00000000000000aa", "pid": 4711, "uptime_s": 61, "port": 6783, "encrypted": true,
                "discovery": true, "mtu": 1376, "conn_limit": 200, "targets": [{targets}],
                "connections": [{connections}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// A healthy router that is stopped and does not come up for want of its password is worse than one of
    /// another version.
    #[test]
    fn a_restart_is_said_with_what_an_encrypted_router_needs() {
        let found = version(&Status { version: "0.0.1".into(), ..status("", "") });
        for part in ["systemctl restart weave", "weave stop --keep-dns", "--password-file FILE"] {
            assert!(found.remedy.contains(part), "{found:?}");
        }
    }

    #[test]
    fn strangers_that_are_turned_away_are_told_and_are_no_links_of_this_host() {
        let stranger = r#"{"direction": "inbound", "address": "192.0.2.66", "state": "failed",
            "reason": "wrong password or no weave router"}"#;
        let found = links(&status("", stranger));
        assert_eq!(
            found.iter().map(|one| one.standing).collect::<Vec<_>>(),
            [Standing::Warning],
            "{found:?}"
        );
        assert!(found[0].subject.contains("192.0.2.66"), "{found:?}");
        let ours = r#"{"direction": "outbound", "address": "192.0.2.2:6783", "state": "retrying"}"#;
        let found =
            links(&status(r#"{"target": "192.0.2.2", "state": "retrying"}"#, &format!("{stranger}, {ours}")));
        assert_eq!((found[0].standing, found[0].text.as_str()), (Standing::Failed, "0 established of 1"));
    }

    #[test]
    fn a_dns_without_an_address_to_be_asked_on_is_a_warning_unless_one_is_taken() {
        let taken = r#""172.17.0.1:53: Address already in use""#;
        for (listening, not_listening, standing) in [
            ("", "", Standing::Warning),
            ("", taken, Standing::Failed),
            (r#""10.2.0.1:53""#, taken, Standing::Warning),
            (r#""10.2.0.1:53""#, "", Standing::Ok),
        ] {
            let text = format!(
                r#"{{"pid": 1, "domain": "weave.local", "ttl_s": 1, "listening": [{listening}],
                    "not_listening": [{not_listening}], "upstream": [], "names": 2, "entries": 3, "counters": {{}}}}"#
            );
            let found = listens(&serde_json::from_str(&text).unwrap());
            assert_eq!(found.standing, standing, "{found:?}");
            assert_eq!(found.text.contains("172.17.0.1"), !not_listening.is_empty(), "{found:?}");
        }
    }
}
