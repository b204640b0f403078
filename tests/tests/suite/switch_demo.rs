//! `weave demo` as a newcomer runs it, with and without root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weave_tests::world::weave;

/// The limit that the demonstration has.
const WITHIN: Duration = Duration::from_secs(20);

/// A user without rights, on a machine where udev has opened /dev/net/tun to all; the program is not
/// on the mount of the root directory, and nobody else in its mount namespace.
const UNPRIVILEGED: &str = "mount --bind \"$PWD\" \"$PWD\" && mount -t tmpfs -o mode=755 tmpfs /dev/net && \
    mknod -m 666 /dev/net/tun c 10 200 && \
    exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" demo";
/// The same where the device is root's own.
const SHUT: &str = "mount -t tmpfs -o mode=755 tmpfs /dev/net && \
    mknod -m 600 /dev/net/tun c 10 200 && \
    exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" demo";
/// A user without rights, whose demonstration is told to end once the routers run.
const INTERRUPTED: &str =
    "mount -t tmpfs -o mode=755 tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 || exit
    : >shown; setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" demo >shown &
    while kill -0 $! && ! grep -q '^ *hosts ' shown; do sleep 0.05; done
    kill -TERM $!; wait $!; code=$?; cat shown; exit $code";

struct Shown {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

/// Runs `script` with a copy of `weave` that everybody may run; nothing of it stays.
fn run(script: &str) -> Shown {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("weave");
    fs::copy(weave(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let temporary = directory.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777)).unwrap();
    let begin = Instant::now();
    // `timeout` kills what hangs, `unshare` keeps the mounts to this test.
    let output = Command::new("timeout")
        .args(["60", "unshare", "--mount", "sh", "-c", script])
        .arg(&program)
        .env("TMPDIR", &temporary)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let took = begin.elapsed();
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "files stay");
    assert_eq!(processes_of(&program), Vec::<String>::new(), "processes stay");
    Shown {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        took,
    }
}

fn processes_of(program: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let runs_it = |path: &Path| {
        fs::read_link(path.join("exe"))
            .is_ok_and(|exe| exe.to_string_lossy().starts_with(&*program.to_string_lossy()))
    };
    entries.filter(|path| runs_it(path)).map(|path| path.display().to_string()).collect()
}

fn is_complete(shown: &Shown) {
    assert_eq!(shown.code, Some(0), "{}{}", shown.stdout, shown.stderr);
    for part in [
        "established and encrypted",
        "ping IPv4",
        "ping IPv6",
        "Gbit/s",
        "s per GB",
        "p99",
        "delivered",
        "removed",
    ] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    assert!(shown.took < WITHIN, "{:?}", shown.took);
}

#[test]
fn alone_as_root_in_under_20_seconds() {
    let shown = run("exec \"$0\" demo");
    is_complete(&shown);
    assert_eq!(shown.stderr, "");
}

#[test]
fn long_three_hosts_show_a_relay_and_a_change_of_routes() {
    let shown = run("exec \"$0\" demo --hosts 3");
    assert_eq!(shown.code, Some(0), "{}{}", shown.stdout, shown.stderr);
    for part in ["by way of host1: 2 links, encrypted", "direct link", "re-route", "removed"] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    let direct = shown.stdout.lines().find(|line| line.contains("direct link")).unwrap();
    assert!(!direct.contains("none for"), "the change-over costs no ping: {direct}");
}

#[test]
fn alone_without_root_where_the_tun_device_is_open_to_all() {
    let shown = run(UNPRIVILEGED);
    is_complete(&shown);
    assert!(shown.stdout.contains("without root: one shard each"), "{}", shown.stdout);
}

#[test]
fn without_root_an_interrupted_demonstration_leaves_nothing() {
    let shown = run(INTERRUPTED);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(128 + 15), ""), "{}", shown.stdout);
}

#[test]
fn without_root_where_the_tun_device_is_shut_it_says_so() {
    let shown = run(SHUT);
    assert_eq!(shown.code, Some(1), "{}{}", shown.stdout, shown.stderr);
    assert!(shown.stderr.contains("/dev/net/tun") && shown.stderr.contains("chmod 666"), "{}", shown.stderr);
    assert_eq!(shown.stderr.trim_end().lines().count(), 1, "{}", shown.stderr);
}

#[test]
fn without_root_where_user_namespaces_are_forbidden_it_says_so() {
    // Root of a user namespace that may have none below it, without capabilities.
    let script = "mount -t tmpfs -o mode=755 tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && \
        exec unshare --user --map-root-user sh -c 'echo 0 > /proc/sys/user/max_user_namespaces && \
        exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" demo' \"$0\"";
    let shown = run(script);
    assert_eq!(shown.code, Some(1), "{}{}", shown.stdout, shown.stderr);
    assert!(shown.stderr.contains("max_user_namespaces"), "{}", shown.stderr);
    assert_eq!(shown.stderr.trim_end().lines().count(), 1, "{}", shown.stderr);
}
