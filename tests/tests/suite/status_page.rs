//! The status page of live routers, in a real browser.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use weave_api::report::Report;
use weave_perf::traffic::udp;
use weave_tests::world::v4;
use weave_tests::{Options, World};

/// Time for a browser to start and to show what is there.
const SHOWN_WITHIN: Duration = Duration::from_secs(25);
/// Time between two datagrams.
const PACE: Duration = Duration::from_millis(10);

/// A script of the page's tests.
fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dashboards/page/tests").join(name)
}

/// What a browser on host `index` is shown by its router, while the containers talk.
#[track_caller]
fn page(world: &World, index: usize) -> Value {
    let inbox = world.inside(1, || udp::Receiver::bind((v4(1), 0).into()).unwrap());
    let going = AtomicBool::new(true);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            world.inside(0, || {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect(inbox.address()).unwrap();
                while going.load(Ordering::Relaxed) {
                    let _ = socket.send(&[0; 1000]);
                    std::thread::sleep(PACE);
                }
            });
        });
        let mut browse = world.host(index).command("node");
        browse.arg(script("live.mjs")).arg("http://127.0.0.1:6782/");
        let output = world.host(index).output(&mut browse, SHOWN_WITHIN);
        going.store(false, Ordering::Relaxed);
        output.unwrap()
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The rows of a table in one column.
fn column<'a>(table: &'a Value, name: &str) -> Vec<&'a str> {
    table.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap()).collect()
}

#[test]
fn the_page_of_a_live_router_shows_its_link_its_traffic_and_names_of_other_hosts() {
    let world = World::pair(Options::encrypted());
    world.weave(1, &["dns-add", "192.0.2.1", "-h", "db.weave.local"]).ok();
    let (shown, status) = (page(&world, 0), world.status(0));
    let peer = &status.peers[1];
    assert_eq!(shown["nickname"], status.nickname.as_str());
    assert_eq!(shown["name"], status.name.to_string());
    assert_eq!((&shown["seal"], &shown["feed"]), (&"encrypted".into(), &"live".into()));
    let links = &shown["links"];
    assert_eq!(column(links, "Peer"), [peer.nickname.as_str()]);
    assert_eq!(column(links, "State"), ["established"]);
    assert_eq!(column(links, "Data"), ["encrypted"]);
    // A hundred datagrams of 1,000 bytes a second, on a machine that is busy.
    let rate = column(links, "Sends")[0];
    let kilobits: f64 =
        rate.strip_suffix(" kbit/s").and_then(|number| number.parse().ok()).unwrap_or_default();
    assert!((40.0..1000.0).contains(&kilobits), "sends {rate}");
    assert_eq!(column(&shown["hosts"], "Name"), [status.name, peer.name].map(|name| name.to_string()));
    assert_eq!(column(&shown["names"], "Name"), ["db.weave.local"]);
    assert_eq!(column(&shown["names"], "Host"), [peer.nickname.as_str()]);
    assert_eq!(shown["map"].as_array().unwrap().len(), 2);
    assert_eq!(shown["lines"], 1);
    assert_eq!(shown["missing"], serde_json::json!([]), "not in the picture of the map");
    let mac = world.mac(1).to_string();
    assert!(shown["panel"].as_str().unwrap().contains(&mac), "{mac}: {}", shown["panel"]);
}

#[test]
fn the_reports_that_the_page_is_tested_with_are_what_a_router_gives() {
    let output = Command::new("node").arg(script("recorded.mjs")).arg("100").output().unwrap();
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let report: Report = serde_json::from_value(made.clone()).unwrap();
    assert_eq!(report.status.peers.len(), 100);
    // No field has another name there.
    assert_eq!(serde_json::to_value(&report).unwrap(), made);
}
