//! Lines that an engine's containers make wrong: each says why and changes nothing.

use weave_host::records::read_all;
use weave_tests::Engines;

#[test]
fn wrong_lines_about_containers_say_why_and_change_nothing() {
    let hosts = Engines::new(1, 0);
    hosts.ok(0, "weave launch");
    let web = hosts.weave_run(0, "10.2.1.1/24 --name web");
    hosts.docker_run(0, "--name other");
    hosts.docker_run(0, "--name shared --net host");
    hosts.docker_run(0, "--name ended");
    hosts.ok(0, "docker kill ended");
    hosts.ok(0, "weave expose 10.2.1.101/24");
    // Enough containers for two ids that begin alike: there are sixteen digits.
    hosts.ok(0, "for spare in $(seq 13); do docker create ubuntu; done");
    let ids = hosts.ok(0, "docker ps -aq --no-trunc");
    let mut twice = (b'0'..=b'9').chain(b'a'..=b'f').map(char::from);
    let twice = twice.find(|first| ids.lines().filter(|id| id.starts_with(*first)).count() > 1).unwrap();
    let observed = || {
        let state = hosts.world().host(0).state_dir();
        let look = format!(
            "cd {} && find . -type f | sort | xargs cat; ip -br link | cut -d' ' -f1; ip -br addr show weave; \
             iptables-save | grep -v '^#' | sed 's/\\[.*//'; docker ps -a --format '{{{{.Names}}}} {{{{.State}}}}'; \
             cat /proc/sys/net/ipv4/ip_forward; docker exec other ip -o addr; weave ps",
            state.display()
        );
        hosts.ok(0, &look)
    };
    let before = observed();
    let mut lines = vec![
        // Containers that are not, or do not run, or have no namespace of their own.
        ("weave attach 10.2.1.2/24 nobody".to_owned(), "nobody"),
        ("weave detach 10.2.1.2/24 nobody".to_owned(), "nobody"),
        ("weave start 10.2.1.2/24 nobody".to_owned(), "nobody"),
        ("weave start nobody".to_owned(), "nobody"),
        ("weave start other".to_owned(), "no address is named"),
        ("weave ps nobody".to_owned(), "nobody"),
        ("weave attach 10.2.1.2/24 ended".to_owned(), "ended"),
        ("weave detach 10.2.1.2/24 ended".to_owned(), "ended"),
        ("weave attach 10.2.1.2/24 shared".to_owned(), "network namespace of this host"),
        ("weave detach 10.2.1.2/24 shared".to_owned(), "network namespace of this host"),
        ("weave attach 10.2.1.2/24 web other".to_owned(), "two containers"),
        // Addresses that others have, or that are attached otherwise.
        ("weave attach 10.2.1.1/24 other".to_owned(), "10.2.1.1"),
        ("weave attach 10.2.1.101/24 other".to_owned(), "10.2.1.101"),
        ("weave attach 10.2.9.9/24 10.2.1.1/24 other".to_owned(), "10.2.1.1"),
        ("weave attach 10.2.1.1/16 web".to_owned(), "10.2.1.1/24"),
        ("weave detach 10.2.1.1/16 web".to_owned(), "10.2.1.1/24"),
        ("weave expose 10.2.1.1/24".to_owned(), "10.2.1.1"),
        ("weave expose 172.17.0.1/16".to_owned(), "in use by interface docker0"),
        ("weave attach 172.17.0.1/16 other".to_owned(), "in use by interface docker0"),
        ("weave run 172.17.0.1/16 -t ubuntu".to_owned(), "in use by interface docker0"),
        ("weave run 10.2.1.1/24 -t ubuntu".to_owned(), "in use by container"),
        ("weave run 10.2.1.101/24 -t ubuntu".to_owned(), "by `weave expose`"),
        ("weave run --force 10.2.1.1/24 -t ubuntu".to_owned(), "in use by container"),
        ("weave expose 10.2.1.101/16".to_owned(), "`weave hide 10.2.1.101/24` first"),
        ("weave expose 10.2.3.1/24 10.2.1.1/24".to_owned(), "10.2.1.1"),
        // What the engine refuses, in its own words.
        ("weave run 10.2.1.9/24 no-such-image:none".to_owned(), "no-such-image"),
        ("weave run 10.2.1.9/24 --name web ubuntu".to_owned(), "web"),
        ("weave run 10.2.1.9/24 --no-such-option ubuntu".to_owned(), "--no-such-option"),
        ("weave launch".to_owned(), "already launched"),
        ("DOCKER_HOST=unix:///nowhere weave attach 10.2.1.2/24 other".to_owned(), "unix:///nowhere"),
        ("DOCKER_HOST=unix:///nowhere weave run 10.2.1.2/24 ubuntu".to_owned(), "unix:///nowhere"),
        ("WEAVE_MTU=9 weave attach 10.2.1.2/24 other".to_owned(), "WEAVE_MTU"),
    ];
    lines.push((format!("weave attach 10.2.1.2/24 {twice}"), "more than one"));
    let begin = hosts.ok(0, "date +%s.%N");
    for (line, said) in &lines {
        let ran = hosts.sh(0, line);
        assert!(matches!(ran.code, Some(1 | 2)), "{line}: {ran:?}");
        assert_eq!(ran.stdout, "", "{line}");
        assert!(ran.stderr.contains(said), "{line}: {ran:?}");
    }
    assert_eq!(observed(), before);
    // Not even for a moment: what it runs may change more than can be taken back.
    let started = format!("docker events --since {begin} --until $(date +%s.%N) --filter event=start");
    assert_eq!(hosts.ok(0, &started), "");
    assert!(hosts.reaches(&web, "10.2.1.101"));
}

#[test]
fn long_a_start_with_an_address_in_use_leaves_container_and_record_as_they_were() {
    let hosts = Engines::new(1, 0);
    hosts.ok(0, "weave launch");
    hosts.weave_run(0, "10.2.1.1/24 --name web");
    let kept = hosts.weave_run(0, "10.2.1.2/24 --name kept");
    hosts.docker_run(0, "--name ended");
    hosts.ok(0, "docker kill kept ended");
    hosts.docker_run(0, "--name runs");
    hosts.ok(0, "weave expose 10.2.1.101/24");
    // No record says that this one is in use.
    hosts.ok(0, "ip addr add 10.2.1.7/24 dev weave");
    let observed = || {
        let mut records = read_all(&hosts.world().host(0).state_dir()).unwrap().0;
        records.sort_by_key(|record| record.mac);
        let records: Vec<_> = records.into_iter().map(|one| (one.container, one.mac, one.cidrs)).collect();
        (records, hosts.ok(0, "docker ps -a --format '{{.Names}} {{.State}}'; weave ps"))
    };
    let before = observed();
    for (line, said) in [
        ("weave start 10.2.1.1/24 kept", "10.2.1.1"),
        ("weave start 10.2.1.9/24 10.2.1.1/24 ended", "10.2.1.1"),
        ("weave start 10.2.1.1/24 runs", "10.2.1.1"),
        ("weave start 10.2.1.101/24 kept", "weave expose"),
        // Found after the start.
        ("weave start 10.2.1.7/24 kept", "10.2.1.7"),
        ("weave start 10.2.1.7/24 ended", "10.2.1.7"),
        ("weave start 10.2.1.7/24 runs", "10.2.1.7"),
    ] {
        let ran = hosts.sh(0, line);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{line}: {ran:?}");
        assert!(ran.stderr.contains(said), "{line}: {ran:?}");
        assert_eq!(observed(), before, "{line}");
    }
    hosts.ok(0, "weave start --force 10.2.1.7/24 kept");
    hosts.wait_attached(&kept, &["10.2.1.7/24"]);
    hosts.ok(0, "ip addr add 10.2.1.8/24 dev weave");
    assert_eq!(hosts.sh(0, "weave run 10.2.1.8/24 -t ubuntu").code, Some(1));
    hosts.ok(0, "weave run --force 10.2.1.8/24 -t ubuntu");
}

#[test]
fn long_an_engine_that_stops_answering_holds_no_command() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let web = hosts.weave_run(0, "10.2.1.1/24 --name web");
    hosts.ok(0, "docker kill web");
    // It stops when its command line is called, after it has answered us.
    let tools = hosts.world().host(0).directory().join("stopping");
    std::fs::create_dir(&tools).unwrap();
    let (script, path) = (tools.join("docker"), tools.display());
    let text = "#!/bin/sh\npkill -STOP -x dockerd\nPATH=${PATH#*:} exec docker \"$@\"\n";
    hosts.ok(0, &format!("printf '%s' '{text}' >{0} && chmod +x {0}", script.display()));
    for command in ["start 10.2.1.2/24 web", "run 10.2.1.3/24 -t ubuntu"] {
        let ran = hosts.sh(0, &format!("PATH={path}:$PATH timeout 60 weave {command}"));
        hosts.ok(0, "pkill -CONT -x dockerd");
        assert_eq!(ran.code, Some(1), "{command}: {ran:?}");
        assert!(ran.stderr.contains("stopped answering while `docker` waited for it"), "{ran:?}");
    }
    // What it remembers is what it was.
    hosts.ok(0, "docker kill web; weave start web");
    hosts.wait_attached(&web, &["10.2.1.1/24"]);
}
