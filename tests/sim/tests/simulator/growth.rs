//! What grows with the number of hosts stays within bounds.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use weave_sim::curve::{self, Machine};
use weave_sim::shape::Shape;

/// Control traffic of an idle link, both directions, bytes a second with all headers.
const IDLE_BPS: u64 = 2_000;
/// Time until a new name is known everywhere.
const NAME_MS: u64 = 1_000;

fn clock() -> Duration {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGUN.elapsed()
}

/// Measures one size; `settled_s`: simulated time in which all must agree.
fn check(hosts: usize, shape: Shape, settled_s: f64) {
    let machine = Machine { clock, memory: || 0 };
    let point = curve::measure(hosts, shape, 0, machine).unwrap();
    println!("{point:#?}");
    assert!(point.settled_s <= settled_s, "{point:#?}");
    assert!(point.idle_link_bps > 0 && point.idle_link_bps < IDLE_BPS, "{point:#?}");
    assert!(point.name_ms <= NAME_MS, "{point:#?}");
    // A link that goes changes the records of its two ends; each is to come to a host about once,
    // and to be announced over its links.
    let records = point.changed_records;
    assert!(point.change_bytes >= records / 2 && point.change_bytes <= records * 2, "{point:#?}");
}

#[test]
fn fifty_hosts_all_linked_cost_little() {
    check(50, Shape::Full, 12.0);
}

#[test]
fn a_hundred_hosts_with_ten_links_each_cost_little() {
    check(100, Shape::Degree(10), 5.0);
}

#[test]
fn long_a_hundred_hosts_all_linked_cost_little() {
    check(100, Shape::Full, 15.0);
}
