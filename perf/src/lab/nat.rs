//! Address translation between a host and its segment.

use weave_host::netlink::VethEnd;
use weave_host::{Namespace, Netlink};

use super::error::Result;
use super::host::Host;
use super::layout::{self, NAT_FORGETS, Nat, ROUTER, TRANSLATOR};
use super::segments::{Plug, Segments, forward};
use super::tool;
use super::underlay::{UNDERLAY, Underlay, set_features, set_gateway};

/// Device of the translator towards its host.
const INSIDE: &str = "inside";

/// Builds the translator of `host` with its devices; the host's own is not configured yet.
pub(super) fn build(
    host: &Host,
    nat: Nat,
    segment: u8,
    segments: &Segments,
    underlay: &Underlay,
) -> Result<Namespace> {
    let namespace = Namespace::create(format!("translator of host {}", host.number()))?;
    let plug = Plug { port: &host.port(0), namespace: &namespace, device: UNDERLAY, segment };
    segments.plug(&plug, underlay)?;
    let mut netlink = Netlink::in_namespace(&namespace)?;
    netlink.set_loopback_up()?;
    let there = VethEnd { namespace: Some(host.namespace()), ..VethEnd::new(UNDERLAY) };
    netlink.create_veth(VethEnd::new(INSIDE), there, underlay.mtu)?;
    let devices = [
        (UNDERLAY, layout::on_segment(segment, host.number())?),
        (INSIDE, layout::behind_nat(host.number(), TRANSLATOR)?),
    ];
    for (device, addresses) in devices {
        namespace.run(|| set_features(device, underlay))??;
        let link = netlink.expect_link(device)?;
        for address in addresses {
            netlink.add_address(link.index, address)?;
        }
        netlink.set_up(&link)?;
    }
    if segments.is_routed() {
        set_gateway(&namespace, layout::on_segment(segment, ROUTER)?)?;
    }
    forward(&namespace)?;
    translate(&namespace, nat)?;
    Ok(namespace)
}

fn translate(namespace: &Namespace, nat: Nat) -> Result<()> {
    let ports = match nat {
        Nat::Steady => "",
        Nat::Changing => " --random-fully",
    };
    // What belongs to no flow from inside ends here, and nobody is told.
    tool::replace_rules(namespace, |_| {
        format!(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o {UNDERLAY} -j MASQUERADE{ports}\nCOMMIT\n\
             *filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i {UNDERLAY} -p udp -j DROP\n\
             -A INPUT -i {UNDERLAY} -p tcp -j DROP\nCOMMIT\n"
        )
    })?;
    let forgets = NAT_FORGETS.as_secs().to_string();
    for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        tool::set(namespace, &format!("netfilter/{timeout}"), &forgets)?;
    }
    Ok(())
}
