//! The password of a network is changed while it runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use weave_tests::pings::Pings;
use weave_tests::world::{LINK_WITHIN, Options, PASSWORD, World, v4};

const NEW: &str = "a password that is new here";

fn write(world: &World, host: usize, lines: &[&str]) -> PathBuf {
    let file = world.host(host).directory().join("rotated");
    fs::write(&file, lines.join("\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[test]
fn five_hosts_change_their_password_one_by_one_without_a_lost_ping() {
    let world = World::new(Options::encrypted().count(5).not_launched());
    for host in 0..5 {
        let file = write(&world, host, &[PASSWORD]);
        let targets = (host > 0).then(|| world.underlay(0).to_string());
        let mut arguments = vec!["launch", "--no-dns", "--password-file", file.to_str().unwrap()];
        arguments.extend(targets.as_deref());
        world.weave(host, &arguments).ok();
    }
    for host in 1..5 {
        world.wait_ping(host, v4(0).into(), LINK_WITHIN);
    }
    let pings: Vec<_> = (1..5).map(|host| Pings::between(&world, host, v4(0).into())).collect();
    for lines in [&[NEW, PASSWORD][..], &[NEW]] {
        for host in 0..5 {
            write(&world, host, lines);
            world.weave(host, &["reload"]).ok();
        }
    }
    for pings in pings {
        assert_eq!(pings.finish().lost(), [0_u64; 0]);
    }
    // Whoever comes back has only the new one, and gets in; the old one is of no use any more.
    world.kill(4);
    let file = write(&world, 4, &[PASSWORD]);
    let target = world.underlay(0).to_string();
    world.weave(4, &["launch", "--no-dns", "--password-file", file.to_str().unwrap(), &target]).ok();
    weave_tests::world::wait_until(
        LINK_WITHIN,
        || format!("{:?}", world.status(4).connections),
        || {
            world
                .status(4)
                .connections
                .iter()
                .any(|link| link.reason.as_deref().is_some_and(|r| r.contains("password")))
        },
    );
    write(&world, 4, &[NEW]);
    world.weave(4, &["reload"]).ok();
    world.wait_ping(4, v4(0).into(), LINK_WITHIN);
}

#[test]
fn a_password_file_that_cannot_be_used_changes_nothing_and_says_why() {
    let world = World::new(Options::encrypted());
    let file = world.host(0).directory().join("password");
    for (content, why) in
        [("", "it is empty"), ("a\nb\nc\n", "more than two lines"), ("a\tb\n", "control character")]
    {
        fs::write(&file, content).unwrap();
        let ran = world.weave(0, &["reload"]);
        assert_eq!(ran.code, Some(1), "{content:?}");
        assert!(ran.stderr.contains(why) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    }
    world.kill(1);
    world.launch(1, &[&world.underlay(0).to_string()]);
    world.wait_ping(1, v4(0).into(), LINK_WITHIN);
}
