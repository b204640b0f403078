//! What the integration scripts of the original at its version 0.10.0 check (its `test` folder),
//! their lines run on two hosts with engines: 100 (cross hosts), 110 (encryption), 400 (local).

use weave_tests::Engines;

/// Addresses of the containers in the scripts.
const C1: &str = "10.2.1.4";
const C2: &str = "10.2.1.7";

/// As the scripts call it: `weave_on HOST …` is run on that host by the engine's TCP port.
struct Script {
    hosts: Engines,
}

impl Script {
    fn new() -> Self {
        let hosts = Engines::new(2, 0);
        let script = Self { hosts };
        for host in [0, 1] {
            // Nothing runs yet: `|| true` in the scripts.
            script.hosts.sh(host, "weave stop");
            script.hosts.sh(host, "weave stop-dns");
            script.hosts.sh(host, &format!("docker -H tcp://$HOST{}:2375 rm -f c1 c2", host + 1));
        }
        script
    }

    /// `weave_on $HOSTn …`.
    #[track_caller]
    fn weave_on(&self, host: usize, line: &str) {
        let number = host + 1;
        self.hosts.ok(host, &format!("DOCKER_HOST=tcp://$HOST{number}:2375 weave {line}"));
    }

    /// Two containers on two hosts, and four pings from one to the other.
    #[track_caller]
    fn ping_across(&self) {
        self.weave_on(1, &format!("run {C2}/24 -t --name=c2 ubuntu"));
        self.weave_on(0, &format!("run {C1}/24 -t --name=c1 ubuntu"));
        // From the other host, as the machine that ran the scripts was neither of them.
        let exec = "docker -H tcp://$HOST1:2375 exec c1";
        let ok = self.hosts.ok(1, &format!("{exec} sh -c 'ping -q -c 4 {C2} >&2 && echo ok'"));
        assert_eq!(ok, "ok");
    }
}

#[test]
fn script_100_ping_over_cross_host_weave_network() {
    let script = Script::new();
    script.weave_on(0, "launch");
    script.weave_on(1, "launch $HOST1");
    script.ping_across();
}

#[test]
fn script_110_ping_over_encrypted_cross_host_weave_network() {
    let script = Script::new();
    script.weave_on(0, "launch -password notverysecure");
    script.weave_on(1, "launch -password notverysecure $HOST1");
    script.ping_across();
    let connections = script.hosts.ok(1, "weave status connections");
    assert!(connections.contains("established encrypted"), "{connections}");
}

#[test]
fn script_400_run_weave_with_local() {
    // A second one, for a network that the first has its address on.
    let hosts = Engines::new(1, 1);
    hosts.ok(0, "weave --local reset");
    hosts.ok(0, "weave --local launch");
    // Its line `docker ps | grep weave` has no counterpart: no container of ours runs.
    hosts.sh(0, "docker rm -f c1");
    hosts.ok(0, "weave --local run 10.2.6.5/24 -ti --name=c1 ubuntu");
    let exec = "docker -H tcp://$HOST1:2375 exec c1";
    assert_ne!(hosts.ok(0, &format!("{exec} sh -c 'ifconfig | grep ethwe'")), "");
    hosts.ok(0, "docker rm -f c1");
}
