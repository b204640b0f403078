//! Peers given by name.

use std::fs;

use weave_api::status::TargetState;
use weave_tests::world::{LINK_WITHIN, PASSWORD};
use weave_tests::{Options, World, wait_until};

/// Launches host `index` with names of its own: /etc/hosts is another file to it.
#[track_caller]
fn launch_with_names(hosts: &World, index: usize, names: &str, arguments: &[&str]) {
    launch_with_file(hosts, index, "/etc/hosts", names, arguments);
}

/// Launches host `index` with another file in place of `at`.
#[track_caller]
fn launch_with_file(hosts: &World, index: usize, at: &str, text: &str, arguments: &[&str]) {
    let file = hosts.host(index).directory().join("file");
    fs::write(&file, text).unwrap();
    let launch = hosts.launch_command(index, Some(PASSWORD), arguments);
    let mut command = hosts.host(index).command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("mount --bind \"$0\" {at} && exec \"$@\"")).arg(&file);
    command.arg(launch.get_program()).args(launch.get_args());
    hosts.run(index, &mut command).ok();
}

#[test]
fn a_name_is_looked_up_and_the_first_of_its_addresses_that_answers_is_linked() {
    let hosts = World::new(Options::encrypted().bare(2));
    hosts.launch(0, &[]);
    // Nobody listens at the first address: this host itself, on another network.
    let names = format!("127.0.0.2 other.example\n{} other.example\n", hosts.underlay(0));
    launch_with_names(&hosts, 1, &names, &["--host", &hosts.underlay(1).to_string(), "Other.example."]);
    hosts.wait_linked(0, 1, LINK_WITHIN);
    let targets = hosts.status(1).targets;
    assert_eq!(targets.len(), 1, "{targets:?}");
    assert_eq!(targets[0].target.to_string(), "other.example", "as typed, in one spelling");
    assert_eq!(targets[0].state, TargetState::Connected);
}

#[test]
fn a_name_is_asked_of_the_servers_of_the_host_in_its_search_list() {
    let hosts = World::new(Options::encrypted().bare(2));
    hosts.launch(0, &[]);
    let mut server = hosts.host(1).command("dnsmasq");
    server.args(["-k", "-C", "/dev/null", "-R", "-h", "--listen-address=127.0.0.1", "--bind-interfaces"]);
    server.arg(format!("--address=/other.example/{}", hosts.underlay(0)));
    let _server = hosts.host(1).spawn(&mut server).unwrap();
    // The first server does not listen.
    let conf = "nameserver 127.0.0.2\nnameserver 127.0.0.1\nsearch nowhere.test example\n";
    launch_with_file(&hosts, 1, "/etc/resolv.conf", conf, &["other"]);
    hosts.wait_linked(0, 1, LINK_WITHIN);
}

#[test]
fn connect_to_the_name_of_a_linked_peer_leaves_the_link_alone() {
    let hosts = World::new(Options::encrypted().bare(2));
    let names = |other| format!("{} other.example\n", hosts.underlay(other));
    launch_with_names(&hosts, 0, &names(1), &[]);
    launch_with_names(&hosts, 1, &names(0), &[&hosts.underlay(0).to_string()]);
    hosts.wait_linked(0, 1, LINK_WITHIN);
    // The end that dialled the link, and the one that did not.
    for index in [1, 0] {
        hosts.weave(index, &["connect", "other.example"]).ok();
        let target = || hosts.status(index).targets.pop().unwrap();
        assert_eq!(target().target.to_string(), "other.example");
        wait_until(LINK_WITHIN, || format!("{:#?}", target()), || target().state == TargetState::Connected);
    }
    for (index, other) in [(0, 1), (1, 0)] {
        let counters = hosts.status(index).counters;
        assert_eq!((counters["links_made"], counters["links_lost"]), (1, 0), "host {index}");
        assert!(hosts.is_established(index, other), "{}", hosts.connections(&[0, 1]));
    }
}
