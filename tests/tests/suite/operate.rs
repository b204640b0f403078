//! What operators ask a host: `check`, `report`, `log-level`, `status --watch`.

use std::time::Duration;

use serde_json::Value;
use weave_host::ethtool;
use weave_tests::world::{LINK_WITHIN, Options, World, wait_until};

/// What `check` found of things whose name begins with `subject`.
fn found<'a>(findings: &'a [Value], subject: &str) -> Vec<(&'a str, &'a str)> {
    let text = |finding: &'a Value, field: &str| finding[field].as_str().unwrap();
    let of = findings.iter().filter(|finding| text(finding, "subject").starts_with(subject));
    of.map(|finding| (text(finding, "standing"), text(finding, "text"))).collect()
}

fn check(world: &World, host: usize, more: &[&str], code: i32) -> Vec<Value> {
    let ran = world.weave(host, &[&["check", "-o", "json"], more].concat());
    assert_eq!(ran.code, Some(code), "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn check_says_what_keeps_a_network_from_working() {
    let world = World::pair(Options::encrypted().not_attached());
    let switch = |features: &[&str], on| {
        let features: Vec<_> = features.iter().map(|feature| (*feature, on)).collect();
        world.on_host(1, || ethtool::set_features("eth0", &features).unwrap());
    };
    // A pair of virtual interfaces does not join by itself.
    switch(&[ethtool::GRO], true);
    // Of several hosts with no engine: nothing fails.
    let findings = check(&world, 1, &[], 0);
    for subject in ["privileges", "kernel", "tap", "locked memory", "firewall", "router", "links"] {
        let found = found(&findings, subject);
        assert!(
            !found.is_empty() && found.iter().all(|(standing, _)| *standing == "ok"),
            "{subject}: {found:?}"
        );
    }
    let peer = found(&findings, "peer ");
    assert_eq!(peer.len(), 4, "{peer:?}");
    assert!(peer[0].1.contains("answers") && peer[1].1.contains("full frames fit"), "{peer:?}");
    assert!(peer[2].0 == "ok" && peer[2].1.contains("UDP passes both ways"), "{peer:?}");
    assert_eq!(peer[3], ("ok", "the link is established, encrypted"));
    assert_eq!(found(&findings, "interface eth0"), [("ok", "checksums, GSO and GRO are on")]);
    assert_eq!(found(&findings, "engine")[0].0, "warning");

    // The end that was dialled knows the link by another port, and finds it by any name of the peer.
    let [address, name] = [world.underlay(1).to_string(), world.status(1).name.to_string()];
    for peer in [address, name] {
        let findings = check(&world, 0, &[&peer], 0);
        let found = found(&findings, &format!("peer {peer}"));
        assert_eq!(found.last(), Some(&("ok", "the link is established, encrypted")), "{found:?}");
    }

    // A path that is too narrow, and a port where nobody listens.
    world.tool(1, "ip link set eth0 mtu 1400");
    let address = world.underlay(0).to_string();
    let findings = check(&world, 1, &[&address], 0);
    let peer = found(&findings, "peer ");
    assert!(
        peer.iter().any(|(standing, text)| *standing == "warning" && text.contains("carries 1400 bytes"))
    );
    let findings = check(&world, 1, &[&format!("{address}:6999")], 1);
    let (standing, text) = found(&findings, "peer ")[0];
    assert!(standing == "failed" && text.contains("no router listens there"), "{text}");

    // UDP that is turned back, beside TCP that passes; and offloads that are off.
    let listener = world.on_host(0, || std::net::TcpListener::bind((address.as_str(), 6999)).unwrap());
    let udp = |standing: &str, text: &str| {
        let findings = check(&world, 1, &[&format!("{address}:6999")], i32::from(standing == "failed"));
        let peer = found(&findings, "peer ");
        assert!(peer.iter().any(|found| found.0 == standing && found.1.contains(text)), "{peer:?}");
    };
    udp("failed", "UDP port 6999 is refused");
    world.tool(0, "iptables -A INPUT -p udp --dport 6999 -j DROP");
    udp("warning", "nothing turns UDP to port 6999 back");
    drop(listener);
    switch(&[ethtool::GSO, ethtool::GRO], false);
    let findings = check(&world, 1, &[], 0);
    let of = |finding: &&Value| finding["subject"] == "interface eth0";
    let remedies: Vec<_> =
        findings.iter().filter(of).map(|finding| finding["remedy"].as_str().unwrap()).collect();
    assert_eq!(remedies, ["ethtool -K eth0 gso on", "ethtool -K eth0 gro on"]);

    // A router that is gone.
    world.stop(0);
    let ran = world.weave(0, &["check"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("router"), "{ran:?}");
    let line = ran.stdout.lines().skip_while(|line| !line.starts_with("FAILED   router")).nth(1);
    assert_eq!(line.map(str::trim), Some("-> weave launch"));
    let findings = check(&world, 1, &[], 1);
    assert!(found(&findings, "links")[0].1.starts_with("0 established"));
}

#[test]
fn check_looks_at_the_port_of_the_router_that_runs_and_ping_ends_with_its_reader() {
    let world = World::pair(Options::encrypted().not_attached().args("--port 7001"));
    let findings = check(&world, 1, &[], 0);
    let peer = found(&findings, "peer ");
    assert!(peer[0].1.contains("answers") && peer.iter().all(|(standing, _)| *standing == "ok"), "{peer:?}");
    assert_eq!(found(&findings, "clock").len(), 1);

    let name = world.status(0).name.to_string();
    let ping = world.command(1, &["ping", &name, "--count", "100000"]);
    let mut piped = std::process::Command::new("sh");
    piped.args(["-c", "\"$0\" \"$@\" | head -n 1"]).arg(ping.get_program()).args(ping.get_args());
    piped.envs(ping.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = world.run(1, &mut piped);
    assert!(ran.code == Some(0) && ran.stdout.contains(&name), "{ran:?}");
}

#[test]
fn a_report_has_everything_but_secrets_and_needs_no_router() {
    let secrets = [
        "never-in-the-environment",
        "never-in-a-file",
        "never-the-one-before",
        "never-typed",
        "never-an-engines",
    ];
    let [variable, current, previous, typed, of_engine] = secrets;
    let mut options = Options::encrypted()
        .count(1)
        .no_wait()
        .env("WEAVE_PASSWORD", variable)
        .env("WEAVE_LOG_FORMAT", "json")
        .env("DOCKER_HOST", &format!("tcp://me:{of_engine}@127.0.0.1:1"));
    options.hosts[0].password = Some(format!("{current}\n{previous}\n"));
    let world = World::new(options);
    let report = || -> Value {
        let text = world.weave(0, &["report"]).ok().stdout;
        secrets.iter().for_each(|secret| assert!(!text.contains(secret), "{secret}"));
        serde_json::from_str(&text).unwrap()
    };
    let whole = report();
    assert_eq!(whole["version"], 1);
    assert_eq!(whole["status"]["nickname"].as_str(), Some(world.status(0).nickname.as_str()));
    // What is asked first.
    let text = |part: &Value| part.as_str().unwrap_or_else(|| panic!("{}", whole["missing"])).to_owned();
    assert!(text(&whole["firewall"]).contains("iptables-save filter WEAVE-FORWARD"), "{}", whole["firewall"]);
    assert!(text(&whole["metrics"]).contains("\nweave_peers 1\n"), "{}", whole["metrics"]);
    let network = &whole["network"];
    assert!(text(&network["ip -details address"]).contains("weave-tap"), "{network}");
    assert!(text(&network["ip route show table all"]).contains("127.0.0.1 dev lo"), "{network}");
    assert!(text(&network["ip rule"]).contains("lookup main"), "{network}");
    assert_eq!(whole["attachments"][0]["mac"].as_str(), Some(world.mac(0).to_string().as_str()));
    assert!(whole["checks"].as_array().unwrap().len() > 5 && whole["host"]["cores"].as_u64() > Some(0));
    // A log is JSON line by line. The keeper's says that there is no engine.
    let has_log = || !report()["logs"]["keeper.log"].as_str().unwrap().is_empty();
    wait_until(LINK_WITHIN, || "the keeper logs something".into(), has_log);
    let whole = report();
    let log = whole["logs"]["keeper.log"].as_str().unwrap();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.iter().any(|line| line["level"] == "INFO"), "{log}");

    world.stop(0);
    let rest = report();
    let missing = rest["missing"][0].as_str().unwrap();
    assert!(rest["status"].is_null() && missing.contains("no router runs here"), "{missing}");
    assert_eq!(rest["attachments"], whole["attachments"]);
    let has_no = |what: &str| {
        rest["missing"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().starts_with(what))
    };
    assert!(
        has_no("metrics: ") && rest["metrics"].is_null() && rest["firewall"] == whole["firewall"],
        "{rest}"
    );

    world.run(0, &mut world.launch_command(0, None, &["--password", typed])).ok();
    assert_eq!(report()["status"]["encrypted"], true);
}

#[test]
fn the_log_level_changes_live() {
    let world = World::pair(Options::encrypted().not_attached());
    let has_debug = || world.log(0).contains("DEBUG");
    assert!(!has_debug());
    world.weave(0, &["log-level", "debug"]).ok();
    // A dial is said at this level.
    world.weave(0, &["connect", "10.99.0.77"]).ok();
    wait_until(LINK_WITHIN, || world.log(0), has_debug);
    world.weave(0, &["log-level", "error"]).ok();
    let lines = || world.log(0).matches("DEBUG").count();
    let before = lines();
    world.weave(0, &["connect", "10.99.0.78"]).ok();
    // The dial is over, or on its way.
    let dialled = || {
        let links = world.status(0).connections;
        links.iter().any(|link| link.address.to_string().contains("10.99.0.78"))
    };
    wait_until(LINK_WITHIN, || world.connections(&[0]), dialled);
    assert_eq!(lines(), before, "{}", world.log(0));
    let ran = world.weave(0, &["log-level", "loud"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("none of error, warn, info, debug, trace"), "{ran:?}");
}

/// A terminal of 80 by 24 in which `weave status --watch` runs on host 0.
struct Terminal<'a> {
    world: &'a World,
    directory: tempfile::TempDir,
}

impl<'a> Terminal<'a> {
    fn new(world: &'a World) -> Self {
        let terminal = Self { world, directory: tempfile::tempdir().unwrap() };
        let mut tmux =
            terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-s", "watch"]);
        tmux.arg(weave_tests::world::weave()).args(["status", "--watch"]);
        world.run(0, &mut tmux).ok();
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.world.host(0).command("tmux");
        command.arg("-S").arg(self.directory.path().join("tmux")).args(arguments);
        command.env("TERM", "xterm");
        command
    }

    fn is_there(&self) -> bool {
        self.world.run(0, &mut self.tmux(&["has-session"])).code == Some(0)
    }

    fn screen(&self) -> String {
        self.world.run(0, &mut self.tmux(&["capture-pane", "-p"])).stdout
    }

    fn wait_for(&self, limit: Duration, text: &str) {
        wait_until(limit, || format!("{text:?} in {}", self.screen()), || self.screen().contains(text));
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.world.run(0, &mut self.tmux(&["kill-server"]));
    }
}

#[test]
fn the_live_view_shows_links_and_ends_with_a_key() {
    let world = World::pair(Options::encrypted().not_attached());
    let terminal = Terminal::new(&world);
    terminal.wait_for(LINK_WITHIN, "links 1 of 1");
    let screen = terminal.screen();
    assert!(screen.contains("established") && screen.contains("encrypted"), "{screen}");
    assert!(
        screen.lines().count() <= 24 && screen.lines().all(|line| line.chars().count() <= 80),
        "{screen}"
    );
    world.run(0, &mut terminal.tmux(&["send-keys", "s"])).ok();
    terminal.wait_for(LINK_WITHIN, "by round trip");
    // The router may end and come back meanwhile.
    world.stop(0);
    terminal.wait_for(LINK_WITHIN, "NO ANSWER");
    world.launch_to(0, &[1]);
    wait_until(LINK_WITHIN, || terminal.screen(), || !terminal.screen().contains("NO ANSWER"));
    world.run(0, &mut terminal.tmux(&["send-keys", "q"])).ok();
    wait_until(LINK_WITHIN, || "the session ends".into(), || !terminal.is_there());
    // Without a terminal there is nothing to draw on.
    let ran = world.weave(0, &["status", "--watch"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("is no terminal"), "{ran:?}");
}
