//! Attachments in the kernel: a host and its containers, each a namespace of
//! its own. Needs root.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::common::{self, cidrs, container, in_host, sysctl};
use ipnet::IpNet;
use weave_host::attach::{
    AttachOptions, CONTAINER_INTERFACE, PROBE_WAIT, attach, attached, detach, detach_all, host_interface,
    probe,
};
use weave_host::bridge::{self, BRIDGE};
use weave_host::netlink::VethEnd;
use weave_host::{Error, Namespace, Netlink};

const MTU: u32 = 1376;

fn defaults() -> AttachOptions {
    AttachOptions::default()
}

#[test]
fn an_attached_container_has_interface_addresses_and_routes() {
    in_host(|host| {
        let container = container("c");
        let list = cidrs(&["10.2.2.1/24", "10.2.1.1/24", "fd00:2::1/64"]);
        let made = attach(host, &container, &list, &defaults()).unwrap();
        assert!(made.is_new);
        assert_eq!(made.added, list, "order kept");

        let bridge = host.expect_link(BRIDGE).unwrap();
        assert_eq!(bridge.mtu, MTU, "made with the default MTU");
        let outer = host.expect_link(&made.host_interface).unwrap();
        assert_eq!(outer.controller, Some(bridge.index));
        assert_eq!(outer.mtu, MTU);
        assert!(outer.running);
        assert_eq!(sysctl(&format!("ipv6/conf/{}/accept_ra", outer.name)), "0");
        assert!(host.addresses().unwrap().iter().all(|address| address.index != outer.index));

        let mut inside = Netlink::in_namespace(&container).unwrap();
        let inner = inside.expect_link("ethwe").unwrap();
        assert_eq!((inner.mac, inner.mtu, inner.up, inner.running), (Some(made.mac), MTU, true, true));
        let state = attached(host, &container).unwrap().unwrap();
        let mut found = state.cidrs.clone();
        found.sort();
        let mut expected = list.clone();
        expected.sort();
        assert_eq!(found, expected);
        let usable = inside.addresses().unwrap();
        assert!(usable.iter().filter(|a| list.contains(&a.cidr)).all(|a| !a.tentative), "usable at once");
        for line in ["224.0.0.0/4 dev ethwe", "10.2.1.0/24 dev ethwe"] {
            assert!(routes(&container, "-4").contains(line), "{line}");
        }
        assert!(routes(&container, "-6").contains("ff00::/8 dev ethwe"));
    });
}

#[test]
fn containers_of_one_host_reach_each_other_at_once_by_both_families() {
    in_host(|host| {
        let (a, b) = (container("a"), container("b"));
        attach(host, &a, &cidrs(&["10.2.1.1/24", "fd00::1/64"]), &defaults()).unwrap();
        attach(host, &b, &cidrs(&["10.2.1.2/24", "fd00::2/64"]), &defaults()).unwrap();
        for (from, to) in [("10.2.1.1", "10.2.1.2"), ("fd00::1", "fd00::2")] {
            let listener = b.run(|| TcpListener::bind((ip(to), 5000)).unwrap()).unwrap();
            let mut stream = a
                .run(|| TcpStream::connect_timeout(&(ip(to), 5000).into(), Duration::from_secs(2)).unwrap())
                .unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), ip(from));
            stream.write_all(b"hello").unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            let mut greeting = [0; 5];
            accepted.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"hello");
        }
    });
}

#[test]
fn multicast_leaves_through_ethwe_even_beside_another_interface() {
    in_host(|host| {
        let (a, b) = (container("a"), container("b"));
        for namespace in [&a, &b] {
            let mut inside = Netlink::in_namespace(namespace).unwrap();
            inside.create_veth(VethEnd::new("eth0"), VethEnd::new("eth0-peer"), 1500).unwrap();
            for name in ["eth0-peer", "eth0"] {
                let link = inside.expect_link(name).unwrap();
                inside.set_up(&link).unwrap();
            }
            let eth0 = inside.expect_link("eth0").unwrap();
            inside.add_address(eth0.index, "192.168.9.9/24".parse().unwrap()).unwrap();
            inside.add_address(eth0.index, "fd99::9/64".parse().unwrap()).unwrap();
            inside.add_gateway("0.0.0.0/0".parse().unwrap(), ip("192.168.9.1")).unwrap();
            inside.add_gateway("::/0".parse().unwrap(), ip("fd99::1")).unwrap();
        }
        attach(host, &a, &cidrs(&["10.2.1.1/24", "fd00::1/64"]), &defaults()).unwrap();
        attach(host, &b, &cidrs(&["10.2.1.2/24", "fd00::2/64"]), &defaults()).unwrap();
        for group in ["239.1.2.3", "ff15::123"] {
            let receiver = b.run(|| listen_to_group(group)).unwrap();
            a.run(|| {
                let socket = UdpSocket::bind((unspecified(group), 0)).unwrap();
                socket.send_to(b"all", (ip(group), 6000)).unwrap();
            })
            .unwrap();
            let mut buffer = [0; 16];
            let (len, _) = receiver.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{group}: {error}"));
            assert_eq!(&buffer[..len], b"all");
        }
    });
}

#[test]
fn attaching_again_changes_nothing_and_adding_keeps_what_is_there() {
    in_host(|host| {
        let container = container("c");
        let first = attach(host, &container, &cidrs(&["10.2.1.1/24"]), &defaults()).unwrap();
        let again = attach(host, &container, &cidrs(&["10.2.1.1/24"]), &defaults()).unwrap();
        assert!(!again.is_new && again.added.is_empty());
        assert_eq!((again.mac, &again.host_interface), (first.mac, &first.host_interface));
        let more = attach(host, &container, &cidrs(&["10.2.1.1/24", "10.2.3.1/24"]), &defaults()).unwrap();
        assert_eq!(more.added, cidrs(&["10.2.3.1/24"]));
        assert_eq!(more.mac, first.mac);
    });
}

#[test]
fn an_attachment_that_was_changed_from_outside_is_put_right() {
    in_host(|host| {
        let container = container("c");
        let made = attach(host, &container, &cidrs(&["10.2.1.1/24"]), &defaults()).unwrap();
        let mut inside = Netlink::in_namespace(&container).unwrap();
        let outer = host.expect_link(&made.host_interface).unwrap();
        let inner = inside.expect_link("ethwe").unwrap();
        host.set_down(&outer).unwrap();
        host.set_controller(&outer, 0).unwrap();
        inside.set_down(&inner).unwrap();
        let wish = AttachOptions { mtu: Some(1400), ..defaults() };
        attach(host, &container, &cidrs(&["10.2.1.1/24"]), &wish).unwrap();
        let outer = host.expect_link(&made.host_interface).unwrap();
        let inner = inside.expect_link("ethwe").unwrap();
        assert!(outer.running && inner.running);
        assert_eq!((outer.mtu, inner.mtu), (1400, 1400));
        assert_eq!(outer.controller, Some(host.expect_link(BRIDGE).unwrap().index));
        assert!(routes(&container, "-4").contains("10.2.1.0/24 dev ethwe"));
    });
}

#[test]
fn a_given_mac_and_the_bridges_mtu_are_used() {
    in_host(|host| {
        bridge::ensure(host, 8000).unwrap();
        let mac = "02:11:22:33:44:55".parse().unwrap();
        let container = container("c");
        let wish = AttachOptions { mac: Some(mac), ..defaults() };
        let made = attach(host, &container, &cidrs(&["10.2.1.1/24"]), &wish).unwrap();
        assert_eq!(made.mac, mac);
        let state = attached(host, &container).unwrap().unwrap();
        assert_eq!((state.mac, state.mtu), (mac, 8000));
    });
}

#[test]
fn detaching_takes_single_addresses_and_the_last_takes_the_interface() {
    in_host(|host| {
        let container = container("c");
        // Two of one subnet: the kernel would drop the second with the first.
        let list = cidrs(&["10.2.1.1/24", "10.2.1.2/24", "10.2.2.1/24", "fd00::1/64"]);
        let made = attach(host, &container, &list, &defaults()).unwrap();
        let done = detach(host, &container, &cidrs(&["10.2.1.1/24", "10.9.9.9/24"])).unwrap();
        assert_eq!(done.removed, cidrs(&["10.2.1.1/24"]));
        let mut left = attached(host, &container).unwrap().unwrap().cidrs;
        left.sort();
        assert_eq!(left, cidrs(&["10.2.1.2/24", "10.2.2.1/24", "fd00::1/64"]));
        assert_eq!(detach(host, &container, &cidrs(&["10.2.1.1/24"])).unwrap().removed, []);
        let done = detach(host, &container, &list).unwrap();
        assert_eq!(done.removed, list[1..]);
        assert_eq!(done.remaining, []);
        assert!(attached(host, &container).unwrap().is_none());
        assert!(host.link(&made.host_interface).unwrap().is_none());
        assert_eq!(detach(host, &container, &list).unwrap().removed, [], "nothing there is no error");
        assert!(!detach_all(host, &container).unwrap());
    });
}

#[test]
fn an_address_that_a_router_gave_for_a_time_keeps_no_container_on_the_network() {
    in_host(|host| {
        let container = container("c");
        let own = cidrs(&["fd00::1/64"]);
        let made = attach(host, &container, &own, &defaults()).unwrap();
        // As of a router advertisement.
        let line = "addr add fd00:9::5/64 dev ethwe valid_lft 1000 preferred_lft 1000 nodad";
        let ip = || std::process::Command::new("ip").arg("-6").args(line.split(' ')).status().unwrap();
        assert!(container.run(ip).unwrap().success());
        assert_eq!(attached(host, &container).unwrap().unwrap().cidrs, own);
        assert_eq!(detach(host, &container, &own).unwrap().remaining, []);
        assert!(host.link(&made.host_interface).unwrap().is_none());
    });
}

#[test]
fn secondary_addresses_survive_even_where_promotion_is_switched_off() {
    in_host(|host| {
        let container = container("c");
        let list = cidrs(&["10.2.1.1/24", "10.2.1.2/24", "10.2.1.3/24"]);
        attach(host, &container, &list, &defaults()).unwrap();
        container
            .run(|| {
                for interface in ["all", "ethwe"] {
                    let path = format!("/proc/sys/net/ipv4/conf/{interface}/promote_secondaries");
                    std::fs::write(path, "0").unwrap();
                }
            })
            .unwrap();
        detach(host, &container, &list[..1]).unwrap();
        let mut left = attached(host, &container).unwrap().unwrap().cidrs;
        left.sort();
        assert_eq!(left, list[1..]);
    });
}

#[test]
fn an_address_attached_with_another_prefix_is_neither_attached_nor_detached() {
    in_host(|host| {
        let container = container("c");
        attach(host, &container, &cidrs(&["10.2.1.1/24"]), &defaults()).unwrap();
        let before = snapshot(host, &container);
        let error = attach(host, &container, &cidrs(&["10.2.1.1/16"]), &defaults()).unwrap_err();
        assert!(error.to_string().contains("10.2.1.1/24"), "{error}");
        let error = detach(host, &container, &cidrs(&["10.2.1.1/16"])).unwrap_err();
        assert!(error.to_string().contains("10.2.1.1/24"), "{error}");
        assert_eq!(snapshot(host, &container), before);
    });
}

#[test]
fn bad_wishes_change_nothing() {
    in_host(|host| {
        let container = container("c");
        let good = cidrs(&["10.2.1.1/24"]);
        let group_mac = "01:00:5e:00:00:01".parse().unwrap();
        let cases: Vec<(Vec<IpNet>, AttachOptions)> = vec![
            (vec![], defaults()),
            (cidrs(&["10.2.1.0/24"]), defaults()),
            (cidrs(&["10.2.1.1/24", "10.2.1.255/24"]), defaults()),
            (cidrs(&["10.2.1.1/24", "10.2.1.1/16"]), defaults()),
            (good.clone(), AttachOptions { mtu: Some(100), ..defaults() }),
            (good.clone(), AttachOptions { mtu: Some(1 << 20), ..defaults() }),
            (good.clone(), AttachOptions { mac: Some(group_mac), ..defaults() }),
            (cidrs(&["fd00::1/64"]), AttachOptions { mtu: Some(1000), ..defaults() }),
        ];
        let before = snapshot(host, &container);
        for (list, options) in cases {
            let error = attach(host, &container, &list, &options).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{list:?} {options:?}: {error}");
            assert_eq!(snapshot(host, &container), before, "{list:?} {options:?}");
        }
    });
}

#[test]
fn the_host_itself_is_no_container() {
    in_host(|host| {
        let own = Namespace::own().unwrap();
        let error = attach(host, &own, &cidrs(&["10.2.1.1/24"]), &defaults()).unwrap_err();
        assert!(matches!(error, Error::OwnNamespace { .. }), "{error}");
        assert!(matches!(detach(host, &own, &[]), Err(Error::OwnNamespace { .. })));
        assert_eq!(host.links().unwrap().len(), 1);
    });
}

#[test]
fn an_address_of_another_interface_of_the_container_is_refused() {
    in_host(|host| {
        let container = container("c");
        let mut inside = Netlink::in_namespace(&container).unwrap();
        inside.create_veth(VethEnd::new("eth0"), VethEnd::new("eth0-peer"), 1500).unwrap();
        let eth0 = inside.expect_link("eth0").unwrap();
        inside.add_address(eth0.index, "10.2.1.1/16".parse().unwrap()).unwrap();
        let before = snapshot(host, &container);
        let list = cidrs(&["10.2.2.1/24", "10.2.1.1/24"]);
        let error = attach(host, &container, &list, &defaults()).unwrap_err();
        assert!(matches!(error, Error::AddressInUse { .. }), "{error}");
        assert_eq!(snapshot(host, &container), before);
    });
}

#[test]
fn an_ethwe_that_is_not_ours_is_left_alone() {
    in_host(|host| {
        let container = container("c");
        let mut inside = Netlink::in_namespace(&container).unwrap();
        inside.create_veth(VethEnd::new("ethwe"), VethEnd::new("other"), 1500).unwrap();
        bridge::ensure(host, MTU).unwrap();
        let before = snapshot(host, &container);
        let error = attach(host, &container, &cidrs(&["10.2.1.1/24"]), &defaults()).unwrap_err();
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
        let error = detach(host, &container, &cidrs(&["10.2.1.1/24"])).unwrap_err();
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
        assert!(attached(host, &container).unwrap().is_none());
        assert_eq!(snapshot(host, &container), before);
    });
}

#[test]
fn a_step_that_fails_late_takes_everything_back() {
    in_host(|host| {
        let container = container("c");
        bridge::ensure(host, MTU).unwrap();
        // A station that objects makes the last step before the addresses fail.
        let holder = common::container("holder");
        attach(host, &holder, &cidrs(&["10.2.1.1/24", "fd00::1/64"]), &defaults()).unwrap();
        let before = snapshot(host, &container);
        let asking = AttachOptions { probe: Some(Duration::from_millis(300)), ..defaults() };
        for address in ["10.2.1.1/24", "fd00::1/64"] {
            let list = cidrs(&["10.2.1.9/24", address]);
            let error = attach(host, &container, &list, &asking).unwrap_err();
            assert!(matches!(error, Error::AddressInUse { .. }), "{error}");
            assert_eq!(snapshot(host, &container), before);
        }
        // And on an attachment that exists, what it had stays.
        attach(host, &container, &cidrs(&["10.2.1.9/24"]), &defaults()).unwrap();
        let before = snapshot(host, &container);
        let list = cidrs(&["10.2.1.10/24", "10.2.1.1/24"]);
        let smaller = AttachOptions { mtu: Some(MTU - 50), ..asking };
        let error = attach(host, &container, &list, &smaller).unwrap_err();
        assert!(error.to_string().contains("10.2.1.1 is in use by station"), "{error}");
        assert_eq!(snapshot(host, &container), before);
    });
}

#[test]
fn a_stale_host_end_is_replaced() {
    in_host(|host| {
        let container = container("c");
        bridge::ensure(host, MTU).unwrap();
        let name = host_interface(container.id());
        host.create_veth(VethEnd::new(&name), VethEnd::new("stale"), 1500).unwrap();
        let made = attach(host, &container, &cidrs(&["10.2.1.1/24"]), &defaults()).unwrap();
        assert_eq!(made.host_interface, name);
        assert!(host.link("stale").unwrap().is_none());
    });
}

#[test]
fn an_interface_that_was_renamed_is_made_anew_by_an_attach_and_goes_with_a_detach() {
    in_host(|host| {
        let container = container("c");
        let list = cidrs(&["10.2.1.1/24", "10.2.1.2/24"]);
        let rename = |made: &str| {
            let line = format!("ip link set ethwe down && ip link set ethwe name {made} up");
            let ran =
                container.run(|| std::process::Command::new("sh").args(["-c", &line]).status().unwrap());
            assert!(ran.unwrap().success());
        };
        let first = attach(host, &container, &list, &defaults()).unwrap();
        rename("other");
        // It has the address of the one that was renamed.
        let again = attach(host, &container, &list[..1], &defaults()).unwrap();
        assert!(again.is_new);
        let mut inside = Netlink::in_namespace(&container).unwrap();
        assert!(inside.link("other").unwrap().is_none());
        assert_eq!(attached(host, &container).unwrap().unwrap().cidrs, list[..1]);
        attach(host, &container, &list, &defaults()).unwrap();

        rename("other");
        let left = detach(host, &container, &list[..1]).unwrap();
        assert_eq!((left.removed, left.remaining), (list[..1].to_vec(), list[1..].to_vec()));
        detach(host, &container, &list[1..]).unwrap();
        assert!(host.link(&first.host_interface).unwrap().is_none());
        assert!(inside.link("other").unwrap().is_none());

        attach(host, &container, &list, &defaults()).unwrap();
        rename("other");
        assert!(detach_all(host, &container).unwrap());
        assert!(inside.link("other").unwrap().is_none());
    });
}

#[test]
fn ipv6_works_where_the_container_has_it_off() {
    in_host(|host| {
        let container = container("c");
        container
            .run(|| {
                for name in ["all", "default"] {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
                }
            })
            .unwrap();
        attach(host, &container, &cidrs(&["10.2.1.1/24"]), &defaults()).unwrap();
        assert!(!routes(&container, "-6").contains("ff00::/8"), "IPv6 stays off while nobody asks for it");
        attach(host, &container, &cidrs(&["fd00::1/64"]), &defaults()).unwrap();
        assert!(attached(host, &container).unwrap().unwrap().cidrs.contains(&"fd00::1/64".parse().unwrap()));
        assert!(routes(&container, "-6").contains("ff00::/8 dev ethwe"));
    });
}

#[test]
fn probes_find_holders_of_both_families_and_wait_no_longer_than_told() {
    in_host(|host| {
        let (a, b) = (container("a"), container("b"));
        let of_a = attach(host, &a, &cidrs(&["10.2.1.1/24", "fd00::1/64"]), &defaults()).unwrap();
        attach(host, &b, &cidrs(&["10.2.1.2/24", "fd00::2/64"]), &defaults()).unwrap();
        let asked = [ip("10.2.1.1"), ip("fd00::1")];
        let mut holders = probe(&b, &asked, Duration::from_secs(2)).unwrap();
        holders.sort_by_key(|holder| holder.address);
        assert_eq!(holders.iter().map(|holder| holder.address).collect::<Vec<_>>(), asked);
        assert!(holders.iter().all(|holder| holder.mac == of_a.mac));
        let start = Instant::now();
        assert_eq!(probe(&b, &[ip("10.2.1.77"), ip("fd00::77")], PROBE_WAIT).unwrap(), []);
        let waited = start.elapsed();
        assert!(waited >= PROBE_WAIT && waited < PROBE_WAIT * 10, "{waited:?}");
    });
}

#[test]
fn an_address_that_moves_is_announced() {
    in_host(|host| {
        let (watcher, old, new) = (container("watcher"), container("old"), container("new"));
        attach(host, &watcher, &cidrs(&["10.2.1.9/24", "fd00::9/64"]), &defaults()).unwrap();
        for address in ["10.2.1.1", "fd00::1"] {
            let net = if address.contains(':') { format!("{address}/64") } else { format!("{address}/24") };
            attach(host, &old, &cidrs(&[&net]), &defaults()).unwrap();
            let exchange = |holder: &Namespace| {
                let server = holder.run(|| UdpSocket::bind((ip(address), 7000)).unwrap()).unwrap();
                // A question for a neighbour that is lost is asked again after a second.
                server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
                watcher
                    .run(|| {
                        let socket = UdpSocket::bind((unspecified(address), 0)).unwrap();
                        socket.send_to(b"x", (ip(address), 7000)).unwrap();
                    })
                    .unwrap();
                server.recv_from(&mut [0; 8]).map(drop)
            };
            exchange(&old).unwrap();
            detach(host, &old, &cidrs(&[&net])).unwrap();
            attach(host, &new, &cidrs(&[&net]), &defaults()).unwrap();
            // Without the announcement the watcher would send to the old MAC for many seconds.
            exchange(&new).unwrap_or_else(|error| panic!("{address}: {error}"));
            detach(host, &new, &cidrs(&[&net])).unwrap();
        }
    });
}

#[test]
fn a_hundred_attachments_are_quick() {
    const COUNT: u32 = 100;
    in_host(|host| {
        bridge::ensure(host, MTU).unwrap();
        let containers: Vec<Namespace> = (0..COUNT).map(|n| container(&format!("c{n}"))).collect();
        let start = Instant::now();
        for (number, container) in containers.iter().enumerate() {
            let net: IpNet = format!("10.2.{}.1/16", number + 1).parse().unwrap();
            attach(host, container, &[net], &defaults()).unwrap();
        }
        let each = start.elapsed() / COUNT;
        assert!(each < Duration::from_millis(100), "{each:?}");
        assert_eq!(host.links().unwrap().len() as u32, COUNT + 2);
    });
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn unspecified(like: &str) -> IpAddr {
    if like.contains(':') { ip("::") } else { ip("0.0.0.0") }
}

fn listen_to_group(group: &str) -> UdpSocket {
    let socket = UdpSocket::bind((unspecified(group), 6000)).unwrap();
    match ip(group) {
        IpAddr::V4(group) => socket.join_multicast_v4(&group, &"10.2.1.2".parse().unwrap()).unwrap(),
        IpAddr::V6(group) => {
            let index = Netlink::open().unwrap().expect_link(CONTAINER_INTERFACE).unwrap().index;
            socket.join_multicast_v6(&group, index).unwrap();
        }
    }
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Routes of all tables as iproute2 prints them: an eye of its own on our work.
fn routes(namespace: &Namespace, family: &str) -> String {
    let output = namespace
        .run(|| {
            std::process::Command::new("ip").args([family, "route", "show", "table", "all"]).output().unwrap()
        })
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Interfaces and addresses of host and container, but for what the kernel finds out in the background.
fn snapshot(host: &mut Netlink, container: &Namespace) -> String {
    let mut inside = Netlink::in_namespace(container).unwrap();
    let mut text = String::new();
    for netlink in [host, &mut inside] {
        let addresses: Vec<_> = netlink.addresses().unwrap().iter().map(|a| (a.index, a.cidr)).collect();
        let mut links = netlink.links().unwrap();
        // A bridge runs some time after its first port does.
        links.iter_mut().for_each(|link| link.running = false);
        text += &format!("{links:#?}\n{addresses:?}\n");
    }
    text
}
