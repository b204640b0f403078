//! The pinger and the harness themselves, without a router in between.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use weave_host::attach::{AttachOptions, attach};
use weave_host::{Netlink, PidFd};
use weave_perf::lab::{Nat, Place, Traffic};
use weave_tests::world::{Spot, v4, v6};
use weave_tests::{Options, Pings, World};

const WITHIN: Duration = Duration::from_secs(10);
const RATE: u32 = 100;

/// Two containers of one host, joined by its bridge.
fn joined() -> World {
    let world = World::new(Options::encrypted().count(1).not_launched().containers(2).not_attached());
    for number in [0, 1] {
        let spot = Spot { host: 0, number };
        let list =
            [format!("{}/24", spot.v4()), format!("{}/64", spot.v6())].map(|cidr| cidr.parse().unwrap());
        world.on_host(0, || {
            let mut netlink = Netlink::open().unwrap();
            let container = world.container_at(spot).namespace();
            attach(&mut netlink, container, &list, &AttachOptions::default()).unwrap();
        });
    }
    world
}

fn far() -> Spot {
    Spot { host: 0, number: 1 }
}

#[test]
fn nothing_is_lost_where_nothing_happens_by_both_families() {
    let world = joined();
    for address in [IpAddr::from(far().v4()), far().v6().into()] {
        let pings = Pings::between(&world, 0, address);
        let begun = Instant::now();
        pings.wait_answer(begun, WITHIN, "at first");
        pings.wait_answer(begun + Duration::from_millis(500), WITHIN, "later");
        let pinged = pings.finish();
        assert!(pinged.sent.len() >= 5, "{pinged:?}");
        pinged.assert_whole("nothing happened");
        assert!(pinged.longest_gap() >= Duration::from_millis(50), "{pinged:?}");
    }
}

#[test]
fn what_is_lost_and_for_how_long_is_told_exactly() {
    const CUT: Duration = Duration::from_millis(300);
    let world = joined();
    let container = world.container_at(far());
    let pings = Pings::start(world.container(0), container, far().v4().into(), RATE);
    pings.wait_answer(Instant::now(), WITHIN, "before");
    let down = Instant::now();
    world.tool_in(container, "ip link set ethwe down");
    std::thread::sleep(CUT);
    world.tool_in(container, "ip link set ethwe up");
    let up = Instant::now();
    pings.wait_answer(up, WITHIN, "after");
    let pinged = pings.finish();
    let lost = pinged.lost();
    assert!(!lost.is_empty(), "{pinged:?}");
    for number in &lost {
        assert!(pinged.sent[*number as usize] + Duration::from_millis(20) > down, "{number}: {pinged:?}");
    }
    let gap = pinged.longest_gap();
    assert!(gap >= CUT && gap < up - down + WITHIN, "{pinged:?}");
    assert!(pinged.doubled().is_empty(), "{pinged:?}");
}

#[test]
fn a_container_is_found_by_its_address() {
    for (host, number) in [(0, 0), (1, 0), (49, 0), (0, 1), (49, 4)] {
        let spot = Spot { host, number };
        assert_eq!(Spot::of(spot.v4().into()), spot);
        assert_eq!(Spot::of(spot.v6().into()), spot);
    }
    assert_eq!((v4(1), v6(1).segments()[7]), (Ipv4Addr::new(10, 32, 1, 2), 2));
}

#[test]
fn a_world_has_as_many_hosts_and_containers_as_asked_for_at_their_places() {
    let places = vec![Place::default(), Place::on(&[1]), Place::behind(1, Nat::Steady)];
    let options = Options::encrypted().bare(4).containers(3).places(places).not_attached();
    let world = World::new(options);
    assert_eq!(world.indices(), [0, 1, 2, 3]);
    assert_eq!(world.lab().namespaces().len(), 4 + 4 * 3 + 2, "the underlay and a translator besides");
    assert_eq!(world.underlay(1), IpAddr::from([10, 99, 1, 2]));
    assert_eq!(world.underlay(2), IpAddr::from([192, 168, 3, 2]));
    assert_eq!(world.underlay(3), IpAddr::from([10, 99, 0, 4]));
    for index in world.indices() {
        world.tool(index, "ip route get 10.99.1.2");
        assert_eq!(world.containers_of(index).len(), 3);
    }
}

#[test]
fn a_world_with_cuts_and_processes_leaves_nothing() {
    let world = World::new(Options::encrypted().bare(3).places(vec![Place::behind(0, Nat::Changing)]));
    world.lab().cut(0, 1, Traffic::All).unwrap();
    let host = world.host(1);
    let process = host.spawn(host.command("sleep").arg("60")).unwrap();
    let held = PidFd::open(process.pid()).unwrap().unwrap();
    // As a daemon: nobody holds it.
    std::mem::forget(process);
    let directory = world.lab().directory().to_owned();
    drop(world);
    assert!(!held.is_alive() && !directory.exists());
}
