//! Names of containers with real engines: they come, go and come back with their containers.

use std::time::Duration;

use weave_tests::engines::{Inside, SOON};
use weave_tests::{DNSUTILS, Engines, wait_until};

/// Time for a name to be on every host.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Hosts with a mesh and names; those of the first can be asked from `c1` there.
fn hosts(count: usize) -> (Engines, Inside) {
    // A second one at least, for a network that the first has its address on.
    let hosts = Engines::new(count, usize::from(count == 1));
    hosts.launch();
    hosts.import_dnsutils(0);
    let id = hosts.ok(0, &format!("weave run --with-dns 10.2.9.1/24 -t --name c1 {DNSUTILS} /bin/sh"));
    (hosts, Inside { host: 0, id })
}

/// What a name stands for, sorted.
fn found(hosts: &Engines, asker: &Inside, name: &str) -> String {
    hosts.inside(asker, &format!("dig +short {name} | sort | tr '\\n' ' '")).stdout.trim_end().to_owned()
}

#[track_caller]
fn wait_found(hosts: &Engines, asker: &Inside, name: &str, addresses: &str, limit: Duration) {
    wait_until(
        limit,
        || format!("{name} stands for {:?} and not {addresses:?}", found(hosts, asker, name)),
        || found(hosts, asker, name) == addresses,
    );
}

#[test]
fn names_go_and_come_back_with_their_containers() {
    let (hosts, c1) = hosts(2);
    hosts.ok(1, "weave run 10.2.9.2/24 -t -h web.weave.local --name web ubuntu");
    hosts.ok(1, "weave run 10.2.9.3/24 -t --name plain ubuntu");
    hosts
        .ok(1, "docker run -d -t --label weave.cidr=10.2.9.4/24 --label weave.dns=db,sql.weave.local ubuntu");
    let names = [("web", "10.2.9.2"), ("plain", "10.2.9.3"), ("db", "10.2.9.4"), ("sql", "10.2.9.4")];
    let wait_for_all = |there: bool| {
        for (name, address) in names {
            let address = if there { address } else { "" };
            wait_found(&hosts, &c1, &format!("{name}.weave.local"), address, SOON);
        }
    };
    wait_for_all(true);
    hosts.ok(1, "docker kill $(docker ps -q)");
    wait_for_all(false);
    hosts.ok(1, "docker start $(docker ps -a -q)");
    wait_for_all(true);
    hosts.ok(1, "docker rename plain renamed");
    wait_found(&hosts, &c1, "renamed.weave.local", "10.2.9.3", TOLD_WITHIN);
    assert_eq!(found(&hosts, &c1, "plain.weave.local"), "");
    hosts.ok(1, "docker rm -f web");
    wait_found(&hosts, &c1, "web.weave.local", "", TOLD_WITHIN);
    let status = || hosts.ok(1, "weave status");
    assert_eq!(status().matches("web.weave.local").count(), 0);
    assert!(!status().contains("bad_label"), "{}", status());
    // Words of a label that give no name are said, by whoever attaches it; the others count.
    let label = "--label weave.dns=good,bad.example.com";
    let bad = hosts.ok(1, &format!("docker run -d -t --label weave.cidr=10.2.9.5/24 {label} ubuntu"));
    let why = "bad.example.com is not in the domain weave.local";
    wait_until(SOON, status, || status().contains("bad_label") && status().contains(why));
    wait_found(&hosts, &c1, "good.weave.local", "10.2.9.5", SOON);
    hosts.ok(1, &format!("docker rm -f {bad}"));
    wait_until(SOON, status, || !status().contains("bad_label"));
    let ran = hosts.sh(1, &format!("weave run 10.2.9.6/24 -t {label} ubuntu"));
    assert!(ran.code == Some(0) && ran.stderr.contains(why), "{ran:?}");
}

#[test]
fn long_names_are_given_and_taken_by_hand() {
    let (hosts, c1) = hosts(1);
    hosts.ok(0, "weave run 10.2.9.2/24 10.2.8.2/24 -t --name web ubuntu");
    let is = |name: &str, addresses: &str| {
        wait_found(&hosts, &c1, &format!("{name}.weave.local"), addresses, SOON);
    };
    is("web", "10.2.8.2 10.2.9.2");
    hosts.ok(0, "weave dns-add web -h Alias.weave.local.");
    is("alias", "10.2.8.2 10.2.9.2");
    hosts.ok(0, "weave dns-add 10.2.9.2 web -h one.weave.local -h other.weave.local");
    is("one", "10.2.9.2");
    is("other", "10.2.9.2");
    hosts.ok(0, "weave dns-remove 10.2.8.2 web -h alias.weave.local");
    is("alias", "10.2.9.2");
    hosts.ok(0, "weave dns-remove web");
    for name in ["web", "alias", "one", "other"] {
        is(name, "");
    }
    hosts.ok(0, "weave dns-add web");
    is("web", "10.2.8.2 10.2.9.2");
    hosts.ok(0, "weave dns-add 192.0.2.1 192.0.2.2 -h out.weave.local");
    is("out", "192.0.2.1 192.0.2.2");
    assert_eq!(hosts.ok(0, "weave dns-lookup OUT | sort | tr '\\n' ' '"), "192.0.2.1 192.0.2.2");
    hosts.ok(0, "weave dns-remove 192.0.2.1 -h out.weave.local");
    is("out", "192.0.2.2");
    hosts.ok(0, "weave expose 10.2.9.100/24 -h me.weave.local");
    is("me", "10.2.9.100");
    hosts.ok(0, "weave dns-remove 10.2.9.9 -h me.weave.local");
    is("me", "10.2.9.100");
    hosts.ok(0, "weave dns-remove 10.2.9.100 -h me.weave.local");
    is("me", "");
    hosts.ok(0, "weave expose 10.2.9.100/24 -h me.weave.local");
    is("me", "10.2.9.100");
    hosts.ok(0, "weave expose 10.2.9.100/24 -h myself.weave.local -h host.weave.local");
    for name in ["me", "myself", "host"] {
        is(name, "10.2.9.100");
    }
    hosts.ok(0, "weave hide 10.2.9.100/24");
    for name in ["me", "myself", "host"] {
        is(name, "");
    }
    for (line, why) in [
        ("weave dns-add web -h web.elsewhere", "not in the domain"),
        ("weave dns-add web -h a-.weave.local", "a-.weave.local"),
        (&format!("weave dns-add web -h {}.weave.local", "x".repeat(64)), "host name"),
        ("weave dns-add web c1 -h a.weave.local", "two containers"),
        ("weave dns-add nobody -h a.weave.local", "nobody"),
        ("weave dns-lookup nobody", "nobody has the name"),
    ] {
        let ran = hosts.sh(0, line);
        assert_ne!(ran.code, Some(0), "{line}");
        assert!(ran.stderr.contains(why), "{line}: {}", ran.stderr);
    }
    // No label of a name is that long: the container runs without one.
    let long = format!("weave run 10.2.9.5/24 -t --name {} ubuntu", "x".repeat(65));
    hosts.ok(0, &long);
}

#[test]
fn bare_names_are_found_by_the_programs_of_a_container() {
    let (hosts, c1) = hosts(1);
    hosts.ok(0, "weave run 10.2.9.2/24 -t --name web ubuntu");
    for line in [
        "getent hosts web",
        "getent ahosts WEB.weave.local",
        "ping -c 1 -W 2 web",
        "nslookup web.weave.local",
        // Of musl, as in images of Alpine.
        "resolve web",
        "resolve WEB.weave.local",
    ] {
        let ran = hosts.inside(&c1, line);
        assert!(ran.code == Some(0) && ran.stdout.contains("10.2.9.2"), "{line}: {ran:?}");
    }
    assert!(hosts.inside(&c1, "getent hosts 10.2.9.2").stdout.contains("web.weave.local"));
    assert_eq!(hosts.inside(&c1, "resolve -x 10.2.9.2").stdout, "web.weave.local\n");
    // One without addresses of the other family, and none at all.
    assert_eq!(hosts.inside(&c1, "resolve web").stdout, "10.2.9.2\n");
    for line in ["resolve nobody", "getent hosts nobody", "ping -c 1 -W 2 nobody"] {
        assert_ne!(hosts.inside(&c1, line).code, Some(0), "{line}");
    }
    hosts.ok(0, "docker exec web sh -c 'mkdir /www && echo hello >/www/index.html && httpd -p 80 -h /www'");
    for line in ["curl -sS -m 5 http://web/", "curl -sS -m 5 http://WEB.weave.local/"] {
        let ran = hosts.inside(&c1, line);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "hello\n"), "{line}: {ran:?}");
    }
    // Also where the host closes what it does not name, as ufw does.
    hosts.ok(0, "iptables -A INPUT -i lo -j ACCEPT; iptables -P INPUT DROP");
    for line in ["dig +tcp +short web.weave.local", "dig +notcp +short web.weave.local"] {
        let ran = hosts.inside(&c1, line);
        assert!(ran.stdout.contains("10.2.9.2"), "{line}: {ran:?}");
    }
    hosts.ok(0, "iptables -P INPUT ACCEPT");
    let search = |container: &Inside| {
        let text = hosts.inside(container, "cat /etc/resolv.conf").stdout;
        assert!(text.contains("nameserver 172.17.0.1"), "{text}");
        let domains = text.lines().find_map(|line| line.strip_prefix("search "));
        domains.unwrap_or_default().to_owned()
    };
    assert_eq!(search(&c1), "weave.local");
    // The container's own domain first, but behind those that the user names.
    let run = |line: &str| Inside { host: 0, id: hosts.ok(0, &format!("weave run --with-dns {line}")) };
    let own = run("10.2.9.3/24 -t -h db.shop.weave.local ubuntu");
    assert_eq!(search(&own), "shop.weave.local weave.local");
    let explicit = run("10.2.9.4/24 -t --dns-search example.com ubuntu sh -c 'sleep 60' -h no.example.net");
    assert!(search(&explicit).starts_with("example.com weave.local"), "{}", search(&explicit));
}

#[test]
fn long_names_of_containers_that_ended_stay_where_nobody_watches_and_live_as_long_as_is_said() {
    let (hosts, c1) = hosts(1);
    hosts.ok(0, "weave launch-dns --watch=false --ttl 77");
    hosts.ok(0, "weave run 10.2.9.2/24 -t --name web ubuntu");
    wait_found(&hosts, &c1, "web.weave.local", "10.2.9.2", SOON);
    let answer = hosts.inside(&c1, "dig +noall +answer web.weave.local").stdout;
    assert_eq!(answer.split_whitespace().nth(1), Some("77"), "{answer}");
    let gone = || hosts.ok(0, "weave ps").contains("10.2.9.2");
    hosts.ok(0, "docker kill web");
    wait_until(SOON, || hosts.ok(0, "weave ps"), || !gone());
    assert_eq!(found(&hosts, &c1, "web.weave.local"), "10.2.9.2");
    hosts.ok(0, "weave launch-dns");
    wait_found(&hosts, &c1, "web.weave.local", "", SOON);
}

#[test]
fn long_the_dns_runs_on_without_a_router_and_is_started_again() {
    let (hosts, c1) = hosts(2);
    hosts.ok(1, "weave run 10.2.9.2/24 -t --name web ubuntu");
    wait_found(&hosts, &c1, "web.weave.local", "10.2.9.2", TOLD_WITHIN);
    hosts.kill_router(0);
    assert_eq!(found(&hosts, &c1, "web.weave.local"), "10.2.9.2");
    let said = || hosts.sh(0, "weave status");
    wait_until(SOON, || format!("{:?}", said()), || said().stdout.contains("Router: lost "));
    let ran = said();
    assert!(ran.code == Some(1) && ran.stderr.contains("no router runs"), "{ran:?}");
    hosts.ok(0, "weave run 10.2.9.3/24 -t --name local ubuntu");
    wait_found(&hosts, &c1, "local.weave.local", "10.2.9.3", SOON);
    hosts.ok(0, "weave launch $HOST2");
    assert_eq!(found(&hosts, &c1, "web.weave.local"), "10.2.9.2");
    let pid = |file: &str| hosts.ok(0, &format!("cat {}/{file}", hosts.world().host(0).run_dir().display()));
    let before = pid("dns.pid");
    hosts.ok(0, &format!("kill -9 {before}"));
    wait_found(&hosts, &c1, "web.weave.local", "10.2.9.2", TOLD_WITHIN);
    assert_ne!(pid("dns.pid"), before);
    // In any order the same.
    let status = || {
        let shown = hosts.ok(0, "weave status");
        let of_dns = shown.lines().skip_while(|line| !line.contains("Service: dns")).take(4);
        // Its process is another each time.
        of_dns.filter(|line| !line.contains("Version: ")).collect::<Vec<_>>().join("\n")
    };
    let shown = status();
    assert!(shown.contains("weave.local.") && shown.contains("172.17.0.1:53"), "{shown}");
    let before = pid("dns.pid");
    hosts.ok(0, "weave launch-dns");
    hosts.ok(0, "weave launch-dns");
    assert_eq!(pid("dns.pid"), before);
    hosts.ok(0, "weave stop");
    assert_ne!(hosts.sh(0, &format!("kill -0 {before}")).code, Some(0));
    hosts.ok(0, "weave launch-dns");
    hosts.ok(0, "weave launch");
    assert_eq!(status(), shown);
    hosts.ok(0, "weave stop --keep-dns");
    assert_eq!(found(&hosts, &c1, "local.weave.local"), "10.2.9.3");
    hosts.ok(0, "weave stop-dns");
    let ran = hosts.inside(&c1, "dig +time=1 +tries=1 +short local.weave.local");
    assert!(!ran.stdout.contains("10.2.9.3"), "{ran:?}");
}

#[test]
fn the_dns_is_no_resolver_of_strangers_and_has_no_privileges() {
    let (hosts, _c1) = hosts(2);
    // From the underlay, by the address of the engine's bridge.
    hosts.ok(1, "ip addr del 172.17.0.1/16 dev docker0 && ip route replace 172.17.0.1 via $HOST1");
    let dig = |server: &str| hosts.sh(1, &format!("dig +time=1 +tries=1 @{server} c1.weave.local")).stdout;
    assert!(dig("172.17.0.1").contains("REFUSED"), "{}", dig("172.17.0.1"));
    assert!(!dig("$HOST1").contains("status:"), "{}", dig("$HOST1"));
    // By TCP neither, nor for names of others.
    for question in ["+tcp c1.weave.local", "example.com", "+tcp example.com", "-x 10.2.9.1"] {
        let line = format!("dig +time=1 +tries=1 @172.17.0.1 {question}");
        let said = hosts.sh(1, &line).stdout;
        // Connections of strangers are closed at once.
        let refused =
            said.contains("REFUSED") || question.starts_with("+tcp") && said.contains("communications error");
        assert!(refused && !said.contains("NOERROR"), "{question}: {said}");
    }
    let status = hosts
        .ok(0, &format!("cat /proc/$(cat {}/dns.pid)/status", hosts.world().host(0).run_dir().display()));
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "CapEff:\t0000000000000400",
        "CapPrm:\t0000000000000400",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
}

#[test]
fn long_names_of_three_hosts_survive_five_rounds_of_killing_all_containers() {
    let (hosts, c1) = hosts(3);
    let name = |host: usize, number: usize| (format!("n{host}{number}"), format!("10.2.9.{host}{number}"));
    let all: Vec<(usize, (String, String))> =
        (0..3).flat_map(|host| (1..4).map(move |number| (host, name(host + 1, number)))).collect();
    for (host, (name, address)) in &all {
        hosts.ok(*host, &format!("weave run {address}/24 -t --name {name} ubuntu"));
    }
    for _ in 0..5 {
        for (_, (name, address)) in &all {
            wait_found(&hosts, &c1, &format!("{name}.weave.local"), address, TOLD_WITHIN);
        }
        for host in 0..3 {
            hosts.ok(host, "docker kill $(docker ps -q --filter name=^n)");
        }
        for (_, (name, _)) in &all {
            wait_found(&hosts, &c1, &format!("{name}.weave.local"), "", TOLD_WITHIN);
        }
        for host in 0..3 {
            hosts.ok(host, "docker start $(docker ps -a -q --filter name=^n)");
        }
    }
    // An address that goes from container to container has the name of the one that lives.
    for (host, name) in [(0, "one"), (1, "two"), (2, "three")] {
        hosts.ok(host, &format!("weave run 10.2.9.200/24 -t --name {name} ubuntu"));
        let backwards = || hosts.inside(&c1, "dig +short -x 10.2.9.200").stdout.trim().to_owned();
        wait_until(TOLD_WITHIN, backwards, || backwards() == format!("{name}.weave.local."));
        hosts.ok(host, &format!("docker rm -f {name}"));
        wait_until(TOLD_WITHIN, backwards, || backwards().is_empty());
    }
}
