//! Attachments last: what runs again is attached again, nobody typing anything.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use weave_tests::Engines;

#[test]
fn a_container_that_is_restarted_is_attached_again() {
    let hosts = Engines::new(1, 0);
    let container = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24");
    hosts.ok(0, &format!("docker restart -t 0 {}", container.id));
    hosts.wait_attached(&container, &["10.2.1.1/24", "10.2.2.1/24"]);
}
