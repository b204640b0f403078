//! Remembered attachments against the kernel. Needs root.

use std::path::Path;
use std::time::Duration;

use crate::common::{cidrs, container, in_host};
use weave_host::attach::{AttachOptions, attached, detach_all};
use weave_host::bridge::{self, BRIDGE};
use weave_host::firewall::Guard;
use weave_host::mtu::DEFAULT_MTU;
use weave_host::names::is_here;
use weave_host::netlink::VethEnd;
use weave_host::policy::HostPolicy;
use weave_host::records::{Record, Records, read_all};
use weave_host::tap::{self, Offloads, TAP};
use weave_host::{Error, Netlink, reset};

fn state() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn stored(state: &Path) -> Vec<Record> {
    let (records, damaged) = read_all(state).unwrap();
    assert_eq!(damaged, Vec::<String>::new());
    records
}

#[test]
fn attachments_are_remembered_in_order_until_they_are_detached() {
    let state = state();
    in_host(|host| {
        let c = container("c");
        let first = cidrs(&["10.2.2.1/24", "fd00::1/64", "10.2.1.1/24"]);
        let made = Records::open(state.path())
            .unwrap()
            .attach(host, "netns:c", &c, &first, &AttachOptions::default())
            .unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let expected = Record {
            container: "netns:c".into(),
            namespace: c.id(),
            mac: made.mac,
            cidrs: first.clone(),
            mtu: Some(DEFAULT_MTU),
            forced: true,
            pending: None,
            boot: Some(boot.trim().to_owned()),
            names: Default::default(),
            engine: None,
        };
        assert_eq!(stored(state.path()), std::slice::from_ref(&expected));

        // Again, by another name of the same container, and one more.
        let more = cidrs(&["10.2.1.1/24", "10.2.0.1/24"]);
        Records::open(state.path())
            .unwrap()
            .attach(host, "pid:1", &c, &more, &AttachOptions::default())
            .unwrap();
        let all = [&first[..], &more[1..]].concat();
        assert_eq!(stored(state.path()), [Record { cidrs: all.clone(), ..expected.clone() }]);

        let mut records = Records::open(state.path()).unwrap();
        records.detach(host, "netns:c", &c, &all[1..3], &[]).unwrap();
        drop(records);
        let left = vec![all[0], all[3]];
        assert_eq!(stored(state.path()), [Record { cidrs: left.clone(), ..expected }]);
        Records::open(state.path()).unwrap().detach(host, "netns:c", &c, &left, &[]).unwrap();
        assert_eq!(stored(state.path()), []);
        assert!(attached(host, &c).unwrap().is_none());
    });
}

/// Where no keeper runs, the next command that detaches finishes what the killed one began.
#[test]
fn a_detach_takes_also_what_one_that_was_killed_was_to_take() {
    let state = state();
    in_host(|host| {
        let c = container("c");
        let all = cidrs(&["10.2.1.1/24", "10.2.2.1/24", "10.2.3.1/24"]);
        let options = AttachOptions::default();
        Records::open(state.path()).unwrap().attach(host, "netns:c", &c, &all, &options).unwrap();
        // As it is written before the kernel is asked.
        let before = stored(state.path()).remove(0);
        let file = state.path().join("attachments").join(format!("{}.json", before.host_interface()));
        let killed = Record { cidrs: all[1..].to_vec(), pending: Some(all[..1].to_vec()), ..before };
        let mut written: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        written["content"] = serde_json::to_value(&killed).unwrap();
        std::fs::write(&file, written.to_string()).unwrap();
        Records::open(state.path()).unwrap().detach(host, "netns:c", &c, &all[1..2], &[]).unwrap();
        let left = all[2..].to_vec();
        assert_eq!(attached(host, &c).unwrap().unwrap().cidrs, left);
        assert_eq!(stored(state.path()), [Record { cidrs: left, pending: None, ..killed }]);
    });
}

#[test]
fn an_address_of_another_container_of_this_host_is_refused() {
    let state = state();
    in_host(|host| {
        let (a, b) = (container("a"), container("b"));
        let options = AttachOptions::default();
        let mut records = Records::open(state.path()).unwrap();
        records.attach(host, "netns:a", &a, &cidrs(&["10.2.1.1/24"]), &options).unwrap();
        let before = stored(state.path());
        let list = cidrs(&["10.2.1.2/24", "10.2.1.1/16"]);
        let error = records.attach(host, "netns:b", &b, &list, &options).unwrap_err();
        assert!(error.to_string().contains("netns:a"), "{error}");
        assert_eq!(stored(state.path()), before);
        assert!(attached(host, &b).unwrap().is_none());
        // Free again once the container that had it is gone.
        assert!(detach_all(host, &a).unwrap());
        records.attach(host, "netns:b", &b, &list, &options).unwrap();
        assert_eq!(stored(state.path()).len(), 1);
    });
}

#[test]
fn a_remembered_address_that_is_taken_meanwhile_is_named_with_what_gives_it_up() {
    let state = state();
    in_host(|host| {
        let (a, b) = (container("a"), container("b"));
        let (ran, other) = ("1".repeat(64), "2".repeat(64));
        let options = AttachOptions::default();
        let mut records = Records::open(state.path()).unwrap();
        let both = cidrs(&["10.2.1.1/24", "10.2.1.2/24"]);
        records.attach(host, &ran, &a, &both, &options).unwrap();
        assert!(detach_all(host, &a).unwrap());
        records.attach(host, &other, &b, &both[..1], &options).unwrap();
        let typed = cidrs(&["10.2.1.3/24"]);
        let error = records.attach(host, &ran, &a, &typed, &options).unwrap_err();
        let said = error.to_string();
        assert!(
            matches!(error, Error::RememberedInUse { .. }) && said.contains("10.2.1.1, which it had"),
            "{said}"
        );
        assert!(said.ends_with(&format!("`weave detach 10.2.1.1/24 {ran}` has it forgotten")), "{said}");
        // Which is true.
        records.detach(host, &ran, &a, &both[..1], &[]).unwrap();
        records.attach(host, &ran, &a, &typed, &options).unwrap();
        assert_eq!(attached(host, &a).unwrap().unwrap().cidrs, [both[1], typed[0]]);
        // What is named itself is as it always was.
        let error = records.attach(host, &ran, &a, &both[..1], &options).unwrap_err();
        assert!(matches!(error, Error::AddressInUse { .. }), "{error}");
    });
}

#[test]
fn a_container_of_an_engine_that_is_named_by_its_namespace_is_the_same_one() {
    let state = state();
    in_host(|host| {
        let c = container("c");
        let (first, second) = ("1".repeat(64), "2".repeat(64));
        let own = cidrs(&["10.2.1.1/24", "10.2.1.2/24"]);
        let options = AttachOptions::default();
        let mut records = Records::open(state.path()).unwrap();
        records.attach(host, &first, &c, &own[..1], &options).unwrap();
        let again = records.attach(host, "pid:7", &c, &own[..1], &options).unwrap();
        assert!(!again.is_new && again.added.is_empty());
        records.attach(host, "netns:c", &c, &own, &options).unwrap();
        let all = stored(state.path());
        assert_eq!((all.len(), &all[0].container, &all[0].cidrs), (1, &first, &own));
        // Of several that share it none is meant more than the others.
        records.attach(host, &second, &c, &cidrs(&["10.2.1.3/24"]), &options).unwrap();
        let again = records.attach(host, "pid:7", &c, &own[..1], &options).unwrap();
        assert!(again.added.is_empty());
        records.detach(host, "pid:7", &c, &own[..1], &[]).unwrap();
        let held: Vec<_> = stored(state.path()).into_iter().flat_map(|record| record.cidrs).collect();
        assert!(!held.contains(&own[0]), "{held:?}");
        assert!(!attached(host, &c).unwrap().unwrap().cidrs.contains(&own[0]));
    });
}

#[test]
fn an_address_of_the_host_itself_is_refused_unless_it_is_forced() {
    let state = state();
    in_host(|host| {
        let c = container("c");
        host.create_veth(VethEnd::new("under"), VethEnd::new("other"), DEFAULT_MTU).unwrap();
        let under = host.expect_link("under").unwrap();
        let own = cidrs(&["192.0.2.1/24"]);
        host.add_address(under.index, own[0]).unwrap();
        let asking = AttachOptions { probe: Some(Duration::from_millis(1)), ..AttachOptions::default() };
        let mut records = Records::open(state.path()).unwrap();
        let error = records.attach(host, "netns:c", &c, &own, &asking).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1 is in use by interface under of this host"), "{error}");
        assert_eq!(stored(state.path()), []);
        let forced = AttachOptions { probe: None, ..asking.clone() };
        records.attach(host, "netns:c", &c, &own, &forced).unwrap();
        // What it has already it may be given again.
        records.attach(host, "netns:c", &c, &own, &asking).unwrap();
    });
}

#[test]
fn what_is_detached_by_another_name_is_not_remembered() {
    let state = state();
    in_host(|host| {
        let c = container("c");
        let [first, second] = [&["10.2.1.1/24"][..], &["10.2.1.2/24"]].map(cidrs);
        let mut records = Records::open(state.path()).unwrap();
        let options = AttachOptions::default();
        records.attach(host, "pid:7", &c, &[first.clone(), second.clone()].concat(), &options).unwrap();
        records.detach(host, "netns:c", &c, &first, &[]).unwrap();
        assert_eq!(stored(state.path())[0].cidrs, second);
        let other = container("d");
        records.attach(host, "netns:d", &other, &first, &options).unwrap();
        records.detach(host, "netns:c", &c, &second, &[]).unwrap();
        let left: Vec<String> = stored(state.path()).into_iter().map(|record| record.container).collect();
        assert_eq!(left, ["netns:d"]);
    });
}

#[test]
fn an_mtu_counts_that_a_bridge_has_which_is_up() {
    let state = state();
    in_host(|host| {
        let c = container("c");
        // As a command leaves it that was killed while it made it.
        host.create_bridge(BRIDGE, bridge::random_mac().unwrap(), DEFAULT_MTU - 1).unwrap();
        assert!(!host.expect_link(BRIDGE).unwrap().up, "it is not protected yet");
        let mut records = Records::open(state.path()).unwrap();
        records.attach(host, "netns:c", &c, &cidrs(&["10.2.1.1/24"]), &AttachOptions::default()).unwrap();
        assert_eq!(host.expect_link(BRIDGE).unwrap().mtu, DEFAULT_MTU);
        assert_eq!(stored(state.path())[0].mtu, Some(DEFAULT_MTU));
    });
}

#[test]
fn a_failed_attachment_restores_what_was_remembered() {
    let state = state();
    in_host(|host| {
        let (a, b) = (container("a"), container("b"));
        let asking = AttachOptions { probe: Some(Duration::from_millis(300)), ..AttachOptions::default() };
        // Known to the kernel only, so that the probe must find it.
        weave_host::attach::attach(host, &a, &cidrs(&["10.2.1.1/24"]), &AttachOptions::default()).unwrap();
        let mut records = Records::open(state.path()).unwrap();
        let error = records.attach(host, "netns:b", &b, &cidrs(&["10.2.1.1/24"]), &asking).unwrap_err();
        assert!(matches!(error, Error::AddressInUse { .. }), "{error}");
        assert_eq!(stored(state.path()), []);
        drop(records);
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0, "no trace of what failed");
        let mut records = Records::open(state.path()).unwrap();
        records.attach(host, "netns:b", &b, &cidrs(&["10.2.1.2/24"]), &asking).unwrap();
        let before = stored(state.path());
        records.attach(host, "netns:b", &b, &cidrs(&["10.2.1.3/24", "10.2.1.1/24"]), &asking).unwrap_err();
        assert_eq!(stored(state.path()), before);
    });
}

#[test]
fn an_interface_that_nobody_remembers_is_taken_up() {
    let state = state();
    in_host(|host| {
        let c = container("c");
        let options = AttachOptions::default();
        let made = weave_host::attach::attach(host, &c, &cidrs(&["10.2.1.1/24"]), &options).unwrap();
        let mut records = Records::open(state.path()).unwrap();
        records.attach(host, "netns:c", &c, &cidrs(&["10.2.3.1/24"]), &options).unwrap();
        let records = stored(state.path());
        assert_eq!(records[0].mac, made.mac);
        assert_eq!(records[0].cidrs, cidrs(&["10.2.1.1/24", "10.2.3.1/24"]));
    });
}

#[test]
fn a_record_left_by_a_crash_or_of_an_earlier_namespace_does_no_harm() {
    let state = state();
    in_host(|host| {
        let c = container("c");
        let mut records = Records::open(state.path()).unwrap();
        let list = cidrs(&["10.2.1.1/24"]);
        let made = records.attach(host, "pid:7", &c, &list, &AttachOptions::default()).unwrap();
        // The interface goes, as when the container dies; the number of its
        // namespace may then be that of another one.
        assert!(detach_all(host, &c).unwrap());
        let again =
            records.attach(host, "pid:8", &c, &cidrs(&["10.2.2.1/24"]), &AttachOptions::default()).unwrap();
        assert!(again.is_new && again.mac != made.mac);
        let records = stored(state.path());
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].container.as_str(), &records[0].cidrs), ("pid:8", &cidrs(&["10.2.2.1/24"])));
    });
}

#[test]
fn a_namespace_with_the_number_of_an_earlier_one_is_not_taken_for_it() {
    let state = state();
    in_host(|host| {
        let (a, b) = (container("a"), container("b"));
        let (first, second) = ("1".repeat(64), "2".repeat(64));
        let options = AttachOptions::default();
        let mut records = Records::open(state.path()).unwrap();
        let made = records.attach(host, &first, &a, &cidrs(&["10.2.1.1/24"]), &options).unwrap();
        // The first container ends, and the second gets a namespace of the same number.
        assert!(detach_all(host, &a).unwrap());
        let other = records.attach(host, &second, &a, &cidrs(&["10.2.1.2/24"]), &options).unwrap();
        assert_eq!(other.host_interface, made.host_interface);
        for attempt in 0..2 {
            records.prune(host).unwrap();
            let record = |id: &str| records.all().iter().find(|one| one.container == id).unwrap();
            assert!(records.has_ended(record(&first)) && !records.has_ended(record(&second)), "{attempt}");
            assert!(!is_here(record(&first)) && is_here(record(&second)), "{attempt}");
            // Read anew, as by the next command.
            drop(records);
            records = Records::open(state.path()).unwrap();
        }
        // It runs again, elsewhere.
        let again = records.attach(host, &first, &b, &cidrs(&["10.2.1.1/24"]), &options).unwrap();
        assert_eq!((again.mac, &again.added), (made.mac, &cidrs(&["10.2.1.1/24"])));
        records.prune(host).unwrap();
        assert!(records.all().iter().all(|record| !records.has_ended(record)));
    });
}

#[test]
fn addresses_of_another_container_are_not_remembered_for_the_next_start() {
    let state = state();
    in_host(|host| {
        let (a, b) = (container("a"), container("b"));
        let (ended, runs, unknown) = ("1".repeat(64), "2".repeat(64), "3".repeat(64));
        let options = AttachOptions::default();
        let mut records = Records::open(state.path()).unwrap();
        records.attach(host, &ended, &a, &cidrs(&["10.2.1.1/24"]), &options).unwrap();
        assert!(detach_all(host, &a).unwrap());
        records.attach(host, &runs, &b, &cidrs(&["10.2.1.2/24"]), &options).unwrap();
        let before = stored(state.path());
        let taken = cidrs(&["10.2.1.3/24", "10.2.1.2/16"]);
        for one in [&ended, &unknown] {
            let error = records.remember(host, one, &taken).unwrap_err();
            assert!(matches!(error, Error::AddressInUse { .. }), "{error}");
        }
        assert_eq!(stored(state.path()), before);
        // Its own addresses are nobody else's.
        assert_eq!(records.remember(host, &runs, &cidrs(&["10.2.1.2/24"])).unwrap(), None);
        let had = records.remember(host, &ended, &cidrs(&["10.2.1.3/24"])).unwrap();
        assert_eq!(had, Some(cidrs(&["10.2.1.1/24"])));
    });
}

#[test]
fn containers_that_share_a_namespace_share_a_port_of_the_guard() {
    let state = state();
    let policy = HostPolicy { port: 6783, engine_bridge: "docker0".into(), guard: true };
    policy.write(state.path()).unwrap();
    in_host(|host| {
        let (shared, options) = (container("shared"), AttachOptions::default());
        for (number, id) in ["1", "2"].into_iter().enumerate() {
            let own = cidrs(&[&format!("10.2.1.{}/24", number + 1)]);
            Records::open(state.path())
                .unwrap()
                .attach(host, &id.repeat(64), &shared, &own, &options)
                .unwrap();
        }
        let rules = Guard::snapshot().unwrap().unwrap();
        assert_eq!(rules.matches("ip saddr != { 0.0.0.0, 10.2.1.1, 10.2.1.2 }").count(), 1, "{rules}");
        assert_eq!(rules.matches("\tip saddr != ").count(), 1, "{rules}");
    });
}

#[test]
fn damaged_records_are_set_aside_and_told() {
    let state = state();
    let directory = state.path().join("attachments");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("vethw00000001.json"), "{").unwrap();
    let (records, damaged) = read_all(state.path()).unwrap();
    assert!(records.is_empty());
    assert_eq!(damaged.len(), 1);
    let records = Records::open(state.path()).unwrap();
    assert_eq!(records.all(), []);
    assert_eq!(records.set_aside().len(), 1);
    assert!(directory.join("vethw00000001.json.bad").exists());
}

#[test]
fn a_damaged_file_that_says_whether_containers_are_guarded_is_set_aside_and_told() {
    let state = state();
    std::fs::write(state.path().join("host.json"), "{").unwrap();
    let records = Records::open(state.path()).unwrap();
    let kept: Vec<_> = records.set_aside().iter().map(|aside| aside.kept.clone()).collect();
    assert_eq!(kept, [state.path().join("host.json.bad")]);
}

#[test]
fn reset_removes_every_interface_of_ours_and_no_other() {
    in_host(|host| {
        bridge::ensure(host, 1376).unwrap();
        let queues = tap::open_queues(host, TAP, 2, 1376, Offloads::default()).unwrap();
        let containers = [container("a"), container("b")];
        for (number, c) in containers.iter().enumerate() {
            let net = format!("10.2.1.{}/24", number + 1).parse().unwrap();
            weave_host::attach::attach(host, c, &[net], &AttachOptions::default()).unwrap();
        }
        host.create_veth(VethEnd::new("vethwe-other"), VethEnd::new("other"), 1500).unwrap();
        reset::remove_interfaces(host).unwrap();
        let mut names: Vec<String> = host.links().unwrap().into_iter().map(|link| link.name).collect();
        names.sort();
        assert_eq!(names, ["lo", "other", "vethwe-other"]);
        for c in &containers {
            assert_eq!(Netlink::in_namespace(c).unwrap().links().unwrap().len(), 1);
        }
        drop(queues);
        reset::remove_interfaces(host).unwrap();
        // What is not ours stays, and is said.
        host.create_veth(VethEnd::new(BRIDGE), VethEnd::new("x"), 1500).unwrap();
        assert!(matches!(reset::remove_interfaces(host), Err(Error::NameTaken { .. })));
    });
}
