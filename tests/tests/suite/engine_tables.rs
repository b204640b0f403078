//! The rules by each program that changes the kernel's tables: what they do, not how they look.

use weave_tests::engines::SOON;
use weave_tests::{Engines, wait_until};

/// The program that `iptables` is a link to.
const IPTABLES: &str = "$(readlink -f $(command -v iptables))";

/// A host is exposed and a container answers to others through it; by masquerading, since it has no
/// other way. Then the rules are flushed.
fn passes_and_comes_back(hosts: &Engines, flush: &str) {
    hosts.launch();
    hosts.weave_run(0, "10.2.1.1/24 --net none");
    let plain = hosts.docker_run(0, "");
    hosts.ok(0, "weave expose 10.2.1.101/24");
    hosts.ok(1, "ip route add 10.2.1.0/24 via $HOST1");
    let passes = || hosts.sh(1, "timeout 0.3 ping -c 1 -W 1 -q 10.2.1.1").code == Some(0);
    assert!(passes(), "{}", traces(hosts));
    assert!(!hosts.reaches(&plain, "10.2.1.1"), "the bridge of the engine reaches the network");
    hosts.ok(0, flush);
    wait_until(SOON, || format!("nothing passes after {flush}: {}", traces(hosts)), passes);
    assert!(!hosts.reaches(&plain, "10.2.1.1"), "it does after the flush");
    hosts.ok(0, "weave hide 10.2.1.101/24");
    assert!(!passes(), "{}", traces(hosts));
    hosts.ok(0, "weave reset");
    assert_eq!(traces(hosts), "");
}

/// Rules of ours, of whatever kind.
fn traces(hosts: &Engines) -> String {
    hosts.sh(0, "{ nft list ruleset; iptables-legacy-save; ip6tables-legacy-save; } | grep -i weave").stdout
}

#[test]
fn by_iptables_over_nftables() {
    passes_and_comes_back(&Engines::new(1, 1), "iptables -F; iptables -t nat -F");
}

#[test]
fn by_iptables_of_old() {
    let mut hosts = Engines::new(1, 1);
    hosts.kill_engine(0);
    hosts.ok(0, "nft flush ruleset");
    hosts.ok(0, &format!("mount --bind $(readlink -f $(command -v iptables-legacy)) {IPTABLES}"));
    hosts.start_engine(0);
    assert!(hosts.ok(0, "iptables-legacy -S").contains("DOCKER-USER"), "the engine uses them too");
    passes_and_comes_back(&hosts, "iptables -F; iptables -t nat -F");
}

#[test]
fn rules_of_iptables_of_old_go_when_the_host_turns_to_the_newer_kind() {
    let mut hosts = Engines::new(1, 0);
    hosts.kill_engine(0);
    hosts.ok(0, "nft flush ruleset");
    hosts.ok(0, &format!("mount --bind $(readlink -f $(command -v iptables-legacy)) {IPTABLES}"));
    hosts.ok(0, "weave launch && weave expose 10.2.1.101/24 fd00:2::101/64");
    let of_old = || hosts.sh(0, "{ iptables-legacy-save; ip6tables-legacy-save; } | grep WEAVE").stdout;
    assert!(!of_old().is_empty());
    hosts.ok(0, &format!("umount -l {IPTABLES}"));
    // The keeper may be the first to see it.
    hosts.ok(0, "weave expose 10.2.2.101/24");
    assert_eq!(of_old(), "");
    assert!(hosts.ok(0, "iptables -S; ip6tables -S").contains("-A WEAVE-FORWARD"));
    // And what is left of it when the host is reset right after it turned.
    hosts.ok(0, &format!("mount --bind $(readlink -f $(command -v iptables-legacy)) {IPTABLES}"));
    hosts.ok(0, "weave expose 10.2.3.101/24");
    assert!(!of_old().is_empty());
    hosts.ok(0, &format!("umount -l {IPTABLES}"));
    hosts.ok(0, "weave reset");
    assert_eq!(traces(&hosts), "");
}

#[test]
fn by_nft_alone() {
    let hosts = Engines::new(1, 1);
    hosts.ok(0, "nft flush ruleset");
    // Not executable: not there.
    hosts.ok(0, &format!("touch /run/nothing && mount --bind /run/nothing {IPTABLES}"));
    passes_and_comes_back(&hosts, "nft flush ruleset");
}
