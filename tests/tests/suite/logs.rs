//! What a log says of a link that is lost: one line, whom and why, in each form a log has.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::Value;
use weave_tests::world::{LINK_WITHIN, PASSWORD};
use weave_tests::{Options, World, wait_until};

/// Why a link is lost whose peer was killed: nothing answers any more.
const LOST: &str = "link lost: ";
const REASON: &str = "TCP ended and the peer answers no probe";

/// Lines of a router's log that say of a link that it was lost.
fn lost(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap();
    text.lines().filter(|line| line.contains(LOST)).map(str::to_owned).collect()
}

/// Kills the router of host 1 and has it back: more is logged after the loss.
fn lose_and_regain(world: &World, log: &Path) {
    world.kill(1);
    wait_until(LINK_WITHIN, || world.log(0), || !lost(log).is_empty());
    world.launch_to(1, &[0]);
    world.wait_linked(0, 1, LINK_WITHIN);
}

#[test]
fn a_lost_link_is_one_line_with_its_reason() {
    for form in ["text", "json"] {
        let world = World::pair(Options::encrypted().not_attached().env("WEAVE_LOG_FORMAT", form));
        let peer = world.status(1).name.to_string();
        let log = world.host(0).run_dir().join("router.log");
        assert_eq!(lost(&log), Vec::<String>::new());
        lose_and_regain(&world, &log);
        let lines = lost(&log);
        let [line] = lines.as_slice() else { panic!("{form}: not one line: {lines:#?}") };
        if form == "json" {
            let said: Value = serde_json::from_str(line).unwrap();
            assert_eq!((said["level"].as_str(), said["peer"].as_str()), (Some("WARN"), Some(peer.as_str())));
            let reason = said["message"].as_str().unwrap().strip_prefix(LOST).unwrap();
            assert!(reason.contains(REASON), "{line}");
            assert!(said["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        } else {
            let (before, reason) = line.split_once(LOST).unwrap();
            assert!(before.contains(" WARN ") && line.contains(&format!("peer={peer}")), "{line}");
            assert!(reason.contains(REASON), "{line}");
        }
    }
}

/// The fields of an entry (systemd.io/JOURNAL_NATIVE_PROTOCOL).
fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = BTreeMap::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
        let (line, rest) = (&entry[..end], &entry[end + 1..]);
        if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            fields.insert(text(&line[..equals]), text(&line[equals + 1..]));
            entry = rest;
        } else {
            let (len, value) = rest.split_first_chunk::<8>().unwrap();
            let len = usize::try_from(u64::from_le_bytes(*len)).unwrap();
            fields.insert(text(line), text(&value[..len]));
            entry = &value[len + 1..];
        }
    }
    fields
}

#[test]
fn the_journal_gets_fields_and_the_terminal_nothing() {
    let world = World::new(Options::encrypted().bare(2));
    world.launch(1, &[]);
    let host = world.host(0);
    let journal = UnixDatagram::bind(host.directory().join("journal")).unwrap();
    journal.set_read_timeout(Some(LINK_WITHIN)).unwrap();
    let (password, stderr) = (host.directory().join("password"), host.directory().join("stderr"));
    drop(world.launch_command(0, Some(PASSWORD), &[]));
    let file = File::create(&stderr).unwrap();
    let stream = file.metadata().map(|data| format!("{}:{}", data.dev(), data.ino())).unwrap();
    // The journal's place is that of the whole machine, but for who has a file system of its own.
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
                  ln -s \"$1\" /run/systemd/journal/socket && shift && exec \"$@\"";
    let mut command = host.command("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(host.directory().join("journal"));
    command.arg(weave_tests::world::weave()).args(["router", "--no-dns", "--password-file"]).arg(password);
    command.arg(world.underlay(1).to_string()).env("JOURNAL_STREAM", stream).stderr(file);
    let mut router = host.spawn(&mut command).unwrap();
    world.wait_linked(0, 1, LINK_WITHIN);
    let peer = world.status(1).name.to_string();
    world.kill(1);

    let mut entry = vec![0; 64 << 10];
    let mut said = Vec::new();
    let lost = loop {
        let len = journal.recv(&mut entry).unwrap_or_else(|error| panic!("{error} after {said:#?}"));
        let fields = fields(&entry[..len]);
        // The first is empty: whether anybody listens.
        match fields.get("MESSAGE") {
            Some(message) if message.starts_with(LOST) => break fields,
            Some(_) => said.push(fields),
            None => assert_eq!(len, 0, "{fields:?}"),
        }
    };
    assert!(lost["MESSAGE"].contains(REASON), "{lost:#?}");
    let field = |name: &str| lost.get(name).map(String::as_str);
    assert_eq!(field("F_PEER"), Some(peer.as_str()), "{lost:#?}");
    // A warning, of this program and part of it.
    assert_eq!((field("PRIORITY"), field("SYSLOG_IDENTIFIER")), (Some("4"), Some("weave")), "{lost:#?}");
    assert!(field("TARGET").is_some_and(|target| target.starts_with("weave_router")), "{lost:#?}");
    assert!(!said.is_empty(), "the start says something, too");
    assert_eq!(fs::read_to_string(&stderr).unwrap(), "", "what the journal has is said twice");
    router.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(router.wait(LINK_WITHIN).unwrap().success());
}
