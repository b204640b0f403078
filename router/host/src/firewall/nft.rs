//! Rules by `nft`, in a table of our own, where no iptables is installed.
//!
//! An accept here does not override a drop of another table: there is no chain that others ask
//! first, so a host whose own rules drop what it forwards needs a rule of its operator's.

use std::fmt::Write;

use super::{BRIDGE, Family, Policy, tool};
use crate::error::Result;

/// The table, of both families.
const TABLE: &str = "inet weave";

pub(super) fn apply(policy: &Policy) -> Result<()> {
    tool::tell("nft", &["-f", "-"], &script(policy))
}

pub(super) fn remove() -> Result<()> {
    // Made first, so that it is there to be deleted.
    tool::tell("nft", &["-f", "-"], &format!("table {TABLE}\ndelete table {TABLE}\n"))
}

pub(super) fn snapshot() -> Result<String> {
    let output = tool::ask("nft", &["list", "table", "inet", "weave"])?;
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
    rule(format!("iifname \"{BRIDGE}\" oifname \"{BRIDGE}\" accept"));
    rule(format!("iifname \"{engine_bridge}\" oifname \"{BRIDGE}\" drop"));
    text.push_str("\t}\n\tchain input {\n\t\ttype filter hook input priority filter - 5; policy accept;\n");
    let _ = writeln!(
        text,
        "\t\tiifname {{ \"{BRIDGE}\", \"{engine_bridge}\" }} meta l4proto {{ tcp, udp }} th dport {port} drop"
    );
    // No container tells the host by which way to send.
    let _ = writeln!(text, "\t\tiifname \"{BRIDGE}\" icmp type redirect drop");
    let _ = writeln!(text, "\t\tiifname \"{BRIDGE}\" icmpv6 type {{ nd-redirect, nd-router-advert }} drop");
    text.push_str("\t}\n");
    if policy.exposed.iter().all(|exposed| !exposed.masquerade) {
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
