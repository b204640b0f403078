//! Podman, by its socket that speaks as Docker's does.

use std::time::Duration;

use weave_tests::engines::SOON;
use weave_tests::{DNSUTILS, Engines, wait_until};

use crate::engine_records::look_at_all;

/// Time for a name to be on every host, or gone there.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn containers_of_podman_are_run_attached_detached_and_listed() {
    let hosts = Engines::podman(2);
    hosts.launch();
    let one = hosts.weave_run(0, "10.2.1.1/24 --name one");
    assert_eq!(one.id.len(), 64, "{}", one.id);
    let two = hosts.docker_run(1, "--name two");
    assert_eq!(hosts.ok(1, "weave attach 10.2.1.2/24 fd00:2::2/64 two"), "10.2.1.2 fd00:2::2");
    hosts.wait_reaches(&one, "10.2.1.2", SOON);
    let line = hosts.ps(1);
    assert!(line.starts_with(&two.id[..12]) && line.ends_with("10.2.1.2/24 fd00:2::2/64"), "{line}");
    // By name, by id and by its beginning.
    for name in ["two", &two.id, &two.id[..6]] {
        assert_eq!(hosts.ok(1, &format!("weave ps {name}")), line);
    }
    hosts.ok(1, &format!("weave detach 10.2.1.2/24 {}", &two.id[..12]));
    assert_eq!(hosts.addresses(&two), ["fd00:2::2/64"]);
    hosts.ok(1, "weave detach fd00:2::2/64 two");
    assert_eq!(hosts.ps(1), "");
    // What Podman refuses is refused in its words.
    let ran = hosts.sh(1, "weave run 10.2.1.3/24 --name two ubuntu");
    assert!(ran.code == Some(1) && ran.stderr.contains("two"), "{ran:?}");
    let ran = hosts.sh(1, "weave attach 10.2.1.3/24 nobody");
    assert!(ran.code == Some(1) && ran.stderr.contains("nobody"), "{ran:?}");
}

#[test]
fn long_containers_of_podman_stay_attached() {
    let mut hosts = Engines::podman(1);
    hosts.launch();
    let typed = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24 --name typed");
    let labelled = hosts.docker_run(0, "--name labelled --label weave.cidr=10.2.1.2/24");
    hosts.wait_attached(&labelled, &["10.2.1.2/24"]);
    for name in ["typed", "labelled"] {
        hosts.ok(0, &format!("docker restart -t 0 {name}"));
    }
    hosts.wait_attached(&typed, &["10.2.1.1/24", "10.2.2.1/24"]);
    hosts.wait_attached(&labelled, &["10.2.1.2/24"]);
    hosts.wait_reaches(&typed, "10.2.1.2", SOON);
    // Containers live on without the service; what starts after it came back is attached.
    hosts.kill_engine(0);
    hosts.start_engine(0);
    assert_eq!(hosts.addresses(&typed), ["10.2.1.1/24", "10.2.2.1/24"]);
    hosts.ok(0, "docker stop -t 0 typed");
    hosts.ok(0, "weave start typed");
    hosts.wait_attached(&typed, &["10.2.1.1/24", "10.2.2.1/24"]);
    hosts.ok(0, "docker rm -f typed");
    let records = hosts.world().host(0).state_dir().join("attachments");
    let count = || std::fs::read_dir(&records).map_or(0, Iterator::count);
    wait_until(SOON, || format!("{} records", count()), || count() == 1);
    // What was detached stays so until the container runs anew.
    hosts.ok(0, "weave detach 10.2.1.2/24 labelled");
    hosts.ok(0, "weave keeper --renew");
    hosts.ok(0, "docker pause labelled");
    look_at_all(&hosts);
    hosts.ok(0, "docker unpause labelled");
    look_at_all(&hosts);
    assert_eq!(hosts.addresses(&labelled), Vec::<String>::new());
    hosts.ok(0, "docker restart -t 0 labelled");
    hosts.wait_attached(&labelled, &["10.2.1.2/24"]);
}

#[test]
fn long_containers_of_podman_have_names_while_they_live() {
    let hosts = Engines::podman(2);
    hosts.launch();
    // The first container makes Podman's bridge: this one asks the DNS on an address of its own.
    hosts.ok(0, "weave launch-dns 10.2.1.254/24");
    hosts.import_dnsutils(0);
    let asker = hosts.weave_run_image(0, "--with-dns 10.2.1.9/24 --name asker", DNSUTILS);
    hosts.weave_run(1, "10.2.1.1/24 --name plain");
    hosts.weave_run(1, "10.2.1.2/24 -h web.weave.local --name other");
    hosts
        .docker_run(1, "--name labelled --label weave.cidr=10.2.1.3/24 --label weave.dns=db,sql.weave.local");
    let found = |name: &str| hosts.inside(&asker, &format!("dig +short {name}.weave.local")).stdout;
    let wait_for = |name: &str, address: &str| {
        wait_until(
            TOLD_WITHIN,
            || format!("{name} stands for {:?} and not {address:?}", found(name)),
            || found(name).trim_end() == address,
        );
    };
    let names = [("plain", "10.2.1.1"), ("web", "10.2.1.2"), ("db", "10.2.1.3"), ("sql", "10.2.1.3")];
    let wait_for_all = |there: bool| {
        for (name, address) in names {
            wait_for(name, if there { address } else { "" });
        }
    };
    wait_for_all(true);
    assert_eq!(found("other"), "", "a host name in the domain is the name");
    for (line, expected) in [
        ("getent hosts plain", "10.2.1.1"),
        ("resolve web", "10.2.1.2"),
        ("ping -c 1 -W 2 db", "10.2.1.3"),
        ("dig +short -x 10.2.1.2", "web.weave.local."),
    ] {
        let ran = hosts.inside(&asker, line);
        assert!(ran.code == Some(0) && ran.stdout.contains(expected), "{line}: {ran:?}");
    }
    // Later ones ask it on the bridge.
    hosts.import_dnsutils(1);
    let other = hosts.weave_run_image(1, "--with-dns 10.2.2.9/24", DNSUTILS);
    let resolved = || hosts.inside(&other, "resolve asker").stdout;
    wait_until(TOLD_WITHIN, resolved, || resolved() == "10.2.1.9\n");
    hosts.ok(1, "docker kill plain other labelled");
    let begin = std::time::Instant::now();
    wait_for_all(false);
    eprintln!("gone after {:?}", begin.elapsed());
    hosts.ok(1, "docker start plain other labelled");
    wait_for_all(true);
    hosts.ok(1, "docker rm -f other");
    wait_for("web", "");
    hosts.ok(1, "docker rm -f labelled");
    wait_for("db", "");
}
