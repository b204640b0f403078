//! Rules by `iptables` and `ip6tables`.
//!
//! An accept in a chain of ours counts where the packet is decided: with Docker that is
//! DOCKER-USER, which Docker asks first and leaves alone; otherwise FORWARD.

use std::fmt::Write;

use super::{BRIDGE, Degraded, Family, Policy, tool};
use crate::error::Result;

const FORWARD: &str = "WEAVE-FORWARD";
const INPUT: &str = "WEAVE-INPUT";
const POSTROUTING: &str = "WEAVE-POSTROUTING";
const RAW_IN: &str = "WEAVE-PREROUTING";
const RAW_OUT: &str = "WEAVE-OUTPUT";
/// Where Docker looks before its own rules.
const DOCKER_USER: &str = "DOCKER-USER";
/// Seconds to wait for another program that changes the tables.
const WAIT: [&str; 2] = ["-w", "5"];
/// Exit status where another program has the tables for longer, or memory is short
/// (`RESOURCE_PROBLEM`, xtables.h): what the tables hold is not known then.
const RESOURCE_PROBLEM: i32 = 4;

/// Each chain of ours: its table, its name, the chains of the kernel that may lead to it.
pub(super) const CHAINS: &[(&str, &str, &[&str])] = &[
    ("filter", FORWARD, &[DOCKER_USER, "FORWARD"]),
    ("filter", INPUT, &["INPUT"]),
    ("nat", POSTROUTING, &["POSTROUTING"]),
    (RAW, RAW_IN, &["PREROUTING"]),
    (RAW, RAW_OUT, &["OUTPUT"]),
];
/// The table that decides before connections are tracked; old kernels may lack it.
const RAW: &str = "raw";

impl Family {
    const fn iptables(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    const fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    /// Redirects; advertisements of routers.
    const fn told_ways(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["-p icmp -m icmp --icmp-type 5"],
            Self::V6 => {
                &["-p ipv6-icmp -m icmp6 --icmpv6-type 137", "-p ipv6-icmp -m icmp6 --icmpv6-type 134"]
            }
        }
    }
}

pub(super) fn apply(policy: &Policy) -> Result<Option<Degraded>> {
    let mut degraded = None;
    for family in families() {
        let translates = masquerades(policy, family);
        if translates && let Err(error) = exempt(policy.port, family) {
            degraded = degraded.or(Some(Degraded::tracked(&error)));
        }
        tool::tell(family.restore(), &["-w", "5", "--noflush"], &script(policy, family))?;
        for &(table, chain, parents) in CHAINS {
            match table {
                RAW if translates => {}
                RAW | "nat" if !translates => drop_chain(family, table, chain, parents)?,
                _ => lead(family, table, chain, parents)?,
            }
        }
    }
    Ok(degraded)
}

/// Exempts the mesh from the tracking of connections, before anything asks for it. The rules come
/// last: they themselves make the kernel track what does not come to them.
fn exempt(port: u16, family: Family) -> Result<()> {
    for &(table, chain, parents) in CHAINS.iter().filter(|(table, ..)| *table == RAW) {
        if !exists(family, table, chain)? {
            change(family, table, &["-N", chain])?;
        }
        lead(family, table, chain, parents)?;
    }
    tool::tell(family.restore(), &["-w", "5", "--noflush"], &exemption(port))
}

fn exemption(port: u16) -> String {
    let udp = "-p udp -m udp";
    format!(
        "*{RAW}\n:{RAW_IN} - [0:0]\n:{RAW_OUT} - [0:0]\n\
         -A {RAW_IN} {udp} --dport {port} -m addrtype --dst-type LOCAL -j CT --notrack\n\
         -A {RAW_OUT} {udp} --dport {port} -j CT --notrack\n\
         -A {RAW_OUT} {udp} --sport {port} -j CT --notrack\nCOMMIT\n"
    )
}

/// Whether addresses are to be translated at all. Where they are not, there is no chain for it:
/// it would make the kernel track every datagram of the mesh as a connection.
fn masquerades(policy: &Policy, family: Family) -> bool {
    policy.exposed(family).any(|exposed| exposed.masquerade)
}

/// Takes a chain of ours away, if it is there, with all that leads to it.
fn drop_chain(family: Family, table: &str, chain: &str, parents: &[&str]) -> Result<()> {
    if !exists(family, table, chain)? {
        return Ok(());
    }
    let mut outcome = Ok(());
    for parent in parents {
        outcome = outcome.and(unlink(family, table, parent, chain));
    }
    outcome = outcome.and(change(family, table, &["-F", chain]));
    outcome.and(change(family, table, &["-X", chain]))
}

pub(super) fn remove() -> Result<()> {
    let mut outcome = Ok(());
    for family in families() {
        for &(table, chain, parents) in CHAINS {
            outcome = outcome.and(drop_chain(family, table, chain, parents));
        }
    }
    outcome
}

pub(super) fn snapshot() -> Result<String> {
    let mut text = String::new();
    for family in families() {
        for &(table, chain, parents) in CHAINS {
            let _ = writeln!(text, "{} {table} {chain}", family.iptables());
            text.push_str(&list(family, table, chain)?.unwrap_or_default());
            for parent in parents {
                if let Some(rules) = used(family, table, parent)? {
                    let _ = writeln!(text, "{parent} leads there from {:?}", places(&rules, chain));
                }
            }
        }
    }
    Ok(text)
}

/// Those whose program is there: a host without IPv6 may lack the second.
fn families() -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|family| tool::is_installed(family.restore()))
}

/// What fills the chains, emptying them before; each table in one step.
fn script(policy: &Policy, family: Family) -> String {
    let Policy { port, engine_bridge, .. } = policy;
    let mut text = format!("*filter\n:{FORWARD} - [0:0]\n:{INPUT} - [0:0]\n");
    let mut rule = |chain: &str, rule: String| {
        let _ = writeln!(text, "-A {chain} {rule}");
    };
    // Containers to containers, where bridged frames pass the filter too (br_netfilter).
    rule(FORWARD, format!("-i {BRIDGE} -o {BRIDGE} -j ACCEPT"));
    rule(FORWARD, format!("-i {engine_bridge} -o {BRIDGE} -j DROP"));
    // The engine's own rules say what may enter its bridge.
    rule(FORWARD, format!("-i {BRIDGE} -o {engine_bridge} -j RETURN"));
    for exposed in policy.exposed(family) {
        let net = exposed.cidr.trunc();
        rule(FORWARD, format!("-o {BRIDGE} -d {net} -j ACCEPT"));
        rule(FORWARD, format!("-i {BRIDGE} -s {net} -j ACCEPT"));
    }
    for interface in [BRIDGE, engine_bridge] {
        for protocol in ["tcp", "udp"] {
            rule(INPUT, format!("-i {interface} -p {protocol} --dport {port} -j DROP"));
        }
    }
    // No container tells the host by which way to send.
    for told in family.told_ways() {
        rule(INPUT, format!("-i {BRIDGE} {told} -j DROP"));
    }
    text.push_str("COMMIT\n");
    if !masquerades(policy, family) {
        return text;
    }
    let _ = write!(text, "*nat\n:{POSTROUTING} - [0:0]\n");
    for exposed in policy.exposed(family).filter(|exposed| exposed.masquerade) {
        let net = exposed.cidr.trunc();
        for many in family.to_many() {
            let _ = writeln!(text, "-A {POSTROUTING} -s {net} -d {many} -j RETURN");
        }
        let _ = writeln!(text, "-A {POSTROUTING} ! -o {BRIDGE} -s {net} ! -d {net} -j MASQUERADE");
        let _ = writeln!(text, "-A {POSTROUTING} -o {BRIDGE} ! -s {net} -d {net} -j MASQUERADE");
    }
    text.push_str("COMMIT\n");
    text
}

/// Lets the first of `parents` that packets come to lead to `chain`, as its first rule, and no
/// other.
fn lead(family: Family, table: &str, chain: &str, parents: &[&str]) -> Result<()> {
    let mut leads = false;
    for parent in parents {
        let Some(rules) = used(family, table, parent)? else {
            unlink(family, table, parent, chain)?;
            continue;
        };
        if leads || places(&rules, chain) != [0] {
            unlink(family, table, parent, chain)?;
            if !leads {
                change(family, table, &["-I", parent, "1", "-j", chain])?;
            }
        }
        leads = true;
    }
    Ok(())
}

/// The rules of a parent that packets come to: the engine's chain stays when the kernel's, that led
/// to it, was flushed.
fn used(family: Family, table: &str, parent: &str) -> Result<Option<String>> {
    if parent == DOCKER_USER {
        let forward = list(family, table, "FORWARD")?.unwrap_or_default();
        if places(&forward, DOCKER_USER).is_empty() {
            return Ok(None);
        }
    }
    list(family, table, parent)
}

/// Which of the rules of a parent, counted from 0, lead to `chain`. An engine that starts puts
/// chains of its own before them, and then they do not decide any more.
fn places(rules: &str, chain: &str) -> Vec<usize> {
    let leads = format!("-j {chain}");
    let rules = rules.lines().filter(|line| line.starts_with("-A")).enumerate();
    rules.filter(|(_, line)| line.ends_with(&leads)).map(|(place, _)| place).collect()
}

/// Takes every way from `parent` to `chain` away.
fn unlink(family: Family, table: &str, parent: &str, chain: &str) -> Result<()> {
    let rules = list(family, table, parent)?.unwrap_or_default();
    for _ in rules.lines().filter(|line| line.ends_with(&format!("-j {chain}"))) {
        change(family, table, &["-D", parent, "-j", chain])?;
    }
    Ok(())
}

fn exists(family: Family, table: &str, chain: &str) -> Result<bool> {
    Ok(list(family, table, chain)?.is_some())
}

/// The rules of a chain; `None` if there is none of that name.
fn list(family: Family, table: &str, chain: &str) -> Result<Option<String>> {
    let arguments = [&WAIT[..], &["-t", table, "-S", chain]].concat();
    let output = tool::ask(family.iptables(), &arguments)?;
    match output.status.code() {
        Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        None | Some(RESOURCE_PROBLEM) => Err(tool::refusal(family.iptables(), &output)),
        Some(_) => Ok(None),
    }
}

fn change(family: Family, table: &str, what: &[&str]) -> Result<()> {
    let arguments = [&WAIT[..], &["-t", table], what].concat();
    tool::tell(family.iptables(), &arguments, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ExposedNet;
    use super::*;

    #[test]
    fn the_rules_of_each_family() {
        let exposed = |cidr: &str, masquerade| ExposedNet { cidr: cidr.parse().unwrap(), masquerade };
        let policy = Policy {
            port: 6783,
            engine_bridge: "docker0".into(),
            exposed: vec![
                exposed("10.2.1.102/24", true),
                exposed("10.2.2.102/24", false),
                exposed("fd00:2::102/64", true),
            ],
        };
        let v4 = "*filter
:WEAVE-FORWARD - [0:0]
:WEAVE-INPUT - [0:0]
-A WEAVE-FORWARD -i weave -o weave -j ACCEPT
-A WEAVE-FORWARD -i docker0 -o weave -j DROP
-A WEAVE-FORWARD -i weave -o docker0 -j RETURN
-A WEAVE-FORWARD -o weave -d 10.2.1.0/24 -j ACCEPT
-A WEAVE-FORWARD -i weave -s 10.2.1.0/24 -j ACCEPT
-A WEAVE-FORWARD -o weave -d 10.2.2.0/24 -j ACCEPT
-A WEAVE-FORWARD -i weave -s 10.2.2.0/24 -j ACCEPT
-A WEAVE-INPUT -i weave -p tcp --dport 6783 -j DROP
-A WEAVE-INPUT -i weave -p udp --dport 6783 -j DROP
-A WEAVE-INPUT -i docker0 -p tcp --dport 6783 -j DROP
-A WEAVE-INPUT -i docker0 -p udp --dport 6783 -j DROP
-A WEAVE-INPUT -i weave -p icmp -m icmp --icmp-type 5 -j DROP
COMMIT
*nat
:WEAVE-POSTROUTING - [0:0]
-A WEAVE-POSTROUTING -s 10.2.1.0/24 -d 224.0.0.0/4 -j RETURN
-A WEAVE-POSTROUTING -s 10.2.1.0/24 -d 255.255.255.255/32 -j RETURN
-A WEAVE-POSTROUTING ! -o weave -s 10.2.1.0/24 ! -d 10.2.1.0/24 -j MASQUERADE
-A WEAVE-POSTROUTING -o weave ! -s 10.2.1.0/24 -d 10.2.1.0/24 -j MASQUERADE
COMMIT
";
        assert_eq!(script(&policy, Family::V4), v4);
        let v6 = script(&policy, Family::V6);
        let hidden = Policy { exposed: Vec::new(), ..policy.clone() };
        assert!(!script(&hidden, Family::V4).contains("nat"));
        assert!(v6.contains("-s fd00:2::/64 -d ff00::/8 -j RETURN") && !v6.contains("10.2."), "{v6}");
    }
}
