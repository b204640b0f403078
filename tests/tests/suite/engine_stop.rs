//! `weave stop` and `weave launch` while containers talk.

use std::time::{Duration, Instant};

use weave_tests::Engines;
use weave_tests::engines::SOON;
use weave_tests::flow::{Flow, Talk};

/// Datagrams a second.
const RATE: u32 = 20;
/// A TCP connection sends again what was lost after a wait that doubles; this is long enough.
const TCP_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn containers_talk_across_a_stop_and_a_launch() {
    let hosts = Engines::new(2, 0);
    hosts.launch();
    let near = hosts.namespace(&hosts.weave_run(0, "10.2.1.1/24"));
    let neighbour = hosts.namespace(&hosts.weave_run(0, "10.2.1.3/24"));
    let far = hosts.namespace(&hosts.weave_run(1, "10.2.1.2/24"));
    let local = Flow::start(&near, &neighbour, "10.2.1.3".parse().unwrap(), RATE);
    let remote = Flow::start(&far, &near, "10.2.1.1".parse().unwrap(), RATE);
    remote.wait_passes(Instant::now(), TCP_WITHIN, "before the stop");
    let talk = Talk::start(&near, &far, "10.2.1.2".parse().unwrap(), Duration::from_millis(50));
    talk.wait_answer(TCP_WITHIN);

    hosts.ok(0, "weave stop");
    local.wait_passes(Instant::now(), SOON, "between local containers while the router is stopped");
    hosts.ok(0, "weave launch");
    remote.wait_passes(Instant::now(), SOON, "after the launch");
    talk.wait_answer(TCP_WITHIN);
    talk.finish();
    local.finish().assert_whole("between two containers of the host whose router was stopped");
}
