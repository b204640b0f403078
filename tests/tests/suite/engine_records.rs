//! What is remembered of containers, and what is forgotten.

use std::fs;

use weave_tests::Engines;
use weave_tests::engines::{Inside, SOON};
use weave_tests::wait_until;

/// Files of attachments on host 0.
fn records(hosts: &Engines) -> usize {
    files(hosts, "attachments")
}

/// Files in a directory of the state on host 0.
fn files(hosts: &Engines, directory: &str) -> usize {
    let directory = hosts.world().host(0).state_dir().join(directory);
    fs::read_dir(directory).map_or(0, |entries| entries.flatten().filter(is_record).count())
}

fn is_record(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().ends_with(".json")
}

#[track_caller]
fn wait_records(hosts: &Engines, wanted: usize) {
    wait_until(SOON, || format!("{} records and not {wanted}", records(hosts)), || records(hosts) == wanted);
}

#[test]
fn paced_a_removed_container_is_forgotten_and_a_stopped_one_is_not() {
    let hosts = Engines::new(1, 0);
    let removed = hosts.weave_run(0, "10.2.1.1/24 --name removed");
    let stopped = hosts.weave_run(0, "10.2.1.2/24 --name stopped");
    hosts.ok(0, "docker stop -t 0 stopped");
    hosts.ok(0, "docker rm -f removed");
    wait_records(&hosts, 1);
    assert_eq!(hosts.ps(0), "", "neither runs");
    // Its address is free meanwhile.
    let other = hosts.weave_run(0, "10.2.1.1/24");
    assert_ne!(other.id, removed.id);
    hosts.ok(0, "docker start stopped");
    hosts.wait_attached(&stopped, &["10.2.1.2/24"]);
}

#[test]
fn an_attachment_of_which_a_file_cannot_be_written_leaves_the_container_as_it_was() {
    let hosts = Engines::new(1, 0);
    let container = hosts.docker_run(0, "--name web");
    let log = hosts.world().host(0).directory().join("points");
    let attach = |point: &str| {
        let points = format!("WEAVE_FAILPOINT=attach:{point} WEAVE_FAILPOINT_LOG={}", log.display());
        hosts.sh(0, &format!("{points} weave attach 10.2.1.1/24 web"))
    };
    // Each attach passes the same points then.
    hosts.ok(0, "weave create-bridge");
    let ran = attach("0");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    hosts.ok(0, "weave detach 10.2.1.1/24 web");
    let passed = fs::read_to_string(&log).unwrap();
    let of_files = passed.lines().enumerate().filter(|(_, next)| next.ends_with("a file"));
    let of_files: Vec<usize> = of_files.map(|(index, _)| index + 1).collect();
    assert!(!of_files.is_empty(), "{passed}");
    for point in of_files {
        let ran = attach(&format!("{point}:fail"));
        assert!(
            ran.code == Some(1) && ran.stderr.contains("a test has it fail"),
            "{point}: {ran:?}\n{passed}"
        );
        let left = (records(&hosts), hosts.addresses(&container));
        assert_eq!(left, (0, Vec::new()), "{point}: {ran:?}\n{passed}");
    }
}

#[test]
fn a_detached_container_stays_detached_when_it_is_restarted() {
    let hosts = Engines::new(1, 0);
    let container = hosts.weave_run(0, "10.2.1.1/24");
    let witness = hosts.weave_run(0, "10.2.1.2/24");
    hosts.ok(0, &format!("weave detach 10.2.1.1/24 {}", container.id));
    wait_records(&hosts, 1);
    hosts.ok(0, &format!("docker restart -t 0 {} {}", container.id, witness.id));
    // Both started: when the second is attached, the first was looked at.
    hosts.wait_attached(&witness, &["10.2.1.2/24"]);
    assert_eq!(hosts.addresses(&container), Vec::<String>::new());
}

#[test]
fn an_interface_that_is_deleted_on_the_host_is_made_again_at_once() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let container = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24");
    for _ in 0..2 {
        hosts.ok(0, "ip link del $(ip -o link show master weave | grep -o 'vethw[0-9a-f]*' | head -1)");
        hosts.wait_attached(&container, &["10.2.1.1/24", "10.2.2.1/24"]);
    }
}

#[test]
fn of_containers_that_share_a_namespace_one_that_ends_takes_its_own_addresses_only() {
    let hosts = Engines::new(1, 0);
    let lasting = hosts.weave_run(0, "10.2.1.1/24");
    let ending = hosts.weave_run(0, &format!("10.2.1.2/24 --net container:{}", lasting.id));
    let removed = hosts.weave_run(0, &format!("10.2.1.3/24 --net container:{}", lasting.id));
    hosts.wait_attached(&lasting, &["10.2.1.1/24", "10.2.1.2/24", "10.2.1.3/24"]);
    let interface = || hosts.ok(0, "ip -o link show master weave | grep vethw | cut -d: -f1");
    let before = interface();
    hosts.ok(0, &format!("docker stop -t 0 {}", ending.id));
    hosts.wait_attached(&lasting, &["10.2.1.1/24", "10.2.1.3/24"]);
    hosts.ok(0, &format!("docker rm -f {}", removed.id));
    hosts.wait_attached(&lasting, &["10.2.1.1/24"]);
    wait_records(&hosts, 2);
    hosts.ok(0, &format!("docker start {}", ending.id));
    hosts.wait_attached(&lasting, &["10.2.1.1/24", "10.2.1.2/24"]);
    // Started with another address it gives up its own, and none of others.
    hosts.ok(0, &format!("weave start 10.2.1.4/24 {}", ending.id));
    hosts.wait_attached(&lasting, &["10.2.1.1/24", "10.2.1.4/24"]);
    assert_eq!(interface(), before, "never taken");
}

#[test]
fn a_label_attaches_a_container_without_a_command() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let container = hosts.docker_run(0, "--label weave.cidr='10.2.1.1/24 10.2.2.1/24'");
    hosts.wait_attached(&container, &["10.2.1.1/24", "10.2.2.1/24"]);
    hosts.ok(0, &format!("docker restart -t 0 {}", container.id));
    hosts.wait_attached(&container, &["10.2.1.1/24", "10.2.2.1/24"]);
    hosts.ok(0, &format!("docker rm -f {}", container.id));
    wait_records(&hosts, 0);
}

/// When it returns the keeper has looked at all containers: what attaches the second began after what
/// attached the first was done.
pub fn look_at_all(hosts: &Engines) {
    let witnesses = ["10.2.9.1/24", "10.2.9.2/24"].map(|cidr| {
        let witness = hosts.docker_run(0, &format!("--label weave.cidr={cidr}"));
        hosts.wait_attached(&witness, &[cidr]);
        witness.id
    });
    hosts.ok(0, &format!("docker rm -f {}", witnesses.join(" ")));
    wait_until(
        SOON,
        || hosts.ps(0),
        || witnesses.iter().all(|witness| !hosts.ps(0).contains(&witness[..12])),
    );
}

#[test]
fn long_a_labelled_container_that_was_detached_stays_so_until_it_runs_anew() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let container = hosts.docker_run(0, "--label weave.cidr='10.2.1.1/24 10.2.2.1/24'");
    let labelled = ["10.2.1.1/24", "10.2.2.1/24"];
    let weave = |line: &str| hosts.ok(0, &format!("weave {line} {}", container.id));
    let wait_remembered = |wanted: usize| {
        let remembered = || files(&hosts, "detached");
        wait_until(SOON, || format!("{} and not {wanted}", remembered()), || remembered() == wanted);
    };
    let renew = || {
        hosts.ok(0, "weave keeper --renew");
        look_at_all(&hosts);
    };
    hosts.wait_attached(&container, &labelled);
    // One that did not attach it.
    renew();
    weave("detach 10.2.1.1/24");
    assert_eq!(files(&hosts, "detached"), 0, "it has an address still");
    weave("detach 10.2.2.1/24");
    look_at_all(&hosts);
    assert_eq!(hosts.addresses(&container), Vec::<String>::new());
    renew();
    assert_eq!(hosts.addresses(&container), Vec::<String>::new());
    wait_remembered(1);

    weave("attach 10.2.3.1/24");
    wait_remembered(0);
    renew();
    assert_eq!(hosts.addresses(&container), ["10.2.3.1/24"]);
    weave("detach 10.2.3.1/24");
    hosts.ok(0, &format!("docker restart -t 0 {}", container.id));
    hosts.wait_attached(&container, &labelled);
    wait_remembered(0);
    weave("detach 10.2.1.1/24 10.2.2.1/24");
    hosts.ok(0, &format!("docker stop -t 0 {}", container.id));
    wait_remembered(0);
    hosts.ok(0, &format!("docker start {}", container.id));
    hosts.wait_attached(&container, &labelled);
    // Whichever way it is named.
    let pid = hosts.ok(0, &format!("docker inspect -f '{{{{.State.Pid}}}}' {}", container.id));
    hosts.ok(0, &format!("weave detach 10.2.1.1/24 10.2.2.1/24 pid:{pid}"));
    look_at_all(&hosts);
    assert_eq!(hosts.addresses(&container), Vec::<String>::new());
    // It is gone for good while nobody looks.
    hosts.kill_keeper(0);
    hosts.ok(0, &format!("docker rm -f {}", container.id));
    assert_eq!(files(&hosts, "detached"), 1);
    hosts.ok(0, "weave keeper --renew");
    wait_remembered(0);

    let last = hosts.docker_run(0, "--label weave.cidr=10.2.1.1/24");
    hosts.wait_attached(&last, &["10.2.1.1/24"]);
    hosts.ok(0, &format!("weave detach 10.2.1.1/24 {}", last.id));
    assert_eq!(files(&hosts, "detached"), 1);
    hosts.ok(0, "weave reset");
    assert!(!hosts.world().host(0).state_dir().exists());
}

#[test]
fn a_label_that_is_no_address_harms_nobody_else() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let bad = hosts.docker_run(0, "--label weave.cidr='10.2.1.0/24; reboot'");
    let good = hosts.docker_run(0, "--label weave.cidr=10.2.1.2/24");
    hosts.wait_attached(&good, &["10.2.1.2/24"]);
    assert_eq!(hosts.addresses(&bad), Vec::<String>::new());
}

#[test]
fn a_container_in_the_network_of_the_host_is_refused() {
    let hosts = Engines::new(1, 0);
    let container = hosts.docker_run(0, "--net host --name host");
    for line in ["weave attach 10.2.1.1/24 host", "weave run 10.2.1.1/24 --net host -ti ubuntu"] {
        let ran = hosts.sh(0, line);
        assert_eq!(ran.code, Some(1), "{line}: {}", ran.stdout);
        assert!(ran.stderr.contains("host"), "{line}: {}", ran.stderr);
    }
    assert_eq!(records(&hosts), 0);
    let running = hosts.ok(0, "docker ps -q --no-trunc");
    assert_eq!(running, container.id, "what `weave run` could not attach was taken back");
}

#[test]
fn what_the_engine_refuses_is_said_in_its_words_and_changes_nothing() {
    let hosts = Engines::new(1, 0);
    let ran = hosts.sh(0, "weave run 10.2.1.1/24 --no-such-option -ti ubuntu");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("--no-such-option"), "{}", ran.stderr);
    let ran = hosts.sh(0, "weave attach 10.2.1.1/24 nobody");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("nobody"), "{}", ran.stderr);
    assert_eq!((hosts.ps(0).as_str(), records(&hosts)), ("", 0));
}

#[test]
fn containers_are_named_by_id_prefix_and_name() {
    let hosts = Engines::new(1, 0);
    let container = hosts.docker_run(0, "--name web");
    let short = &container.id[..12];
    assert_eq!(hosts.ok(0, &format!("weave attach 10.2.1.1/24 {}", container.id)), "10.2.1.1");
    assert_eq!(hosts.ok(0, &format!("weave attach 10.2.2.1/24 {short}")), "10.2.2.1");
    assert_eq!(hosts.ok(0, "weave attach 10.2.3.1/24 web"), "10.2.3.1");
    let line = hosts.ps(0);
    assert!(line.starts_with(short) && line.ends_with(" 10.2.1.1/24 10.2.2.1/24 10.2.3.1/24"), "{line}");
    for name in [container.id.as_str(), short, "web"] {
        assert_eq!(hosts.ok(0, &format!("weave ps {name}")), line);
    }
    let inside = Inside { host: 0, id: "web".into() };
    hosts.wait_attached(&inside, &["10.2.1.1/24", "10.2.2.1/24", "10.2.3.1/24"]);
}

#[test]
fn what_is_dockers_passes_through_unchanged() {
    let hosts = Engines::new(1, 0);
    let line = "10.2.1.1/24 -t -e 'A=two words' -h web --name web --label a=10.9.9.9/24 -- ubuntu \
                sh -c 'echo \"$A\" \"$@\"; hostname; sleep 600' 0 10.9.9.9/24 --force -h x -e y --with-dns";
    let container = Inside { host: 0, id: hosts.ok(0, &format!("weave run {line}")) };
    hosts.wait_attached(&container, &["10.2.1.1/24"]);
    let said = || hosts.ok(0, "docker logs web").replace('\r', "");
    let wanted = "two words 10.9.9.9/24 --force -h x -e y --with-dns\nweb";
    weave_tests::wait_until(weave_tests::engines::SOON, said, || said() == wanted);
    assert_eq!(hosts.ok(0, "docker inspect -f '{{.Config.Labels.a}}' web"), "10.9.9.9/24");
}
