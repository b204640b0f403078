//! A state with something of everything, and how it is shown.
#![allow(clippy::unwrap_used)]

use weave_api::Status;

const SAMPLE: &str = r#"{
  "version": "0.1.0", "protocol": [1, 1],
  "name": "02:1f:3a:00:c4:07", "nickname": "host1", "uid": "00000000000000aa",
  "pid": 4711, "uptime_s": 61, "port": 6783, "encrypted": true, "discovery": true,
  "mtu": 1376, "conn_limit": 200,
  "targets": [
    {"target": "host2", "state": "connected"},
    {"target": "[fd00:99::3]:6800", "state": "retrying", "reason": "connection refused", "retry_in_s": 3},
    {"target": "host4", "state": "connecting"},
    {"target": "host5", "state": "retrying", "retry_in_s": 1},
    {"target": "127.0.0.1", "state": "ourself"}
  ],
  "connections": [
    {"direction": "outbound", "address": "10.99.0.2:6783", "state": "established", "since_s": 60,
     "encrypted": true, "peer": "02:1f:3a:00:c4:08", "nickname": "host2", "mtu": 1376, "rtt_us": 214,
     "lanes_in": 2, "lanes_out": 2, "tx_frames": 1, "tx_bytes": 60, "rx_frames": 1, "rx_bytes": 60},
    {"direction": "inbound", "address": "10.99.0.6:33866", "state": "established", "since_s": 5,
     "encrypted": false, "peer": "02:1f:3a:00:c4:09", "nickname": "host6", "mtu": 1400, "rtt_us": 12345,
     "degraded": [
       {"name": "one_port", "reason": "lane 1 does not pass the firewall\nof host6", "since_s": 4},
       {"name": "mtu_mismatch", "reason": "host6 has MTU 1400, this host 1376", "since_s": 5}]},
    {"direction": "outbound", "address": "[fd00:99::3]:6800", "state": "retrying",
     "reason": "connection refused", "retry_in_s": 3},
    {"direction": "outbound", "address": "host4:6783", "state": "connecting"},
    {"direction": "outbound", "address": "10.99.0.7:6783", "state": "failed", "encrypted": true,
     "reason": "wrong password or no weave router \u001b[31m", "retry_in_s": 59},
    {"direction": "inbound", "address": "10.99.0.8:40000", "state": "pending", "encrypted": true,
     "peer": "02:1f:3a:00:c4:0a", "nickname": "host8"}
  ],
  "peers": [
    {"name": "02:1f:3a:00:c4:07", "nickname": "host1", "uid": "00000000000000aa", "connections": [
      {"direction": "outbound", "address": "10.99.0.2:6783", "peer": "02:1f:3a:00:c4:08", "nickname": "host2",
       "established": true, "encrypted": true}]},
    {"name": "02:1f:3a:00:c4:08", "nickname": "host2", "uid": "00000000000000ab", "connections": [
      {"direction": "inbound", "address": "10.99.0.1:33111", "peer": "02:1f:3a:00:c4:07", "nickname": "host1",
       "established": true, "encrypted": true},
      {"direction": "outbound", "address": "[fd00:99::3]:6800", "peer": "02:1f:3a:00:c4:09", "nickname": "host6",
       "established": false, "encrypted": false}]}
  ],
  "routes": [
    {"peer": "02:1f:3a:00:c4:08", "nickname": "host2", "via": "02:1f:3a:00:c4:08", "via_nickname": "host2",
     "hops": 1, "encrypted": true, "broadcast_from": true},
    {"peer": "02:1f:3a:00:c4:09", "nickname": "host6.example", "via": "02:1f:3a:00:c4:08", "via_nickname": "host2",
     "hops": 2, "encrypted": false, "broadcast_from": true, "broadcast_to": ["02:1f:3a:00:c4:08"]}
  ],
  "macs": [
    {"mac": "02:aa:00:00:00:01", "peer": "02:1f:3a:00:c4:07", "nickname": "host1", "source": "attached", "idle_s": 0},
    {"mac": "02:aa:00:00:00:02", "peer": "02:1f:3a:00:c4:08", "nickname": "host2.example", "source": "learned", "idle_s": 599}
  ],
  "shards": [
    {"shard": 0, "core": 2, "counters": {"tx_frames": 10}, "drops": {"bad_offload": 2, "replayed": 0}},
    {"shard": 1, "core": 3, "counters": {"tx_frames": 10}, "drops": {"bad_offload": 1, "no_buffer": 9}}
  ],
  "degraded": [{"name": "no_uso", "reason": "Linux 6.1 has no UDP super-frames on taps (6.2 has)", "since_s": 61}],
  "keeper": {"pid": 4712, "version": "0.1.0", "firewall": "iptables", "guard": {"dropped": 3}}
}"#;

/// The state.
pub fn status() -> Status {
    serde_json::from_str(SAMPLE).unwrap()
}

#[test]
fn the_summary_names_everything_once() {
    insta::assert_snapshot!(super::summary(&status()), @r"
           Version: 0.1.0

           Service: router
          Protocol: weave 1..1
              Name: 02:1f:3a:00:c4:07(host1)
        Encryption: enabled
     PeerDiscovery: enabled
              Port: 6783
               MTU: 1376
            Shards: 2 (cores 2, 3)
           Targets: 5
       Connections: 6 (1 connecting, 1 pending, 2 established, 1 retrying, 1 failed)
             Peers: 2 (with 2 established connections)
    TrustedSubnets: none
             Guard: enabled (3 frames dropped)
            Keeper: 0.1.0 (process 4712, rules by iptables)
           Dropped: 12 (9 no_buffer, 3 bad_offload)
          Degraded: no_uso for 61 s: Linux 6.1 has no UDP super-frames on taps (6.2 has)
          Degraded: 02:1f:3a:00:c4:09(host6) one_port for 4 s: lane 1 does not pass the firewall; of host6
          Degraded: 02:1f:3a:00:c4:09(host6) mtu_mismatch for 5 s: host6 has MTU 1400, this host 1376
    ");
}

#[test]
fn connections_are_lines_of_arrow_address_state_and_details() {
    insta::assert_snapshot!(super::connections(&status().connections), @r"
    -> 10.99.0.2:6783        established encrypted   02:1f:3a:00:c4:08(host2) mtu=1376 rtt=0.21ms
    <- 10.99.0.6:33866       established unencrypted 02:1f:3a:00:c4:09(host6) mtu=1400 rtt=12.34ms degraded=one_port,mtu_mismatch
    -> [fd00:99::3]:6800     retrying    connection refused; next try in 3 s
    -> host4:6783            connecting
    -> 10.99.0.7:6783        failed      encrypted   wrong password or no weave router \u{1b}[31m; next try in 59 s
    <- 10.99.0.8:40000       pending     encrypted   02:1f:3a:00:c4:0a(host8)
    ");
}

#[test]
fn peers_are_blocks_of_links() {
    insta::assert_snapshot!(super::peers(&status().peers), @r"
    02:1f:3a:00:c4:07(host1)
       -> 10.99.0.2:6783        02:1f:3a:00:c4:08(host2)              established encrypted
    02:1f:3a:00:c4:08(host2)
       <- 10.99.0.1:33111       02:1f:3a:00:c4:07(host1)              established encrypted
       -> [fd00:99::3]:6800     02:1f:3a:00:c4:09(host6)              pending     unencrypted
    ");
}

#[test]
fn targets_are_lines_of_what_was_typed_and_how_it_stands() {
    insta::assert_snapshot!(super::targets(&status().targets), @r"
    host2                 connected
    [fd00:99::3]:6800     retrying   connection refused; next try in 3 s
    host4                 connecting
    host5                 retrying   next try in 1 s
    127.0.0.1             ourself
    ");
}

#[test]
fn routes_are_lines_of_peer_and_way() {
    insta::assert_snapshot!(super::routes(&status().routes), @r"
    02:1f:3a:00:c4:08(host2)         direct                        1 hop  encrypted
    02:1f:3a:00:c4:09(host6.example) via 02:1f:3a:00:c4:08(host2)  2 hops unencrypted
    ");
}

#[test]
fn macs_are_lines_of_station_and_peer() {
    insta::assert_snapshot!(super::macs(&status().macs), @r"
    02:aa:00:00:00:01 02:1f:3a:00:c4:07(host1)         attached 0 s
    02:aa:00:00:00:02 02:1f:3a:00:c4:08(host2.example) learned  599 s
    ");
}

#[test]
fn nothing_is_shown_of_nothing() {
    let shown = [
        super::connections(&[]),
        super::peers(&[]),
        super::targets(&[]),
        super::routes(&[]),
        super::macs(&[]),
    ];
    assert_eq!(shown, ["", "", "", "", ""]);
}
