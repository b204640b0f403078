//! Bridge and tap in the kernel, each test in a namespace of its own. Needs root.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::common::{self, in_host, sysctl};
use weave_host::bridge::{self, BRIDGE};
use weave_host::netlink::VethEnd;
use weave_host::tap::{self, Offloads, TAP, TX_QUEUE_LEN};
use weave_host::{Error, Netlink};

const MTU: u32 = 1376;

#[test]
fn the_bridge_is_up_protected_and_without_addresses() {
    in_host(|netlink| {
        let bridge = bridge::ensure(netlink, MTU).unwrap();
        assert!(bridge.up);
        assert_eq!(bridge.mtu, MTU);
        assert_eq!(bridge.mac.unwrap().0[0] & 0b11, 0b10, "local, unicast");
        assert_eq!(sysctl("ipv6/conf/weave/accept_ra"), "0");
        assert_eq!(sysctl("ipv6/conf/weave/accept_redirects"), "0");
        assert_eq!(sysctl("ipv6/conf/weave/autoconf"), "0");
        assert_eq!(sysctl("ipv4/conf/weave/accept_redirects"), "0");
        let addresses = netlink.addresses().unwrap();
        assert!(addresses.iter().all(|address| address.index != bridge.index), "{addresses:?}");
    });
}

#[test]
fn making_the_bridge_again_changes_nothing_but_what_was_wrong() {
    in_host(|netlink| {
        let first = bridge::ensure(netlink, MTU).unwrap();
        assert_eq!(bridge::ensure(netlink, MTU).unwrap(), first);
        netlink.set_mtu(&first, 1400).unwrap();
        netlink.set_down(&first).unwrap();
        fs::write("/proc/sys/net/ipv6/conf/weave/accept_ra", "1").unwrap();
        assert_eq!(bridge::ensure(netlink, MTU).unwrap(), first);
        assert_eq!(sysctl("ipv6/conf/weave/accept_ra"), "0");
    });
}

#[test]
fn the_bridge_keeps_its_mtu_whatever_its_ports_have() {
    in_host(|netlink| {
        let bridge = bridge::ensure(netlink, MTU).unwrap();
        let port = VethEnd { controller: Some(bridge.index), ..VethEnd::new("port") };
        netlink.create_veth(port, VethEnd::new("other"), MTU - 76).unwrap();
        let port = netlink.expect_link("port").unwrap();
        for mtu in [port.mtu, MTU + 1, MTU - 1] {
            netlink.set_mtu(&port, mtu).unwrap();
            assert_eq!(netlink.expect_link(BRIDGE).unwrap().mtu, MTU, "{mtu}");
        }
    });
}

#[test]
fn an_interface_that_is_no_bridge_is_neither_used_nor_removed() {
    in_host(|netlink| {
        netlink.create_veth(VethEnd::new(BRIDGE), VethEnd::new("other"), MTU).unwrap();
        let error = bridge::ensure(netlink, MTU).unwrap_err();
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
        assert!(error.to_string().contains("kind veth"), "{error}");
        assert!(matches!(bridge::remove(netlink), Err(Error::NameTaken { .. })));
        assert!(netlink.link(BRIDGE).unwrap().is_some());
    });
}

#[test]
fn an_mtu_out_of_range_makes_no_bridge() {
    in_host(|netlink| {
        for mtu in [0, 575, 65_522, u32::MAX] {
            assert!(matches!(bridge::ensure(netlink, mtu), Err(Error::Invalid { .. })), "{mtu}");
        }
        assert!(netlink.link(BRIDGE).unwrap().is_none());
    });
}

#[test]
fn the_largest_mtu_fits_bridge_and_tap() {
    in_host(|netlink| {
        bridge::ensure(netlink, weave_host::mtu::MTU_MAX).unwrap();
        let queues = tap::open_queues(netlink, TAP, 1, weave_host::mtu::MTU_MAX, Offloads::default());
        assert_eq!(queues.unwrap().link.mtu, weave_host::mtu::MTU_MAX);
    });
}

#[test]
fn a_new_tap_is_protected_in_the_bridge_and_up() {
    in_host(|netlink| {
        let bridge = bridge::ensure(netlink, MTU).unwrap();
        let tap = tap::open_queues(netlink, TAP, 2, MTU, Offloads::default()).unwrap();
        assert_eq!(tap.fds.len(), 2);
        assert!(tap.features.checksum && tap.features.tso);
        assert!(tap.link.up && tap.link.running);
        assert_eq!(tap.link.controller, Some(bridge.index));
        assert_eq!((tap.link.mtu, tap.link.tx_queue_len), (MTU, TX_QUEUE_LEN));
        assert_eq!(tap.link.tap_queues, Some(2));
        assert_eq!(sysctl("ipv6/conf/weave-tap/accept_ra"), "0");
        let addresses = netlink.addresses().unwrap();
        assert!(addresses.is_empty(), "none on tap and bridge, now that they have carrier: {addresses:?}");
        for fd in &tap.fds {
            // SAFETY: F_GETFL takes no argument, and the descriptor is open.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
            assert_ne!(flags & libc::O_NONBLOCK, 0);
        }
        let bridge = netlink.link(BRIDGE).unwrap().unwrap();
        assert_eq!(bridge.mtu, MTU, "a port changed the bridge");
    });
}

#[test]
fn offloads_are_switched_off_one_by_one() {
    in_host(|netlink| {
        bridge::ensure(netlink, MTU).unwrap();
        for (tso, uso) in [(true, true), (true, false), (false, true), (false, false)] {
            let tap = tap::open_queues(netlink, TAP, 3, MTU, Offloads { tso, uso }).unwrap();
            assert_eq!(tap.features.tso, tso);
            assert_eq!(tap.features.uso, uso);
            assert_eq!(common::tap_offloads(TAP), (tso, uso), "what the device really does");
        }
    });
}

#[test]
fn a_tap_keeps_its_mac_and_number_for_the_next_router() {
    in_host(|netlink| {
        bridge::ensure(netlink, MTU).unwrap();
        let first = tap::open_queues(netlink, TAP, 4, MTU, Offloads::default()).unwrap();
        let link = first.link.clone();
        drop(first);
        assert_eq!(tap::queues_in_use(netlink, TAP).unwrap(), 0);
        let second = tap::open_queues(netlink, TAP, 1, 1400, Offloads::default()).unwrap();
        assert_eq!((second.link.index, second.link.mac), (link.index, link.mac));
        assert_eq!(second.link.mtu, 1400);
    });
}

#[test]
fn a_second_router_is_refused_and_takes_nothing_from_the_first() {
    in_host(|netlink| {
        bridge::ensure(netlink, MTU).unwrap();
        let first = tap::open_queues(netlink, TAP, 2, MTU, Offloads::default()).unwrap();
        let error = tap::open_queues(netlink, TAP, 1, MTU, Offloads::default()).unwrap_err();
        assert!(matches!(error, Error::TapBusy { queues: 2, .. }), "{error}");
        assert!(error.to_string().contains("weave stop"), "{error}");
        let link = netlink.link(TAP).unwrap().unwrap();
        assert_eq!(link, first.link);
    });
}

#[test]
fn queues_of_a_deleted_tap_become_those_of_a_new_one() {
    in_host(|netlink| {
        let offloads = Offloads { tso: true, uso: false };
        let bridge = bridge::ensure(netlink, MTU).unwrap();
        let first = tap::open_queues(netlink, TAP, 3, MTU, offloads).unwrap();
        let restore = |netlink: &mut Netlink| {
            let was_gone = tap::restore_queues(netlink, TAP, &first.fds, MTU, offloads).unwrap();
            let link = netlink.expect_link(TAP).unwrap();
            assert!(link.up && link.running && link.controller == Some(bridge.index));
            assert_eq!((link.mtu, link.tx_queue_len, link.tap_queues), (MTU, TX_QUEUE_LEN, Some(3)));
            assert_eq!(common::tap_offloads(TAP), (true, false));
            assert_eq!(sysctl("ipv6/conf/weave-tap/accept_ra"), "0");
            was_gone
        };
        netlink.delete_link(&first.link).unwrap();
        assert!(restore(netlink));
        assert!(!restore(netlink), "it is there");
        drop(first);
        assert!(netlink.link(TAP).unwrap().is_some(), "it outlives its queues");
    });
}

#[test]
fn what_is_no_queue_of_the_tap_makes_none() {
    in_host(|netlink| {
        bridge::ensure(netlink, MTU).unwrap();
        let other = tap::open_queues(netlink, "other", 1, MTU, Offloads::default()).unwrap();
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        for (fds, words) in [(vec![], "0 queues"), (vec![file], "no queue"), (other.fds, "queue of other")] {
            let error = tap::restore_queues(netlink, TAP, &fds, MTU, Offloads::default()).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(words), "{error}");
            assert!(netlink.link(TAP).unwrap().is_none());
        }
    });
}

#[test]
fn queues_that_are_about_to_be_released_are_awaited() {
    in_host(|netlink| {
        bridge::ensure(netlink, MTU).unwrap();
        let first = tap::open_queues(netlink, TAP, 2, MTU, Offloads::default()).unwrap();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(150));
                drop(first);
            });
            tap::open_queues(netlink, TAP, 2, MTU, Offloads::default()).unwrap();
        });
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(150) && waited < Duration::from_secs(2), "{waited:?}");
    });
}

#[test]
fn a_tap_of_another_kind_is_refused_and_left_alone() {
    in_host(|netlink| {
        bridge::ensure(netlink, MTU).unwrap();
        let other = tun_rs::DeviceBuilder::new().name(TAP).layer(tun_rs::Layer::L2).build_sync().unwrap();
        other.persist().unwrap();
        drop(other);
        let error = tap::open_queues(netlink, TAP, 1, MTU, Offloads::default()).unwrap_err();
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
        assert!(netlink.link(TAP).unwrap().is_some());
    });
}

#[test]
fn a_tap_that_cannot_be_finished_is_removed_again() {
    in_host(|netlink| {
        // No bridge: refused before anything is made.
        let error = tap::open_queues(netlink, TAP, 1, MTU, Offloads::default()).unwrap_err();
        assert_eq!(error.os_error(), Some(libc::ENODEV), "{error}");
        assert!(netlink.link(TAP).unwrap().is_none());
        bridge::ensure(netlink, MTU).unwrap();
        for count in [0, tap::QUEUES_MAX + 1] {
            let error = tap::open_queues(netlink, TAP, count, MTU, Offloads::default());
            assert!(matches!(error, Err(Error::Invalid { .. })), "{count}");
        }
        let error = tap::open_queues(netlink, "a-name-that-is-too-long", 1, MTU, Offloads::default());
        assert!(matches!(error, Err(Error::Invalid { .. })));
        assert_eq!(netlink.links().unwrap().len(), 2, "lo and the bridge");
    });
}

#[test]
fn many_queues_work() {
    in_host(|netlink| {
        bridge::ensure(netlink, MTU).unwrap();
        let tap = tap::open_queues(netlink, TAP, tap::QUEUES_MAX, MTU, Offloads::default()).unwrap();
        assert_eq!(tap.link.tap_queues, Some(tap::QUEUES_MAX as u32));
    });
}

#[test]
fn a_netlink_of_another_namespace_works_from_here() {
    let namespace = weave_host::Namespace::create("elsewhere").unwrap();
    let mut netlink = Netlink::in_namespace(&namespace).unwrap();
    let links = netlink.links().unwrap();
    assert_eq!(links.len(), 1);
    assert_eq!(links[0].name, "lo");
    netlink.set_loopback_up().unwrap();
    assert!(netlink.expect_link("lo").unwrap().up);
}
