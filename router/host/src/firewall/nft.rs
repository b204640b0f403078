//! Rules by `nft`, in a table of our own, where no iptables is installed.
//!
//! An accept here does not override a drop of another table: there is no chain that others ask
//! first, so a host whose own rules drop what it forwards needs a rule of its operator's.

use std::fmt::Write;

use super::{BRIDGE, BRIDGED_MARK, Family, Policy, tool};
use crate::error::Result;

const NFT: &str = "nft";
/// The table, of both families.
const TABLE: &str = "inet weave";

pub(super) fn apply(policy: &Policy) -> Result<()> {
    tool::tell(NFT, &["-f", "-"], &script(policy))
}

pub(super) fn remove() -> Result<()> {
    // Made first, so that it is there to be deleted.
    tool::tell(NFT, &["-f", "-"], &format!("table {TABLE}\ndelete table {TABLE}\n"))
}

/// Takes the table away that `nft` made before iptables was installed.
pub(super) fn remove_if_there() -> Result<()> {
    if tool::is_installed(NFT) && tool::ask(NFT, &["list", "table", "inet", "weave"])?.status.success() {
        remove()
    } else {
        Ok(())
    }
}

/// Takes these chains away, each by table, name and the chains that may lead to it: iptables of the
/// newer kind made them, which is gone.
pub(super) fn remove_chains(chains: &[(&str, &str, &[&str])]) -> Result<()> {
    let there = tool::ask(NFT, &["list", "chains"])?;
    let there = tables_of_chains(&String::from_utf8_lossy(&there.stdout));
    let mut outcome = Ok(());
    for (table, chain, parents) in chains {
        for family in ["ip", "ip6"] {
            let place = format!("{family} {table}");
            if !there.contains(&(place.clone(), (*chain).to_owned())) {
                continue;
            }
            let mut script = String::new();
            for parent in *parents {
                let listed = tool::ask(NFT, &["-a", "list", "chain", family, table, parent])?;
                for handle in handles(&String::from_utf8_lossy(&listed.stdout), chain) {
                    let _ = writeln!(script, "delete rule {place} {parent} handle {handle}");
                }
            }
            let _ = writeln!(script, "flush chain {place} {chain}\ndelete chain {place} {chain}");
            outcome = outcome.and(tool::tell(NFT, &["-f", "-"], &script));
        }
    }
    outcome
}

/// All chains in the words of `nft list chains`: each with its table and the family of that.
fn tables_of_chains(listed: &str) -> Vec<(String, String)> {
    let mut table = String::new();
    let mut chains = Vec::new();
    for line in listed.lines() {
        let name = |kind: &str| line.trim().strip_prefix(kind)?.strip_suffix('{').map(str::trim);
        if let Some(name) = name("table ") {
            name.clone_into(&mut table);
        } else if let Some(chain) = name("chain ") {
            chains.push((table.clone(), chain.to_owned()));
        }
    }
    chains
}

/// The handles of the rules that lead to `chain`.
fn handles<'a>(listed: &'a str, chain: &str) -> Vec<&'a str> {
    let leads = format!("jump {chain}");
    let rules = listed.lines().filter_map(|line| line.rsplit_once(" # handle "));
    rules.filter(|(rule, _)| rule.ends_with(&leads)).map(|(_, handle)| handle.trim()).collect()
}

pub(super) fn snapshot() -> Result<String> {
    let output = tool::ask(NFT, &["list", "table", "inet", "weave"])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The whole table, in place of the one there was: one transaction.
fn script(policy: &Policy) -> String {
    let Policy { port, engine_bridge, .. } = policy;
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    text.push_str("\tchain forward {\n\t\ttype filter hook forward priority filter - 5; policy accept;\n");
    let mut rule = |rule: String| {
        let _ = writeln!(text, "\t\t{rule}");
    };
    let masquerades = policy.exposed.iter().any(|exposed| exposed.masquerade);
    let mark = format!("meta mark set meta mark or {BRIDGED_MARK} ");
    let mark = if masquerades { mark.as_str() } else { "" };
    rule(format!("iifname \"{BRIDGE}\" oifname \"{BRIDGE}\" {mark}accept"));
    rule(format!("iifname \"{engine_bridge}\" oifname \"{BRIDGE}\" drop"));
    for other in policy.others() {
        // What the network asks there is answered.
        rule(format!("iifname \"{other}\" oifname \"{BRIDGE}\" ct state != {{ established, related }} drop"));
    }
    text.push_str("\t}\n\tchain input {\n\t\ttype filter hook input priority filter - 5; policy accept;\n");
    let closed: Vec<&str> = [BRIDGE].into_iter().chain(policy.bridges()).collect();
    let closed = closed.join("\", \"");
    let _ = writeln!(text, "\t\tiifname {{ \"{closed}\" }} meta l4proto {{ tcp, udp }} th dport {port} drop");
    // No container tells the host by which way to send.
    let _ = writeln!(text, "\t\tiifname \"{BRIDGE}\" icmp type redirect drop");
    let _ = writeln!(text, "\t\tiifname \"{BRIDGE}\" icmpv6 type {{ nd-redirect, nd-router-advert }} drop");
    text.push_str("\t}\n");
    if !masquerades {
        // A chain for it would make the kernel track every datagram of the mesh as a connection.
        text.push_str("}\n");
        return text;
    }
    // Which the mesh is exempt from.
    for (chain, hook, rules) in [
        ("untracked_in", "prerouting", &[format!("fib daddr type local udp dport {port}")][..]),
        ("untracked_out", "output", &[format!("udp dport {port}"), format!("udp sport {port}")]),
    ] {
        let _ =
            writeln!(text, "\tchain {chain} {{\n\t\ttype filter hook {hook} priority raw; policy accept;");
        for rule in rules {
            let _ = writeln!(text, "\t\t{rule} notrack");
        }
        text.push_str("\t}\n");
    }
    text.push_str("\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n");
    let _ = writeln!(text, "\t\tiifname != \"{BRIDGE}\" meta mark and {BRIDGED_MARK} != 0 return");
    for family in Family::ALL {
        let ip = match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        for exposed in policy.exposed(family).filter(|exposed| exposed.masquerade) {
            let net = exposed.cidr.trunc();
            let many = family.to_many().join(", ");
            let _ = writeln!(text, "\t\t{ip} saddr {net} {ip} daddr {{ {many} }} return");
            let _ =
                writeln!(text, "\t\toifname != \"{BRIDGE}\" {ip} saddr {net} {ip} daddr != {net} masquerade");
            let _ =
                writeln!(text, "\t\toifname \"{BRIDGE}\" {ip} saddr != {net} {ip} daddr {net} masquerade");
        }
    }
    text.push_str("\t}\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_and_what_leads_to_them_are_found_in_the_words_of_nft() {
        let listed = "table ip filter {\n\tchain WEAVE-FORWARD {\n\t}\n\tchain FORWARD {\n\t\ttype filter hook \
                      forward priority filter; policy accept;\n\t}\n}\ntable inet weave {\n\tchain input {\n\t}\n}\n";
        let found = tables_of_chains(listed);
        let found: Vec<_> = found.iter().map(|(table, chain)| (table.as_str(), chain.as_str())).collect();
        assert_eq!(
            found,
            [("ip filter", "WEAVE-FORWARD"), ("ip filter", "FORWARD"), ("inet weave", "input")]
        );
        let listed = "\tchain FORWARD { # handle 2\n\t\tcounter packets 0 bytes 0 jump WEAVE-FORWARD # handle 7\n\
                      \t\tcounter packets 1 bytes 2 jump WEAVE-FORWARD-2 # handle 8\n";
        assert_eq!(handles(listed, "WEAVE-FORWARD"), ["7"]);
    }
}
