//! What grows with the number of peers, and what does not.

use super::net::Net;

/// All linked to all, in the order in which they would meet.
fn full_mesh(nodes: usize) -> Net {
    let mut net = Net::new(nodes);
    for a in 0..nodes {
        for b in 0..a {
            net.link(a, b);
        }
    }
    net.seconds(8);
    net
}

fn bytes(net: &Net) -> Vec<usize> {
    net.nodes.values().map(|node| node.bytes).collect()
}

/// Whatever the size: a change of a link costs each peer its own two records.
fn check_link_change(nodes: usize) {
    let mut net = full_mesh(nodes);
    let settled = net.nodes.values().all(|node| node.mesh.routes().peers.len() == nodes - 1);
    assert!(settled);
    let before = bytes(&net);
    // No summary is due for 22.5 s after the start.
    net.cut(0, 1);
    net.seconds(1);
    assert_eq!(net.route(0, 1).map(|route| route.hops), Some(2));
    // The record in its message, and its digest and the request for it in theirs.
    let record = 220 + nodes * 9;
    let once_to_each = 2 * (nodes - 1) * (record + 36 + 20);
    let sent: usize = bytes(&net).iter().zip(&before).map(|(after, before)| after - before).sum();
    assert!(sent <= once_to_each * 11 / 10, "{sent} bytes for {nodes} peers");
    for source in [0, 1, nodes / 2, nodes - 1] {
        assert_eq!(net.broadcast(source), nodes);
    }
}

#[test]
fn a_link_change_costs_each_of_fifty_peers_two_records() {
    check_link_change(50);
}

#[test]
fn long_three_hundred_peers_settle_and_a_link_change_costs_each_two_records() {
    check_link_change(300);
}
