//! The router under a service manager (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;
use weave_tests::{Options, World};

/// Time for a router to start on a busy machine, and for anything it says.
const SAID_WITHIN: Duration = Duration::from_secs(20);
/// Time it has to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// After which a router that is silent would be taken for dead.
const WATCHDOG: Duration = Duration::from_secs(3);

#[test]
fn a_service_manager_is_told_that_the_router_is_ready_and_again_and_again_that_it_works() {
    let world = World::new(Options::clear().bare(1));
    let host = world.host(0);
    let path = host.directory().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SAID_WITHIN)).unwrap();
    let said = || {
        let mut text = [0; 512];
        let len = manager.recv(&mut text).expect("the router says nothing");
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    let mut command = world.command(0, &["router", "--no-dns"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let mut router = host.spawn(&mut command).unwrap();
    // The control core may be asked before the host is set up.
    let mut words: Vec<String> = Vec::new();
    while !words.iter().any(|word| word.trim() == "READY=1") {
        words.push(said());
    }
    assert!(words.iter().all(|word| ["READY=1", "WATCHDOG=1"].contains(&word.trim())), "{words:?}");
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    for _ in 0..3 {
        assert_eq!(said().trim(), "WATCHDOG=1");
    }
    router.signal(Signal::SIGTERM).unwrap();
    assert!(router.wait(ENDS_WITHIN).unwrap().success());
}
