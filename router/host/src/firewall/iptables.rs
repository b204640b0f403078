//! Rules by `iptables` and `ip6tables`.
//!
//! An accept in a chain of ours counts where the packet is decided: with Docker that is
//! DOCKER-USER, which Docker asks first and leaves alone; otherwise FORWARD.

use std::fmt::Write;

use super::{BRIDGE, BRIDGED_MARK, Degraded, Family, Policy, tool};
use crate::error::Result;

const FORWARD: &str = "WEAVE-FORWARD";
const INPUT: &str = "WEAVE-INPUT";
const POSTROUTING: &str = "WEAVE-POSTROUTING";
const RAW_IN: &str = "WEAVE-PREROUTING";
const RAW_OUT: &str = "WEAVE-OUTPUT";
/// Where Docker looks before its own rules.
const DOCKER_USER: &str = "DOCKER-USER";
/// Port of the DNS (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;
/// Seconds to wait for another program that changes the tables, and that what is not named stays.
const RESTORE: [&str; 3] = ["-w", "5", "--noflush"];

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
    const fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
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

/// Programs of a family.
#[derive(Debug, Clone, Copy)]
struct Programs {
    family: Family,
    /// Of which kind; `None`: those that are in use.
    kind: Option<Kind>,
}

/// Kinds of iptables, each with tables of its own (xtables-nft(8), xtables-legacy(8)). What each is called
/// leads to one of both, which may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Legacy,
    Nft,
}

impl Programs {
    fn save(self) -> String {
        self.called("save")
    }

    fn restore(self) -> String {
        self.called("restore")
    }

    fn called(self, what: &str) -> String {
        let kind = match self.kind {
            None => "",
            Some(Kind::Legacy) => "-legacy",
            Some(Kind::Nft) => "-nft",
        };
        format!("{}{kind}-{what}", self.family.program())
    }

    /// Of which kind they are, by their own words; `None`: they are not there, or say nothing of it.
    fn kind_said(self) -> Option<Kind> {
        let said = tool::ask(&self.save(), &["--version"]).ok().filter(|said| said.status.success())?;
        let said = String::from_utf8_lossy(&said.stdout);
        match () {
            () if said.contains("legacy") => Some(Kind::Legacy),
            () if said.contains("nf_tables") => Some(Kind::Nft),
            () => None,
        }
    }

    /// Whether they change other tables than those in use do, and there may be something in those.
    fn are_others(self, in_use: Self) -> bool {
        let may_hold = self.kind != Some(Kind::Legacy) || has_legacy_tables(self.family);
        let is_there = |name: &str| tool::is_installed(name);
        if !may_hold || !is_there(&self.save()) || !is_there(&self.restore()) {
            return false;
        }
        // Nearly always they are one program with several names: nothing has to be run.
        let is_same = || tool::is_same(&self.save(), &in_use.save());
        let unused =
            || !is_there(&in_use.save()) || in_use.kind_said().is_some_and(|kind| Some(kind) != self.kind);
        !is_same() && self.kind_said() == self.kind && unused()
    }
}

/// Whether the older kind of tables is there at all: to ask its programs would make them.
fn has_legacy_tables(family: Family) -> bool {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    std::fs::read_to_string(path).is_ok_and(|names| !names.trim().is_empty())
}

/// Takes what rules of ours the kind of iptables made that is not in use, or any where none is: the
/// kernel asks the tables of each.
pub(super) fn remove_other_kinds() -> Result<()> {
    let mut outcome = Ok(());
    for family in Family::ALL {
        let in_use = Programs { family, kind: None };
        for kind in [Kind::Legacy, Kind::Nft] {
            let programs = Programs { family, kind: Some(kind) };
            if programs.are_others(in_use) {
                outcome = outcome.and(Tables::read(programs).and_then(|tables| tables.remove()));
            }
        }
    }
    outcome
}

pub(super) fn apply(policy: &Policy) -> Result<Option<Degraded>> {
    let mut degraded = None;
    for programs in in_use() {
        let family = programs.family;
        let tables = Tables::read(programs)?;
        let translates = masquerades(policy, family);
        // Exempts the mesh from the tracking of connections, before anything asks for it.
        if translates && let Err(error) = restore(programs, &exemption(policy.port, &tables)) {
            degraded = degraded.or(Some(Degraded::tracked(&error)));
        }
        let mut text = script(policy, family);
        for &(table, chain, parents) in CHAINS {
            let changes = match table {
                RAW if translates => Vec::new(),
                RAW | "nat" if !translates => tables.without_chain(table, chain, parents),
                _ => tables.leading(table, chain, parents),
            };
            in_table(&mut text, table, &changes);
        }
        restore(programs, &text)?;
    }
    Ok(degraded)
}

/// What exempts the mesh from the tracking of connections. The rules come last: they themselves make
/// the kernel track what does not come to them.
fn exemption(port: u16, tables: &Tables) -> String {
    let udp = "-p udp -m udp";
    let mut text = String::new();
    let mut rules = vec![
        format!("-A {RAW_IN} {udp} --dport {port} -m addrtype --dst-type LOCAL -j CT --notrack"),
        format!("-A {RAW_OUT} {udp} --dport {port} -j CT --notrack"),
        format!("-A {RAW_OUT} {udp} --sport {port} -j CT --notrack"),
    ];
    for &(table, chain, parents) in CHAINS.iter().filter(|(table, ..)| *table == RAW) {
        let emptied = format!(":{chain} - [0:0]");
        let made = (!tables.has(table, chain)).then(|| emptied.clone());
        let ways = tables.leading(table, chain, parents);
        in_table(&mut text, table, &made.into_iter().chain(ways).collect::<Vec<_>>());
        rules.insert(0, emptied);
    }
    in_table(&mut text, RAW, &rules);
    text
}

/// Lines for the program that restores, to be taken in one step.
fn in_table(text: &mut String, table: &str, lines: &[String]) {
    if !lines.is_empty() {
        let _ = write!(text, "*{table}\n{}\nCOMMIT\n", lines.join("\n"));
    }
}

fn restore(programs: Programs, text: &str) -> Result<()> {
    tool::tell(&programs.restore(), &RESTORE, text)
}

/// Whether addresses are to be translated at all. Where they are not, there is no chain for it:
/// it would make the kernel track every datagram of the mesh as a connection.
fn masquerades(policy: &Policy, family: Family) -> bool {
    policy.exposed(family).any(|exposed| exposed.masquerade)
}

pub(super) fn remove() -> Result<()> {
    let mut outcome = Ok(());
    for programs in in_use() {
        let removed = Tables::read(programs).and_then(|tables| tables.remove());
        outcome = outcome.and(removed);
    }
    outcome
}

pub(super) fn snapshot() -> Result<String> {
    let mut text = String::new();
    for programs in in_use() {
        let tables = Tables::read(programs)?;
        for &(table, chain, parents) in CHAINS {
            let there = if tables.has(table, chain) { "" } else { " is not there" };
            let _ = writeln!(text, "{} {table} {chain}{there}", programs.save());
            for rule in tables.rules(table, chain) {
                let _ = writeln!(text, "{rule}");
            }
            for parent in parents.iter().filter(|parent| tables.is_used(table, parent)) {
                let _ = writeln!(text, "{parent} leads there from {:?}", tables.places(table, parent, chain));
            }
        }
    }
    Ok(text)
}

/// Those whose program is there: a host without IPv6 may lack the second.
fn in_use() -> impl Iterator<Item = Programs> {
    let all = Family::ALL.into_iter().map(|family| Programs { family, kind: None });
    all.filter(|programs| tool::is_installed(&programs.restore()))
}

/// What fills the chains, emptying them before; each table in one step.
fn script(policy: &Policy, family: Family) -> String {
    let Policy { port, engine_bridge, .. } = policy;
    let mut text = format!("*filter\n:{FORWARD} - [0:0]\n:{INPUT} - [0:0]\n");
    let mut rule = |chain: &str, rule: String| {
        let _ = writeln!(text, "-A {chain} {rule}");
    };
    // Containers to containers, where bridged frames pass the filter too (br_netfilter).
    if masquerades(policy, family) {
        rule(FORWARD, format!("-i {BRIDGE} -o {BRIDGE} -j MARK --set-xmark {BRIDGED_MARK}/{BRIDGED_MARK}"));
    }
    rule(FORWARD, format!("-i {BRIDGE} -o {BRIDGE} -j ACCEPT"));
    rule(FORWARD, format!("-i {engine_bridge} -o {BRIDGE} -j DROP"));
    for other in policy.others() {
        // What the network asks there is answered.
        let new = "-m conntrack ! --ctstate RELATED,ESTABLISHED";
        rule(FORWARD, format!("-i {other} -o {BRIDGE} {new} -j DROP"));
    }
    // The engine's own rules say what may enter its bridges.
    for bridge in policy.bridges() {
        rule(FORWARD, format!("-i {BRIDGE} -o {bridge} -j RETURN"));
    }
    for exposed in policy.exposed(family) {
        let net = exposed.cidr.trunc();
        rule(FORWARD, format!("-o {BRIDGE} -d {net} -j ACCEPT"));
        rule(FORWARD, format!("-i {BRIDGE} -s {net} -j ACCEPT"));
    }
    for interface in [BRIDGE].into_iter().chain(policy.bridges()) {
        for protocol in ["tcp", "udp"] {
            rule(INPUT, format!("-i {interface} -p {protocol} --dport {port} -j DROP"));
        }
    }
    // No container tells the host by which way to send.
    for told in family.told_ways() {
        rule(INPUT, format!("-i {BRIDGE} {told} -j DROP"));
    }
    // Containers ask the DNS at the engine's addresses, also where the host closes all that it does not
    // name, as ufw does.
    for interface in policy.bridges() {
        for protocol in ["udp", "tcp"] {
            rule(INPUT, format!("-i {interface} -p {protocol} --dport {DNS_PORT} -j ACCEPT"));
        }
    }
    text.push_str("COMMIT\n");
    if !masquerades(policy, family) {
        return text;
    }
    let _ = write!(text, "*nat\n:{POSTROUTING} - [0:0]\n");
    let _ = writeln!(
        text,
        "-A {POSTROUTING} ! -i {BRIDGE} -m mark --mark {BRIDGED_MARK}/{BRIDGED_MARK} -j RETURN"
    );
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

/// All tables of a family, as its program saves them (iptables-save(8)).
///
/// Read in one go: to ask for each chain would start two dozen programs at every look.
struct Tables {
    programs: Programs,
    saved: String,
}

impl Tables {
    fn read(programs: Programs) -> Result<Self> {
        let output = tool::ask(&programs.save(), &[])?;
        if !output.status.success() {
            // What they hold is not known: they are not empty.
            return Err(tool::refusal("read the firewall with", &programs.save(), &output));
        }
        Ok(Self { programs, saved: String::from_utf8_lossy(&output.stdout).into_owned() })
    }

    /// The lines of one of them.
    fn table<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a str> {
        let rest = self.saved.lines().skip_while(move |line| line.strip_prefix('*') != Some(table));
        rest.skip(1).take_while(|line| *line != "COMMIT")
    }

    /// Whether there is a chain of this name.
    fn has(&self, table: &str, chain: &str) -> bool {
        self.table(table)
            .any(|line| line.strip_prefix(':').and_then(|line| line.split(' ').next()) == Some(chain))
    }

    /// The rules of a chain.
    fn rules<'a>(&'a self, table: &'a str, chain: &'a str) -> impl Iterator<Item = &'a str> {
        let of_chain =
            move |line: &str| line.strip_prefix("-A ")?.strip_prefix(chain)?.strip_prefix(' ').map(drop);
        self.table(table).filter(move |line| of_chain(line).is_some())
    }

    /// Which of the rules of a parent, counted from 0, lead to `chain`. An engine that starts puts
    /// chains of its own before them, and then they do not decide any more.
    fn places(&self, table: &str, parent: &str, chain: &str) -> Vec<usize> {
        let leads = format!("-j {chain}");
        let rules = self.rules(table, parent).enumerate();
        rules.filter(|(_, rule)| rule.ends_with(&leads)).map(|(place, _)| place).collect()
    }

    /// Whether packets come to a parent: the engine's chain stays when the kernel's, that led to it,
    /// was flushed. Those of the kernel are always there, shown or not.
    fn is_used(&self, table: &str, parent: &str) -> bool {
        parent != DOCKER_USER || !self.places(table, "FORWARD", DOCKER_USER).is_empty()
    }

    /// What lets the first of `parents` that packets come to lead to `chain`, as its first rule, and no
    /// other.
    fn leading(&self, table: &str, chain: &str, parents: &[&str]) -> Vec<String> {
        let mut changes = Vec::new();
        let mut leads = false;
        for parent in parents {
            let is_used = self.is_used(table, parent);
            if leads || !is_used || self.places(table, parent, chain) != [0] {
                changes.extend(self.unlinking(table, parent, chain));
                if is_used && !leads {
                    changes.push(format!("-I {parent} 1 -j {chain}"));
                }
            }
            leads |= is_used;
        }
        changes
    }

    /// What takes every way from `parent` to `chain` away.
    fn unlinking(&self, table: &str, parent: &str, chain: &str) -> impl Iterator<Item = String> {
        let line = format!("-D {parent} -j {chain}");
        std::iter::repeat_n(line, self.places(table, parent, chain).len())
    }

    /// What takes a chain of ours away, if it is there, with all that leads to it.
    fn without_chain(&self, table: &str, chain: &str, parents: &[&str]) -> Vec<String> {
        if !self.has(table, chain) {
            return Vec::new();
        }
        let ways = parents.iter().flat_map(|parent| self.unlinking(table, parent, chain));
        ways.chain([format!("-F {chain}"), format!("-X {chain}")]).collect()
    }

    /// Takes all chains of ours away: what refuses in one table leaves the others.
    fn remove(&self) -> Result<()> {
        let mut outcome = Ok(());
        for table in ["filter", "nat", RAW] {
            let of_table = CHAINS.iter().filter(|(of, ..)| *of == table);
            let lines = of_table.flat_map(|(_, chain, parents)| self.without_chain(table, chain, parents));
            let mut text = String::new();
            in_table(&mut text, table, &lines.collect::<Vec<_>>());
            if !text.is_empty() {
                outcome = outcome.and(restore(self.programs, &text));
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ExposedNet;
    use super::*;

    #[test]
    fn what_is_saved_is_read_by_table_and_chain() {
        let saved = "# Generated\n*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j WEAVE-FORWARD\nCOMMIT\n\
            *filter\n:FORWARD DROP [7:8]\n:DOCKER-USER - [0:0]\n:WEAVE-FORWARD - [0:0]\n\
            -A FORWARD -j DOCKER-USER\n-A FORWARD -j WEAVE-FORWARD\n\
            -A DOCKER-USER -j WEAVE-FORWARD\n-A DOCKER-USER -j WEAVE-FORWARD-NOT\n\
            -A WEAVE-FORWARD -i weave -j ACCEPT\nCOMMIT\n";
        let tables = |saved: &str| Tables {
            programs: Programs { family: Family::V4, kind: None },
            saved: saved.into(),
        };
        let full = tables(saved);
        assert_eq!(
            full.rules("filter", FORWARD).collect::<Vec<_>>(),
            ["-A WEAVE-FORWARD -i weave -j ACCEPT"]
        );
        assert_eq!(full.rules("filter", "WEAVE").count(), 0);
        assert!(full.has("filter", FORWARD) && !full.has("raw", FORWARD) && !full.has("filter", "WEAVE"));
        assert_eq!(full.places("filter", "FORWARD", FORWARD), [1]);
        assert_eq!(full.places("filter", DOCKER_USER, FORWARD), [0]);
        assert_eq!(full.places("raw", "PREROUTING", FORWARD), [0]);
        assert!(full.is_used("filter", DOCKER_USER));
        let flushed = tables(&saved.replace("-A FORWARD -j DOCKER-USER\n", ""));
        assert!(!flushed.is_used("filter", DOCKER_USER) && flushed.is_used("filter", "FORWARD"));
        let empty = tables("");
        assert!(!empty.has("nat", POSTROUTING) && empty.is_used("nat", "POSTROUTING"));
        assert!(empty.places("nat", "POSTROUTING", POSTROUTING).is_empty());
        assert_eq!(
            full.leading("filter", FORWARD, &[DOCKER_USER, "FORWARD"]),
            ["-D FORWARD -j WEAVE-FORWARD"]
        );
        assert_eq!(
            flushed.leading("filter", FORWARD, &[DOCKER_USER, "FORWARD"]),
            ["-D DOCKER-USER -j WEAVE-FORWARD"]
        );
        assert_eq!(
            empty.leading("filter", FORWARD, &[DOCKER_USER, "FORWARD"]),
            ["-I FORWARD 1 -j WEAVE-FORWARD"]
        );
        assert_eq!(
            full.without_chain("filter", FORWARD, &[DOCKER_USER, "FORWARD"]),
            [
                "-D DOCKER-USER -j WEAVE-FORWARD",
                "-D FORWARD -j WEAVE-FORWARD",
                "-F WEAVE-FORWARD",
                "-X WEAVE-FORWARD"
            ]
        );
        assert!(empty.without_chain("filter", FORWARD, &["FORWARD"]).is_empty());
    }

    #[test]
    fn the_rules_of_each_family() {
        let exposed = |cidr: &str, masquerade| ExposedNet { cidr: cidr.parse().unwrap(), masquerade };
        let policy = Policy {
            port: 6783,
            engine_bridge: "docker0".into(),
            other_bridges: vec!["br-0a1b2c3d4e5f".into(), "docker0".into()],
            exposed: vec![
                exposed("10.2.1.102/24", true),
                exposed("10.2.2.102/24", false),
                exposed("fd00:2::102/64", true),
            ],
        };
        let v4 = "*filter
:WEAVE-FORWARD - [0:0]
:WEAVE-INPUT - [0:0]
-A WEAVE-FORWARD -i weave -o weave -j MARK --set-xmark 0x2000000/0x2000000
-A WEAVE-FORWARD -i weave -o weave -j ACCEPT
-A WEAVE-FORWARD -i docker0 -o weave -j DROP
-A WEAVE-FORWARD -i br-0a1b2c3d4e5f -o weave -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP
-A WEAVE-FORWARD -i weave -o docker0 -j RETURN
-A WEAVE-FORWARD -i weave -o br-0a1b2c3d4e5f -j RETURN
-A WEAVE-FORWARD -o weave -d 10.2.1.0/24 -j ACCEPT
-A WEAVE-FORWARD -i weave -s 10.2.1.0/24 -j ACCEPT
-A WEAVE-FORWARD -o weave -d 10.2.2.0/24 -j ACCEPT
-A WEAVE-FORWARD -i weave -s 10.2.2.0/24 -j ACCEPT
-A WEAVE-INPUT -i weave -p tcp --dport 6783 -j DROP
-A WEAVE-INPUT -i weave -p udp --dport 6783 -j DROP
-A WEAVE-INPUT -i docker0 -p tcp --dport 6783 -j DROP
-A WEAVE-INPUT -i docker0 -p udp --dport 6783 -j DROP
-A WEAVE-INPUT -i br-0a1b2c3d4e5f -p tcp --dport 6783 -j DROP
-A WEAVE-INPUT -i br-0a1b2c3d4e5f -p udp --dport 6783 -j DROP
-A WEAVE-INPUT -i weave -p icmp -m icmp --icmp-type 5 -j DROP
-A WEAVE-INPUT -i docker0 -p udp --dport 53 -j ACCEPT
-A WEAVE-INPUT -i docker0 -p tcp --dport 53 -j ACCEPT
-A WEAVE-INPUT -i br-0a1b2c3d4e5f -p udp --dport 53 -j ACCEPT
-A WEAVE-INPUT -i br-0a1b2c3d4e5f -p tcp --dport 53 -j ACCEPT
COMMIT
*nat
:WEAVE-POSTROUTING - [0:0]
-A WEAVE-POSTROUTING ! -i weave -m mark --mark 0x2000000/0x2000000 -j RETURN
-A WEAVE-POSTROUTING -s 10.2.1.0/24 -d 224.0.0.0/4 -j RETURN
-A WEAVE-POSTROUTING -s 10.2.1.0/24 -d 255.255.255.255/32 -j RETURN
-A WEAVE-POSTROUTING ! -o weave -s 10.2.1.0/24 ! -d 10.2.1.0/24 -j MASQUERADE
-A WEAVE-POSTROUTING -o weave ! -s 10.2.1.0/24 -d 10.2.1.0/24 -j MASQUERADE
COMMIT
";
        assert_eq!(script(&policy, Family::V4), v4);
        let v6 = script(&policy, Family::V6);
        let hidden = Policy { exposed: Vec::new(), ..policy.clone() };
        let hidden = script(&hidden, Family::V4);
        assert!(!hidden.contains("nat") && !hidden.contains("MARK"), "{hidden}");
        assert!(v6.contains("-s fd00:2::/64 -d ff00::/8 -j RETURN") && !v6.contains("10.2."), "{v6}");
    }
}
