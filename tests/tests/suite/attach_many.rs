//! Many attachments on one host, by several callers at once, and one after the other.

use std::collections::BTreeSet;
use std::fs;

use weave_host::Netlink;
use weave_host::attach::is_host_interface;
use weave_perf::lab::Container;
use weave_perf::process::Usage;
use weave_tests::callers::at_once;
use weave_tests::engines::SOON;
use weave_tests::world::{INTERFACE, of_containers};
use weave_tests::{Options, World, wait_until};

const CALLERS: usize = 8;

/// The address of container number `index`.
fn address(index: usize) -> String {
    format!("10.2.1.{}/24", index + 1)
}

/// Ports of attachments on host 0.
fn ports(world: &World) -> usize {
    let links = Netlink::in_namespace(world.host(0).namespace()).unwrap().links().unwrap();
    links.iter().filter(|link| is_host_interface(&link.name)).count()
}

/// Addresses in a container.
fn inside(container: &Container) -> Vec<String> {
    let mut netlink = Netlink::in_namespace(container.namespace()).unwrap();
    let Some(link) = netlink.link(INTERFACE).unwrap() else { return Vec::new() };
    let all = netlink.addresses().unwrap().into_iter();
    let own = all.filter(|held| held.index == link.index && !held.link_local);
    own.map(|held| held.cidr.to_string()).collect()
}

#[test]
fn none_of_64_attachments_by_8_callers_is_lost_or_doubled() {
    attach_at_once(64);
}

#[test]
fn long_none_of_200_attachments_by_8_callers_is_lost_or_doubled() {
    attach_at_once(200);
}

fn attach_at_once(count: usize) {
    let world = World::new(Options::clear().bare(1));
    world.launch(0, &[]);
    let container = |number| world.lab().container(&format!("many-{number}")).unwrap();
    let containers: Vec<Container> = (0..count).map(container).collect();

    at_once(CALLERS, count, |number| {
        world.weave(0, &["attach", &address(number), containers[number].spec()]).ok();
    });
    let listed = of_containers(&world.weave(0, &["ps"]).ok().stdout);
    let macs: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!((listed.lines().count(), macs.len(), ports(&world)), (count, count, count));
    for (number, container) in containers.iter().enumerate() {
        assert_eq!(inside(container), [address(number)]);
    }

    at_once(CALLERS, count, |number| {
        world.weave(0, &["detach", &address(number), containers[number].spec()]).ok();
    });
    let listed = of_containers(&world.weave(0, &["ps"]).ok().stdout);
    assert_eq!((listed.as_str(), ports(&world)), ("", 0));
    assert!(containers.iter().all(|container| inside(container).is_empty()));
    assert!(!world.host(0).state_dir().join("attachments").exists(), "records are left");
}

/// Memory that a router or keeper may have more after many attachments, bytes.
const GROWTH_MAX: u64 = 2 << 20;

#[test]
fn long_1000_attaches_and_detaches_leave_memory_descriptors_and_links_as_they_were() {
    let world = World::new(Options::clear().bare(1));
    world.launch(0, &[]);
    let container = world.lab().container("many").unwrap();
    let keeper = fs::read_to_string(world.host(0).run_dir().join("keeper.pid")).unwrap();
    let processes = [world.status(0).pid, keeper.trim().parse().unwrap()];
    let round = || {
        world.weave(0, &["attach", &address(0), container.spec()]).ok();
        world.weave(0, &["detach", &address(0), container.spec()]).ok();
    };
    let memory = || processes.map(|pid| Usage::of(pid).unwrap().resident_bytes);
    let open = || processes.map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count());
    // What a process makes once does not count.
    (0..100).for_each(|_| round());
    let (memory_before, open_before) = (memory(), open());
    (0..1000).for_each(|_| round());
    let memory_after = memory();
    println!("resident memory of router and keeper: {memory_before:?} bytes, then {memory_after:?}");
    for (before, after) in memory_before.into_iter().zip(memory_after) {
        assert!(after <= before + GROWTH_MAX, "{memory_before:?} {memory_after:?}");
    }
    // The keeper may be looking at the last change still.
    wait_until(
        SOON,
        || format!("descriptors: {open_before:?} {:?}", open()),
        || open().iter().zip(open_before).all(|(now, before)| *now <= before),
    );
    assert_eq!(ports(&world), 0);
}
