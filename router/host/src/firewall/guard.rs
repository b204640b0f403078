//! What containers of this host may send (`launch --guard`): only what comes from their own MAC and
//! addresses, and nothing that speaks for a network.
//!
//! Containers of one bridge reach each other without the router, so the rules stand where a frame
//! enters the bridge: in a table of the family `bridge`, which only `nft` can make. A port without
//! a chain passes nothing.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use weave_wire::MacAddr;

use super::tool;
use crate::attach::HOST_INTERFACE_PREFIX;
use crate::error::{Error, Result};

const NFT: &str = "nft";
/// The table and its family.
const TABLE: &str = "bridge weave";
/// The counter in it of what was dropped.
const DROPPED: &str = "dropped";
/// What ends each rule.
const DROP: &str = "counter name dropped drop";

/// The port of a container, and what it may call itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedPort {
    /// The host's end of the attachment.
    pub interface: String,
    /// MAC of the container's end.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The rules for all ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    chains: String,
}

impl Guard {
    /// Rules for these ports.
    #[must_use]
    pub fn new(ports: &[GuardedPort]) -> Self {
        Self { chains: chains(ports) }
    }

    /// Whether this host can guard its containers; changes nothing.
    ///
    /// # Errors
    /// [`Error::Missing`] without `nft`, or without such tables in the kernel.
    pub fn check() -> Result<()> {
        let missing = |object: String, remedy: &str| Error::Missing {
            step: "guard the containers",
            object,
            remedy: format!("{remedy}, or launch without --guard"),
        };
        if !tool::is_installed(NFT) {
            return Err(missing("nft is not installed".to_owned(), "install nftables"));
        }
        let port = GuardedPort {
            interface: format!("{HOST_INTERFACE_PREFIX}00000000"),
            mac: MacAddr([2, 0, 0, 0, 0, 0]),
            addresses: Vec::new(),
        };
        tool::tell(NFT, &["-c", "-f", "-"], &script(&chains(&[port]), 0)).map_err(|error| {
            missing(
                format!("no rules for bridges (nf_tables of the family bridge): {error}"),
                "use a kernel that has them",
            )
        })
    }

    /// Puts the rules in place of those there were, at once; what was dropped counts on.
    ///
    /// # Errors
    /// When `nft` refuses, with its words.
    pub fn apply(&self) -> Result<()> {
        if let Some(update) = Self::snapshot()?.and_then(|there| update(&self.chains, &there)) {
            match tool::tell(NFT, &["-f", "-"], &update) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::info!("the guard is replaced as a whole: {error}"),
            }
        }
        // What is dropped between the two steps is not counted.
        let dropped = Self::dropped()?.unwrap_or_default();
        tool::tell(NFT, &["-f", "-"], &script(&self.chains, dropped))
    }

    /// Frames dropped since the guard was switched on; `None` without one.
    ///
    /// # Errors
    /// When `nft` cannot be run.
    pub fn dropped() -> Result<Option<u64>> {
        if !tool::is_installed(NFT) {
            return Ok(None);
        }
        let output = tool::ask(NFT, &["list", "counter", "bridge", "weave", DROPPED])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets").skip(1);
        Ok(words.next().and_then(|number| number.parse().ok()))
    }

    /// Takes all of them away, if there are any.
    ///
    /// # Errors
    /// When `nft` refuses, with its words.
    pub fn remove() -> Result<()> {
        match Self::snapshot()? {
            Some(_) => tool::tell(NFT, &["-f", "-"], &format!("delete table {TABLE}\n")),
            None => Ok(()),
        }
    }

    /// The rules as the kernel has them, without what it counted; `None` if there are none.
    ///
    /// # Errors
    /// When `nft` cannot be run.
    pub fn snapshot() -> Result<Option<String>> {
        if !tool::is_installed(NFT) {
            return Ok(None);
        }
        let output = tool::ask(NFT, &["-s", "list", "table", "bridge", "weave"])?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    }
}

/// The rules in place of those of the table as it is `there`, in one transaction: its counter stays,
/// and misses nothing. `None` if somebody put something else into it, which goes with the whole.
fn update(chains: &str, there: &str) -> Option<String> {
    let mut text = format!("table {TABLE} {{\n\tcounter {DROPPED} {{\n\t}}\n}}\nflush table {TABLE}\n");
    let objects = there.lines().filter_map(|line| line.strip_prefix('\t')?.strip_suffix(" {"));
    for object in objects.filter(|object| !object.starts_with('\t')) {
        match object.split_once(' ')? {
            ("chain", name) => {
                let _ = writeln!(text, "delete chain {TABLE} {name}");
            }
            ("counter", DROPPED) => {}
            _ => return None,
        }
    }
    let _ = write!(text, "table {TABLE} {{\n{chains}}}\n");
    Some(text)
}

/// The whole table, in place of the one there was: one transaction. `dropped`: frames counted so far.
fn script(chains: &str, dropped: u64) -> String {
    format!(
        "table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n\tcounter {DROPPED} {{\n\t\tpackets {dropped} bytes \
         0\n\t}}\n{chains}}}\n"
    )
}

/// The chain of each port, and the one that leads to them.
fn chains(ports: &[GuardedPort]) -> String {
    let mut text = String::new();
    for port in ports {
        let _ = writeln!(text, "\tchain {} {{", port.interface);
        for rule in rules(port) {
            let _ = writeln!(text, "\t\t{rule} {DROP}");
        }
        text.push_str("\t}\n");
    }
    text.push_str("\tchain guard {\n\t\ttype filter hook prerouting priority -300; policy accept;\n");
    let _ = writeln!(text, "\t\tiifname != \"{HOST_INTERFACE_PREFIX}*\" accept");
    // A tag would hide what is behind it; with the number 0 stations take the frame as untagged.
    let _ = writeln!(text, "\t\tether type {{ 8021q, 8021ad }} {DROP}");
    let _ = writeln!(text, "\t\ticmpv6 type {{ nd-router-advert, nd-redirect }} {DROP}");
    // What servers of DHCP send, and what goes to their clients.
    let _ = writeln!(text, "\t\tudp sport {{ 67, 547 }} {DROP}\n\t\tudp dport {{ 68, 546 }} {DROP}");
    let chains: Vec<String> = ports
        .iter()
        .map(|GuardedPort { interface, .. }| format!("\"{interface}\" : goto {interface}"))
        .collect();
    if !chains.is_empty() {
        let _ = writeln!(text, "\t\tiifname vmap {{ {} }}", chains.join(", "));
    }
    let _ = writeln!(text, "\t\t{DROP}\n\t}}");
    text
}

/// What a port may not send.
fn rules(GuardedPort { mac, addresses, .. }: &GuardedPort) -> [String; 6] {
    // Unspecified: who asks whether an address is free, or has none yet.
    let mut v4 = vec!["0.0.0.0".to_owned()];
    let mut v6 = vec![link_local(*mac)];
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(address.to_string()),
            IpAddr::V6(address) => v6.push(*address),
        }
    }
    let v4 = v4.join(", ");
    let sources: Vec<String> = v6.iter().map(Ipv6Addr::to_string).collect();
    let targets: Vec<String> = v6.iter().map(|address| format!("{:#034x}", address.to_bits())).collect();
    [
        format!("ether saddr != {mac}"),
        format!("arp saddr ether != {mac}"),
        format!("arp saddr ip != {{ {v4} }}"),
        format!("ip saddr != {{ {v4} }}"),
        format!("ip6 saddr != {{ ::, {} }}", sources.join(", ")),
        // The address that an advertisement speaks for.
        format!("icmpv6 type nd-neighbor-advert @th,64,128 != {{ {} }}", targets.join(", ")),
    ]
}

/// The link-local address that the kernel gives an interface of this MAC (RFC 4291, appendix A).
fn link_local(MacAddr([a, b, c, d, e, f]): MacAddr) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_rules_of_a_port() {
        let port = |number: u8, addresses: &[&str]| GuardedPort {
            interface: format!("vethw0000000{number}"),
            mac: MacAddr([2, 0x1f, 0x3a, 0, 0xc4, number]),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let expected = "table bridge weave
delete table bridge weave
table bridge weave {
	counter dropped {
		packets 5 bytes 0
	}
	chain vethw00000007 {
		ether saddr != 02:1f:3a:00:c4:07 counter name dropped drop
		arp saddr ether != 02:1f:3a:00:c4:07 counter name dropped drop
		arp saddr ip != { 0.0.0.0, 10.2.1.1 } counter name dropped drop
		ip saddr != { 0.0.0.0, 10.2.1.1 } counter name dropped drop
		ip6 saddr != { ::, fe80::1f:3aff:fe00:c407, fd00:2::1 } counter name dropped drop
		icmpv6 type nd-neighbor-advert @th,64,128 != { 0xfe80000000000000001f3afffe00c407, 0xfd000002000000000000000000000001 } counter name dropped drop
	}
	chain guard {
		type filter hook prerouting priority -300; policy accept;
		iifname != \"vethw*\" accept
		ether type { 8021q, 8021ad } counter name dropped drop
		icmpv6 type { nd-router-advert, nd-redirect } counter name dropped drop
		udp sport { 67, 547 } counter name dropped drop
		udp dport { 68, 546 } counter name dropped drop
		iifname vmap { \"vethw00000007\" : goto vethw00000007 }
		counter name dropped drop
	}
}
";
        assert_eq!(script(&chains(&[port(7, &["10.2.1.1", "fd00:2::1"])]), 5), expected);
        let there = "table bridge weave {\n\tcounter dropped {\n\t}\n\n\tchain vethw00000008 {\n\t}\n\n\t\
                     chain guard {\n\t}\n}\n";
        let new = chains(&[port(7, &[])]);
        let updated = update(&new, there).unwrap();
        let first = "table bridge weave {\n\tcounter dropped {\n\t}\n}\nflush table bridge weave\n\
                     delete chain bridge weave vethw00000008\ndelete chain bridge weave guard\ntable bridge weave {\n";
        assert_eq!(updated.strip_prefix(first), Some(format!("{new}}}\n").as_str()));
        let foreign = there.replace("counter dropped", "set foreign");
        assert_eq!(update(&new, &foreign), None);
        assert!(chains(&[]).contains("\t\tcounter name dropped drop\n") && !chains(&[]).contains("vmap"));
    }
}
