//! A user without privileges becomes root of a world of its own. The kernel
//! wants a process of one thread for that, so this test has no harness; it
//! starts itself again in other roles. Needs root, to become somebody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use weave_host::attach::{AttachOptions, attach};
use weave_host::tap::{self, Offloads, TAP};
use weave_host::{Namespace, Netlink, bridge, named, unprivileged};

const NOBODY: u32 = 65534;
const NOTHING: Option<&str> = None;

/// Name and role of each test.
const TESTS: [(&str, &str); 2] =
    [("a_user_gets_a_world_of_its_own", "with-tun"), ("a_closed_tun_device_is_named", "without-tun")];

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("with-tun") => be_nobody(0o666, "inside"),
        Some("without-tun") => be_nobody(0o600, "refused"),
        Some("inside") => inside(),
        Some("refused") => refused(),
        // The arguments of a test runner, or none.
        Some(_) | None => run_tests(&std::env::args().skip(1).collect::<Vec<_>>()),
    }
}

/// What of the usual harness' command line test runners use: `--list`,
/// `--ignored` (there is none), and names of tests to run.
fn run_tests(arguments: &[String]) {
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if asked("--ignored") {
        return;
    }
    let names: Vec<_> =
        arguments.iter().filter(|argument| TESTS.iter().any(|(name, _)| name == argument)).collect();
    for (name, role) in
        TESTS.iter().filter(|(name, _)| names.is_empty() || names.iter().any(|asked| asked == name))
    {
        if asked("--list") {
            println!("{name}: test");
            continue;
        }
        assert!(Command::new(own()).arg(role).status().unwrap().success(), "{name} failed");
        println!("test {name} ... ok");
    }
}

fn own() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

/// Takes on a role as a user without privileges, on a machine whose tun device has this mode.
fn be_nobody(tun_mode: u32, role: &str) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING).unwrap();
    mount(Some("tmpfs"), "/dev/net", Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).unwrap();
    let mode = Mode::from_bits_truncate(tun_mode);
    mknod("/dev/net/tun", SFlag::S_IFCHR, mode, makedev(10, 200)).unwrap();
    nix::sys::stat::fchmodat(
        nix::fcntl::AT_FDCWD,
        "/dev/net/tun",
        mode,
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )
    .unwrap();
    // The program may lie where only root may read.
    std::fs::copy(own(), "/dev/net/test").unwrap();
    let status = Command::new("/dev/net/test").arg(role).uid(NOBODY).gid(NOBODY).status().unwrap();
    assert!(status.success());
}

fn inside() {
    assert!(!unprivileged::is_privileged());
    unprivileged::enter().unwrap();
    assert!(unprivileged::is_privileged());
    let host = Namespace::create("host").unwrap();
    let container = named::create("c").unwrap();
    host.run(|| {
        let mut netlink = Netlink::open().unwrap();
        bridge::ensure(&mut netlink, 1376).unwrap();
        let tap = tap::open_queues(&mut netlink, TAP, 2, 1376, Offloads::default()).unwrap();
        assert!(tap.features.tso && tap.features.uso);
        let list = ["10.2.1.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()];
        let wait = Some(weave_host::attach::PROBE_WAIT);
        let options = AttachOptions { probe: wait, ..AttachOptions::default() };
        assert_eq!(attach(&mut netlink, &container, &list, &options).unwrap().added, list);
    })
    .unwrap();
    named::remove("c").unwrap();
}

fn refused() {
    let error = unprivileged::enter().unwrap_err().to_string();
    assert!(error.contains("/dev/net/tun") && error.contains("chmod 666"), "{error}");
    assert!(!unprivileged::is_privileged());
}
