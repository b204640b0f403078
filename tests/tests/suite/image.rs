//! The container image on Docker engines, by the run line of `docs/tasks.md`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use weave_tests::Engines;
use weave_tests::world::{LINK_WITHIN, PASSWORD, Ran, wait_until, weave};

const TASKS: &str = include_str!("../../../docs/tasks.md");
/// What is written for a service, and not for one try.
const SERVICE: &str = "-d --name weave --restart unless-stopped";
const UNLIMITED: &str = "--ulimit memlock=-1";
/// Time a frame has to get through once the link stands.
const REACHES_WITHIN: Duration = Duration::from_secs(5);
/// Denies what newer engines deny by default.
const NO_IO_URING: &str = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
    {"names":["io_uring_setup","io_uring_enter","io_uring_register"],"action":"SCMP_ACT_ERRNO"}]}"#;

/// Hosts with the image, and with the password where the run line has it.
#[track_caller]
fn with_image(count: usize) -> Engines {
    let hosts = Engines::new(count, 0);
    let archive = hosts.world().lab().directory().join("weave.tar");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/packaging/image");
    let made = Command::new(script).arg(weave()).arg(&archive).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for index in 0..count {
        hosts.ok(index, &format!("docker load -q -i {}", archive.display()));
        let directory = hosts.world().host(index).directory().join("etc-weave");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("password"), PASSWORD).unwrap();
        hosts.ok(index, &format!("chmod 600 {}/password", directory.display()));
    }
    hosts
}

/// The same as far as this machine allows: its engines may not be able to raise their own limit.
fn unlimited() -> String {
    let (_, most) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
    if most == RLIM_INFINITY { UNLIMITED.into() } else { format!("--ulimit memlock={most}") }
}

/// The run line for a host and its peers, with the directories of that host.
fn run_line(hosts: &Engines, index: usize, peers: &str) -> String {
    let start = TASKS.find("docker run -d --name weave").unwrap();
    let line = TASKS[start..].split("\nhost1#").next().unwrap().replace("\\\n", " ");
    let host = hosts.world().host(index);
    let at = |path: std::path::PathBuf| path.display().to_string();
    assert!(line.ends_with(" host2"), "{line}");
    line.trim_end_matches("host2")
        .replace("/etc/weave:/", &format!("{}:/", at(host.directory().join("etc-weave"))))
        .replace("/var/lib/weave:/", &format!("{}:/", at(host.state_dir())))
        .replace("/run/weave:/", &format!("{}:/", at(host.run_dir())))
        .replace(UNLIMITED, &unlimited())
        + peers
}

#[test]
fn routers_in_containers_link_and_carry_frames() {
    let hosts = with_image(2);
    hosts.ok(0, &run_line(&hosts, 0, ""));
    hosts.ok(1, &run_line(&hosts, 1, "$HOST1"));
    hosts.world().wait_linked(0, 1, LINK_WITHIN);
    let blue = hosts.docker_run(0, "--name blue");
    let green = hosts.docker_run(1, "--name green");
    hosts.ok(0, "docker exec weave weave attach 10.2.1.1/24 blue");
    hosts.ok(1, "docker exec weave weave attach 10.2.1.2/24 green");
    hosts.wait_reaches(&blue, "10.2.1.2", REACHES_WITHIN);
    hosts.ok(0, "docker exec weave weave check");
    // The programs for the firewall are there and work.
    hosts.ok(0, "docker exec weave weave expose 10.2.1.102/24");
    hosts.wait_reaches(&green, "10.2.1.102", REACHES_WITHIN);
    assert!(hosts.ok(0, "iptables-save").contains("WEAVE"));
    // The state is on the host: another container goes on with it.
    let name = hosts.world().status(0).name;
    hosts.ok(0, "docker rm -f weave");
    hosts.ok(0, &run_line(&hosts, 0, ""));
    hosts.world().wait_linked(0, 1, LINK_WITHIN);
    assert_eq!(hosts.world().status(0).name, name);
    hosts.wait_reaches(&blue, "10.2.1.2", REACHES_WITHIN);
}

#[test]
fn long_a_run_line_without_a_piece_is_told_which() {
    let hosts = with_image(1);
    let line = run_line(&hosts, 0, "").replace(SERVICE, "--rm");
    let profile = hosts.world().host(0).directory().join("seccomp.json");
    std::fs::write(&profile, NO_IO_URING).unwrap();
    let profile = format!("seccomp={}", profile.display());
    let (unlimited, small) = (unlimited(), "--ulimit memlock=65536");
    let cases = [
        ("seccomp=unconfined", profile.as_str(), "--security-opt seccomp=unconfined"),
        ("--cap-add NET_ADMIN", "", "--cap-add NET_ADMIN"),
        ("--cap-add SYS_ADMIN", "", "--cap-add SYS_ADMIN"),
        ("--cap-add SYS_PTRACE", "", "--cap-add SYS_PTRACE"),
        // Older engines allow the device to who can make its node.
        ("--device /dev/net/tun", "--cap-drop MKNOD", "--device /dev/net/tun"),
        ("--security-opt systempaths=unconfined", "", "--security-opt systempaths=unconfined"),
        (unlimited.as_str(), small, UNLIMITED),
    ];
    for (piece, instead, named) in cases {
        assert!(line.contains(piece), "{piece}");
        let Ran { code, stderr, .. } = hosts.sh(0, &line.replace(piece, instead));
        assert!(code == Some(1) && stderr.contains(named), "without {piece}: {code:?} {stderr}");
        for (_, _, other) in cases.iter().filter(|(_, _, other)| *other != named) {
            assert!(!stderr.contains(other), "without {piece}: {stderr}");
        }
    }
    // Without these a router works, apart from the host: it says so and goes on.
    let line = run_line(&hosts, 0, "").replace(SERVICE, "-d --name apart");
    for piece in ["--network host", "--pid host"] {
        hosts.ok(0, &line.replace(piece, ""));
        let said = || {
            let Ran { stdout, stderr, .. } = hosts.sh(0, "docker logs apart");
            stdout + &stderr
        };
        wait_until(LINK_WITHIN, || format!("without {piece}: {}", said()), || said().contains(piece));
        for (_, _, other) in cases {
            assert!(!said().contains(other), "without {piece}: {}", said());
        }
        hosts.ok(0, "docker rm -f apart");
    }
}
