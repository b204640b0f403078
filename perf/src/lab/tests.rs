#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weave_host::attach::{AttachOptions, attach};
use weave_host::{Netlink, PidFd, ethtool};

use super::*;

mod underlays;

const LIMIT: Duration = Duration::from_secs(10);

fn reaches(from: &Host, to: &Host, address: IpAddr) {
    let listener = to.run(|| TcpListener::bind(SocketAddr::new(address, 0)).unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    let connected = from.run(|| TcpStream::connect_timeout(&target, LIMIT).unwrap()).unwrap();
    assert_eq!(connected.peer_addr().unwrap(), target);
}

#[test]
fn two_hosts_reach_each_other_by_both_families() {
    let lab = Lab::pair().unwrap();
    let [one, other] = lab.hosts() else { panic!("not two") };
    reaches(one, other, other.v4().into());
    reaches(other, one, one.v6().into());
}

#[test]
fn more_hosts_reach_each_other_through_a_switch() {
    let lab = Lab::new(&LabOptions { hosts: 4, ..LabOptions::default() }).unwrap();
    for (from, to) in [(0, 3), (3, 1), (2, 0)] {
        reaches(lab.host(from), lab.host(to), lab.host(to).v4().into());
        reaches(lab.host(from), lab.host(to), lab.host(to).v6().into());
    }
}

#[test]
fn a_lone_host_and_a_number_out_of_range() {
    let lab = Lab::new(&LabOptions { hosts: 1, ..LabOptions::default() }).unwrap();
    assert_eq!(lab.hosts().len(), 1);
    for hosts in [0, HOSTS_MAX + 1] {
        assert!(matches!(Lab::new(&LabOptions { hosts, ..LabOptions::default() }), Err(Error::Hosts { .. })));
    }
}

#[test]
fn the_underlay_is_as_ordered() {
    let underlay = Underlay { mtu: 9000, segmentation: false, gro: true };
    for hosts in [2, 3] {
        let lab = Lab::new(&LabOptions { hosts, underlay, ..LabOptions::default() }).unwrap();
        for host in lab.hosts() {
            let (link, features) = host
                .run(|| {
                    let link = Netlink::open().unwrap().expect_link(UNDERLAY).unwrap();
                    (link, ethtool::features(UNDERLAY).unwrap())
                })
                .unwrap();
            assert_eq!(link.mtu, 9000);
            for feature in [ethtool::TSO4, ethtool::TSO6, ethtool::USO, ethtool::GSO] {
                assert!(!features[feature], "{feature}");
            }
            assert!(features[ethtool::GRO]);
        }
    }
}

#[test]
fn programs_run_in_the_host_with_its_directories() {
    let lab = Lab::pair().unwrap();
    let host = lab.host(1);
    let mut command = host.command("sh");
    command.args([
        "-c",
        "echo $WEAVE_RUN_DIR $WEAVE_STATE_DIR $WEAVE_PASSWORD; readlink /proc/self/ns/net >&2; exit 3",
    ]);
    let output = host.output(&mut command, LIMIT).unwrap();
    assert_eq!(output.status.code(), Some(3));
    let expected = format!("{} {}\n", host.run_dir().display(), host.state_dir().display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let inode = format!("net:[{}]\n", host.namespace().id().inode);
    assert_eq!(String::from_utf8_lossy(&output.stderr), inode);
    assert!(host.run_dir().is_dir() && host.state_dir().is_dir());
}

#[test]
fn a_program_that_hangs_is_killed_in_time() {
    let lab = Lab::pair().unwrap();
    let host = lab.host(0);
    let start = Instant::now();
    let error = host.output(host.command("sleep").arg("60"), Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(start.elapsed() < LIMIT);
    let error = host.output(&mut host.command("/no/such/program"), LIMIT).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

#[test]
fn output_does_not_wait_for_a_daemon_that_kept_it_open() {
    let lab = Lab::pair().unwrap();
    let host = lab.host(0);
    let mut command = host.command("sh");
    command.args(["-c", "sleep 60 & echo started"]);
    let start = Instant::now();
    let output = host.output(&mut command, LIMIT).unwrap();
    assert_eq!(output.stdout, b"started\n");
    assert!(start.elapsed() < LIMIT);
    assert_eq!(lab.processes().len(), 1);
}

#[test]
fn a_process_is_signalled_awaited_and_killed_on_drop() {
    let lab = Lab::pair().unwrap();
    let host = lab.host(0);
    let mut process = host.spawn(host.command("sleep").arg("60")).unwrap();
    assert!(process.status().unwrap().is_none());
    process.signal(Signal::SIGTERM).unwrap();
    assert!(!process.wait(LIMIT).unwrap().success());
    process.signal(Signal::SIGTERM).unwrap();
    let process = host.spawn(host.command("sleep").arg("60")).unwrap();
    let held = PidFd::open(process.pid()).unwrap().unwrap();
    drop(process);
    assert!(!held.is_alive());
}

#[test]
fn nothing_of_a_lab_is_left_when_it_goes() {
    let lab = Lab::new(&LabOptions { named: true, ..LabOptions::default() }).unwrap();
    let container = lab.container("c").unwrap();
    let mut process = lab.host(0).spawn(lab.host(0).command("sleep").arg("60")).unwrap();
    // A daemon: nobody holds it.
    let mut daemon = lab.host(1).command("setsid");
    daemon.args(["sh", "-c", "sleep 60 & sleep 60"]);
    std::mem::forget(lab.host(1).spawn(&mut daemon).unwrap());
    while lab.processes().len() < 4 {
        std::thread::yield_now();
    }
    let held: Vec<PidFd> = lab.processes().iter().map(|pid| PidFd::open(*pid).unwrap().unwrap()).collect();
    let name = container.spec().strip_prefix("netns:").unwrap().to_owned();
    let file = Path::new(weave_host::namespace::NAMED_DIR).join(name);
    assert!(file.exists());
    let directory = lab.directory().to_owned();
    drop(lab);
    assert!(held.iter().all(|process| !process.is_alive()));
    assert!(!process.wait(LIMIT).unwrap().success());
    assert!(!directory.exists());
    assert!(!file.exists());
}

#[test]
fn the_number_of_a_container_is_not_anothers_while_its_lab_is_there() {
    // The kernel gives a number again that was freed, the lowest first.
    let lab = Lab::pair().unwrap();
    let container = lab.container("c").unwrap();
    let id = container.namespace().id();
    drop(container);
    let mut others = Vec::new();
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        others.push(Namespace::create("other").unwrap());
        assert!(others.last().unwrap().id() != id, "given again after {} others", others.len());
    }
}

#[test]
fn containers_are_found_by_the_name_they_are_given_to_others() {
    for named in [false, true] {
        let lab = Lab::new(&LabOptions { named, ..LabOptions::default() }).unwrap();
        let container = lab.container("c").unwrap();
        let found = Namespace::open(&container.spec().parse().unwrap()).unwrap();
        assert_eq!(found.id(), container.namespace().id());
        let mut command = lab.host(0).command("readlink");
        command.arg("-f").arg(container.spec().trim_start_matches("netns:"));
        assert!(lab.host(0).output(&mut command, LIMIT).unwrap().status.success());
    }
}

#[test]
fn containers_of_a_host_are_joined_by_its_bridge() {
    let lab = Lab::pair().unwrap();
    let containers = [lab.container("a").unwrap(), lab.container("b").unwrap()];
    for (container, address) in containers.iter().zip(["10.2.1.1/24", "10.2.1.2/24"]) {
        lab.host(0)
            .run(|| {
                let mut netlink = Netlink::open().unwrap();
                let list = [address.parse().unwrap()];
                attach(&mut netlink, container.namespace(), &list, &AttachOptions::default()).unwrap();
            })
            .unwrap();
    }
    let [a, b] = &containers;
    let listener = b.run(|| TcpListener::bind("10.2.1.2:0").unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    drop(a.run(|| TcpStream::connect_timeout(&target, LIMIT).unwrap()).unwrap());
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(accepted.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn the_timing_of_gro_is_set_in_the_host_alone() {
    let underlay = Underlay { segmentation: false, gro: true, ..Underlay::default() };
    let lab = Lab::new(&LabOptions { underlay, ..LabOptions::default() }).unwrap();
    let host = lab.host(1);
    host.set_gro_timing(UNDERLAY, Duration::from_millis(2), 20).unwrap();
    // Read through a /sys that was mounted in that namespace by somebody else.
    let mut command = host.command("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount -t sysfs sysfs /sys && cat /sys/class/net/eth0/gro_flush_timeout",
    ]);
    let output = host.output(&mut command, LIMIT).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2000000\n");
    assert!(host.set_gro_timing("none", Duration::ZERO, 0).is_err());
}
