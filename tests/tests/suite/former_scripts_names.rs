//! What the integration scripts of the original at its version 0.10.0 check of names (its `test`
//! folder), their lines run on hosts with engines: 200 (one host), 210 (two hosts), 220 (custom
//! domain), 300 (other names), 500 (several addresses).

use weave_tests::{DNSUTILS, Engines};

/// As the scripts call it: `weave_on HOST …` is run on that host by the engine's TCP port.
struct Script {
    hosts: Engines,
}

impl Script {
    fn new(hosts: usize) -> Self {
        // A second one, for a network that the first has its address on.
        let hosts = Engines::new(hosts, 2 - hosts);
        let script = Self { hosts };
        for host in 0..script.hosts.with_engine() {
            // Nothing runs yet: `|| true` in the scripts.
            script.hosts.sh(host, "weave stop");
            script.hosts.sh(host, "weave stop-dns");
            script.hosts.sh(host, &format!("docker -H tcp://$HOST{}:2375 rm -f c1 c2", host + 1));
        }
        script.hosts.import_dnsutils(0);
        script
    }

    /// `weave_on $HOSTn …`.
    #[track_caller]
    fn weave_on(&self, host: usize, line: &str) -> String {
        self.hosts.ok(host, &format!("DOCKER_HOST=tcp://$HOST{}:2375 weave {line}", host + 1))
    }

    /// What `c1` is told by `dig +short …`.
    #[track_caller]
    fn dig(&self, line: &str) -> String {
        self.hosts.ok(0, &format!("docker -H tcp://$HOST1:2375 exec c1 sh -c 'dig +short {line}'"))
    }

    /// A resolver of the first host, with the records that the scripts ask the world for.
    #[track_caller]
    fn resolver(&self) -> weave_perf::lab::Process {
        self.hosts.ok(0, "echo nameserver 127.0.0.1 >/run/resolv.conf");
        self.hosts.ok(0, "mount --bind /run/resolv.conf /etc/resolv.conf");
        let log = std::fs::File::create(self.hosts.world().host(0).directory().join("dnsmasq.log")).unwrap();
        let line = "exec dnsmasq -k -C /dev/null -R -h --listen-address=127.0.0.1 --bind-interfaces \
            --mx-host=weave.works,mail.weave.works --ptr-record=8.8.8.8.in-addr.arpa,dns.google";
        self.hosts.spawn(0, line, log)
    }
}

#[test]
fn script_200_resolve_names_on_a_single_host() {
    const C1: &str = "10.2.0.78";
    const C2: &str = "10.2.0.34";
    let script = Script::new(1);
    script.weave_on(0, "launch-dns 10.2.254.1/24");
    script.weave_on(0, &format!("run {C2}/24 -t --name=c2 -h seetwo.weave.local ubuntu"));
    script.weave_on(0, &format!("run --with-dns {C1}/24 -t --name=c1 {DNSUTILS} /bin/sh"));
    assert_eq!(script.dig("seetwo.weave.local"), C2);
    assert_eq!(script.dig(&format!("-x {C2}")), "seetwo.weave.local.");
}

#[test]
fn script_210_resolve_names_across_hosts() {
    const C1: &str = "10.2.3.78";
    const C2: &str = "10.2.3.34";
    let script = Script::new(2);
    let _resolver = script.resolver();
    script.weave_on(0, "launch");
    script.weave_on(1, "launch $HOST1");
    script.weave_on(0, "launch-dns 10.2.254.1/24 -debug");
    script.weave_on(1, "launch-dns 10.2.254.2/24 -debug");
    script.weave_on(1, &format!("run {C2}/24 -t --name=c2 -h seetwo.weave.local ubuntu"));
    script.weave_on(0, &format!("run --with-dns {C1}/24 --name=c1 -t {DNSUTILS} /bin/sh"));
    assert_eq!(script.dig("seetwo.weave.local"), C2);
    assert_eq!(script.dig(&format!("-x {C2}")), "seetwo.weave.local.");
    assert_ne!(script.dig("-x 8.8.8.8"), "");
}

#[test]
fn script_220_resolve_names_in_custom_domain() {
    const C1: &str = "10.2.56.34";
    const C2: &str = "10.2.54.91";
    let script = Script::new(1);
    script.weave_on(0, "launch-dns 10.2.254.1/24 --domain foo.bar.");
    script.weave_on(0, &format!("run {C2}/24 -t --name=c2 -h seetwo.foo.bar ubuntu"));
    script.weave_on(0, &format!("run --with-dns {C1}/24 -t --name=c1 {DNSUTILS} /bin/sh"));
    assert_eq!(script.dig("seetwo.foo.bar."), C2);
    assert_eq!(script.dig(&format!("-x {C2}")), "seetwo.foo.bar.");
}

#[test]
fn script_300_resolve_a_non_weave_address() {
    let script = Script::new(1);
    let _resolver = script.resolver();
    script.weave_on(0, "launch-dns 10.2.254.1/24 -debug");
    script.weave_on(0, &format!("run --with-dns 10.2.1.5/24 --name=c1 -t {DNSUTILS} /bin/sh"));
    assert_ne!(script.dig("-t MX weave.works"), "");
    assert_ne!(script.dig("-x 8.8.8.8"), "");
}

#[test]
fn script_500_run_start_attach_detach_with_multiple_cidr_arguments() {
    let script = Script::new(1);
    script.weave_on(0, "launch");
    script.weave_on(0, "launch-dns 10.254.254.254/24");
    let run = "run 10.2.1.1/24 10.2.2.1/24 10.2.3.1/24 -t --name multicidr -h multicidr.weave.local ubuntu";
    let id = script.weave_on(0, run)[..12].to_owned();
    let has_cidrs = |cidrs: &str| {
        script.weave_on(0, &format!("ps | grep \"^{id} [^ ]* {cidrs}$\""));
    };
    let has_records = |addresses: &[&str]| {
        let status = script.weave_on(0, "status");
        let own: Vec<&str> = status.lines().filter(|line| line.starts_with(&id)).collect();
        assert_eq!(own.len(), addresses.len(), "{status}");
        for address in addresses {
            let line = format!("{id} {address} multicidr.weave.local.");
            assert!(own.contains(&line.as_str()), "{line:?} is missing: {status}");
        }
    };
    has_cidrs("10.2.1.1/24 10.2.2.1/24 10.2.3.1/24");
    has_records(&["10.2.1.1", "10.2.2.1", "10.2.3.1"]);
    // Remove two of them.
    script.weave_on(0, &format!("detach 10.2.1.1/24 10.2.3.1/24 {id}"));
    has_cidrs("10.2.2.1/24");
    has_records(&["10.2.2.1"]);
    // Put them both back.
    script.weave_on(0, &format!("attach 10.2.1.1/24 10.2.3.1/24 {id}"));
    has_cidrs("10.2.2.1/24 10.2.1.1/24 10.2.3.1/24");
    has_records(&["10.2.2.1", "10.2.1.1", "10.2.3.1"]);
    // Stop the container, restart with three addresses.
    script.hosts.ok(0, &format!("docker -H tcp://$HOST1:2375 stop -t 0 {id}"));
    script.weave_on(0, &format!("start 10.2.1.1/24 10.2.2.1/24 10.2.3.1/24 {id}"));
    has_cidrs("10.2.1.1/24 10.2.2.1/24 10.2.3.1/24");
    has_records(&["10.2.1.1", "10.2.2.1", "10.2.3.1"]);
    // Expose some, hide some.
    let bridge_cidrs = |wanted: &str| {
        let line = "ip addr show dev weave | grep -o 'inet .*' | cut -d ' ' -f 2 | tr '\\n' ' '";
        assert_eq!(script.hosts.ok(0, line).trim_end(), wanted);
    };
    script.weave_on(0, "expose 10.2.1.2/24 10.2.2.2/24 10.2.3.2/24");
    bridge_cidrs("10.2.1.2/24 10.2.2.2/24 10.2.3.2/24");
    script.weave_on(0, "hide 10.2.1.2/24 10.2.3.2/24");
    bridge_cidrs("10.2.2.2/24");
}
