//! The interface that datagrams to a peer leave by, and what it does for them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use weave_host::Netlink;
use weave_host::ethtool::{self, Feature, GRO, GSO, TX_CHECKSUMS, USO};

use super::Finding;

/// Looks at the interfaces that lead to `peers`, each once.
pub(super) fn look(peers: &[SocketAddr]) -> Vec<Finding> {
    let mut interfaces: Vec<(String, bool)> = Vec::new();
    for peer in peers {
        let Some(name) = leads_by(*peer) else { continue };
        let ipv6 = peer.is_ipv6();
        if !interfaces.contains(&(name.clone(), ipv6)) {
            interfaces.push((name, ipv6));
        }
    }
    let look = |(name, ipv6): &(String, bool)| match ethtool::standing(name) {
        Ok(features) => offloads(name, *ipv6, &features),
        Err(error) => vec![Finding::warning(subject(name), error, "look with `ethtool -k`")],
    };
    interfaces.iter().flat_map(look).collect()
}

fn subject(interface: &str) -> String {
    format!("interface {interface}")
}

/// The interface by which datagrams leave to `peer`: that of the address which the kernel chooses.
fn leads_by(peer: SocketAddr) -> Option<String> {
    let any = if peer.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(peer).ok()?;
    let source: IpAddr = socket.local_addr().ok()?.ip();
    let mut host = Netlink::open().ok()?;
    let index = host.addresses().ok()?.into_iter().find(|held| held.cidr.addr() == source)?.index;
    Some(host.links().ok()?.into_iter().find(|link| link.index == index)?.name)
}

/// What of an interface makes the network slower, each with the command that mends it.
fn offloads(interface: &str, ipv6: bool, features: &BTreeMap<String, Feature>) -> Vec<Finding> {
    let of = |name: &str| features.get(name).copied();
    let [generic, v4, v6] = TX_CHECKSUMS;
    let checksums = [generic, if ipv6 { v6 } else { v4 }];
    let checksum = Feature {
        active: checksums.iter().any(|name| of(name).is_some_and(|feature| feature.active)),
        changeable: checksums.iter().any(|name| of(name).is_some_and(|feature| feature.changeable)),
    };
    let looked_at = [
        (Some(checksum), "tx", "computes no checksums: datagrams are sent one by one"),
        (of(GSO), "gso", "takes no segmented packets (GSO): datagrams are sent one by one"),
        (of(GRO), "gro", "joins no packets (GRO): datagrams are received one by one"),
        // Without it the kernel cuts, as late as possible: only worth a word where it was switched off.
        (
            of(USO).filter(|feature| feature.changeable),
            USO,
            "leaves cutting segmented datagrams to the kernel",
        ),
    ];
    let mut findings = Vec::new();
    for (feature, option, lacks) in looked_at {
        let Some(feature) = feature.filter(|feature| !feature.active) else { continue };
        let remedy = if feature.changeable {
            format!("ethtool -K {interface} {option} on")
        } else {
            "its driver cannot: another interface would be faster".to_owned()
        };
        findings.push(Finding::warning(subject(interface), lacks, remedy));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(subject(interface), "checksums, GSO and GRO are on"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Standing;

    fn found(off: &[&str], fixed: &[&str], ipv6: bool) -> Vec<(Standing, String)> {
        let names = TX_CHECKSUMS.into_iter().chain([GSO, GRO, USO]);
        let feature =
            |name: &str| Feature { active: !off.contains(&name), changeable: !fixed.contains(&name) };
        let features = names.map(|name| (name.to_owned(), feature(name))).collect();
        let findings = offloads("eth0", ipv6, &features);
        findings.into_iter().map(|finding| (finding.standing, finding.remedy)).collect()
    }

    #[test]
    fn what_is_off_is_named_with_the_command_that_switches_it_on() {
        assert_eq!(found(&[], &[], false), [(Standing::Ok, String::new())]);
        let all = [&TX_CHECKSUMS[..], &[GSO, GRO, USO]].concat();
        let remedies: Vec<_> = found(&all, &[], false).into_iter().map(|(_, remedy)| remedy).collect();
        let options = ["tx", "gso", "gro", "tx-udp-segmentation"];
        assert_eq!(remedies, options.map(|option| format!("ethtool -K eth0 {option} on")));
        // The checksum of one family is enough for it.
        let [generic, v4, v6] = TX_CHECKSUMS;
        assert_eq!(found(&[generic, v6], &[], false)[0].0, Standing::Ok);
        assert_eq!(found(&[generic, v6], &[], true)[0].0, Standing::Warning);
        assert_eq!(found(&[generic, v4], &[], true)[0].0, Standing::Ok);
        // What the device never had needs no word, unless it costs.
        assert_eq!(found(&[USO], &[USO], false)[0].0, Standing::Ok);
        assert!(found(&[GSO], &[GSO], false)[0].1.contains("cannot"));
    }
}
