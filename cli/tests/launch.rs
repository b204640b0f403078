//! The life of a router as commands see it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::{Ran, World};
use rustix::process::{Pid, Signal, kill_process};
use weave_api::{Client, Status};

const PASSWORD: &str = "correct horse battery staple";

fn weave(world: &World, arguments: &[&str]) -> Ran {
    world.run(&mut world.weave(arguments.iter().copied()))
}

fn done(world: &World, arguments: &[&str]) -> String {
    let ran = weave(world, arguments);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}: {ran:?}");
    ran.stdout
}

fn status(world: &World) -> Status {
    Client::connect(&world.run_dir(), Duration::from_secs(5)).unwrap().status().unwrap()
}

/// Whether the process has ended; its parent may not have noticed yet.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Ends the router whatever becomes of the test.
struct Stop<'a>(&'a World);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let ran = weave(self.0, &["stop"]);
        if !std::thread::panicking() {
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
    }
}

#[test]
fn launch_returns_when_the_router_is_ready_and_stop_when_it_is_gone() {
    let world = World::new();
    let _stop = Stop(&world);
    assert_eq!(
        done(&world, &["launch", "-password", PASSWORD, "-nickname", "here", "--port", "7000", "host2"]),
        ""
    );
    let status = status(&world);
    assert_eq!((status.nickname.as_str(), status.port, status.encrypted), ("here", 7000, true));
    assert_eq!(status.targets.len(), 1);
    assert!(done(&world, &["status"]).contains("(here)"));
    let json: Status = serde_json::from_str(&done(&world, &["status", "-o", "json"])).unwrap();
    assert_eq!(json.pid, status.pid);

    let ran = weave(&world, &["launch", "-password", PASSWORD]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("already launched") && ran.stderr.contains(&status.pid.to_string()),
        "{ran:?}"
    );

    done(&world, &["stop"]);
    assert!(is_gone(status.pid));
    assert_eq!(weave(&world, &["status"]).code, Some(1));
}

#[test]
fn the_password_is_in_no_argument_variable_or_log_of_the_router() {
    let world = World::new();
    let _stop = Stop(&world);
    std::fs::write(world.path("secret"), format!("{PASSWORD}\n")).unwrap();
    std::fs::set_permissions(world.path("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    for arguments in [
        &["launch", "-password", PASSWORD, "-debug"][..],
        &["launch", &format!("--password={PASSWORD}"), "-debug"],
        &["launch", "--password-file", "secret", "-debug"],
        &["launch", "-debug"],
    ] {
        let mut command = world.weave(arguments.iter().copied());
        let ran = world.run(command.env("WEAVE_PASSWORD", PASSWORD));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        let status = status(&world);
        assert!(status.encrypted);
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{}/{file}", status.pid)).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(!text.contains(PASSWORD) && !text.contains("PASSWORD"), "{text}");
        }
        done(&world, &["stop"]);
    }
    let log = world.run_dir().join("router.log");
    assert!(!std::fs::read_to_string(&log).unwrap().contains(PASSWORD));
    assert_eq!(std::fs::metadata(log).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_host_of_an_encrypted_network_does_not_launch_in_clear_by_mistake() {
    let world = World::new();
    let _stop = Stop(&world);
    done(&world, &["launch", "-password", PASSWORD]);
    done(&world, &["stop"]);
    let ran = weave(&world, &["launch"]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{ran:?}");
    for way_on in ["password", "reset", "--clear"] {
        assert!(ran.stderr.contains(way_on), "{ran:?}");
    }
    assert!(weave(&world, &["stop"]).stderr.contains("no router"));
    assert_eq!(weave(&world, &["launch", "--clear"]).code, Some(0));
    assert!(!status(&world).encrypted);
}

#[test]
fn a_killed_router_is_no_obstacle_to_the_next() {
    let world = World::new();
    let _stop = Stop(&world);
    for _ in 0..3 {
        done(&world, &["launch", "-password", PASSWORD]);
        let pid = Pid::from_raw(status(&world).pid.cast_signed()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let ran = weave(&world, &["status"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
    }
    done(&world, &["launch", "-password", PASSWORD]);
}

#[test]
fn a_router_without_its_socket_is_stopped_by_signal() {
    let world = World::new();
    let _stop = Stop(&world);
    done(&world, &["launch", "-password", PASSWORD]);
    let pid = status(&world).pid;
    std::fs::remove_file(world.run_dir().join("control/control.sock")).unwrap();
    done(&world, &["stop"]);
    assert!(is_gone(pid));
}

#[test]
fn of_two_launches_at_once_one_wins() {
    let world = World::new();
    let _stop = Stop(&world);
    let outcomes = std::thread::scope(|scope| {
        let launches = [(); 2].map(|()| scope.spawn(|| weave(&world, &["launch", "-password", PASSWORD])));
        launches.map(|launch| launch.join().unwrap())
    });
    let mut codes = outcomes.iter().map(|ran| ran.code).collect::<Vec<_>>();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(1)], "{outcomes:?}");
    let loser = outcomes.iter().find(|ran| ran.code == Some(1)).unwrap();
    assert!(loser.stderr.contains("already launched"), "{loser:?}");
    status(&world);
}
