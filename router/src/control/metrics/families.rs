//! Everything that can be seen at `/metrics`: names, labels and meaning. `docs/metrics.md` is made
//! of this table.

use std::borrow::Cow;
use std::sync::LazyLock;
use weave_forward::Counters;

/// How values of a family behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only rises, from 0 at the start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Values of one name. The unit is the end of the name; without one it counts things.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: Cow<'static, str>,
}

impl Family {
    /// True if it has values for each peer or each shard.
    pub(super) fn is_of_many(&self) -> bool {
        matches!(self.labels.first(), Some(&("peer" | "shard")))
    }
}

macro_rules! families {
    ($($kind:ident $constant:ident = $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(pub(super) static $constant: Family = Family {
            name: Cow::Borrowed($name),
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: Cow::Borrowed($help),
        };)*
        static FIXED: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    // Under the names of the original.
    Gauge CONNECTIONS = "weave_connections" ["state" "type" "encryption"]
        "Links and attempts of this host to make one, by state; attempts of others that fail are among weave_handshakes_failed_total; type is udp once the peer is known, encryption is yes or empty.";
    Counter TERMINATIONS = "weave_connection_terminations_total" []
        "Links that were lost.";
    Gauge DNS_ENTRIES = "weave_dns_entries" []
        "Addresses that names of this host stand for.";
    Gauge FLOWS = "weave_flows" []
        "Stations (MAC addresses) that this router forwards frames for.";
    // Of its allocator of addresses, which is no part of this: its boards choose a host by them.
    Gauge IPAM_UNREACHABLE_COUNT = "weave_ipam_unreachable_count" []
        "Always 0: there is no allocator of addresses, boards of the original ask for it.";
    Gauge IPAM_UNREACHABLE_PERCENTAGE = "weave_ipam_unreachable_percentage" []
        "Always 0: there is no allocator of addresses, boards of the original choose a host by it.";
    Gauge IPAM_PENDING_ALLOCATES = "weave_ipam_pending_allocates" []
        "Always 0: there is no allocator of addresses, boards of the original ask for it.";
    Gauge IPAM_PENDING_CLAIMS = "weave_ipam_pending_claims" []
        "Always 0: there is no allocator of addresses, boards of the original ask for it.";
    Gauge MAX_IPS = "weave_max_ips" []
        "Always 0: there is no allocator of addresses, boards of the original ask for its range.";

    // The host.
    Gauge BUILD_INFO = "weave_build_info" ["version" "protocol"]
        "Always 1: version of the program and the latest protocol between routers that it speaks.";
    Gauge HOST_INFO = "weave_host_info" ["peer" "nickname"]
        "Always 1: name and nickname of this host.";
    Gauge ENCRYPTED = "weave_network_encrypted" []
        "1 if the network has a password, 0 if it is in clear.";
    Gauge UPTIME = "weave_uptime_seconds" []
        "Time since this router began to forward.";
    Gauge MTU = "weave_mtu_bytes" []
        "MTU of container interfaces.";
    Gauge CONNECTIONS_MAX = "weave_connections_max" []
        "Most links at once.";
    Gauge TARGETS = "weave_targets" ["state"]
        "Peers that this router is told to dial, by state.";
    Gauge DEGRADED = "weave_degraded" ["name"]
        "1 for each way in which this router works more slowly than it could; see status.";
    Counter GUARD_DROPPED = "weave_guard_dropped_total" []
        "Frames of containers that the guard dropped, as of at most 35 s ago; absent where it is off.";
    Counter HOST_REPAIRS = "weave_host_repairs_total" ["kind"]
        "Times the keeper put right what others took or changed: device (bridge, tap, ports, MTU, addresses of the host) or rules, as of at most 5 s ago; absent where it tells nothing.";
    Gauge ATTACHMENTS_CHANGED = "weave_attachments_changed" []
        "Attachments that somebody changed inside their containers (state, name, MAC, MTU or addresses of ethwe), as of at most 35 s ago; absent where the keeper tells nothing.";

    // Links.
    Gauge LINK_UP = "weave_link_up" ["peer" "nickname"]
        "1 if the link passes data, 0 if it does not yet.";
    Gauge LINK_ENCRYPTED = "weave_link_encrypted" ["peer" "nickname"]
        "1 if data crosses the link encrypted.";
    Gauge LINK_ROUND_TRIP = "weave_link_round_trip_seconds" ["peer" "nickname"]
        "Round trip of the last heartbeat.";
    Gauge LINK_AGE = "weave_link_age_seconds" ["peer" "nickname"]
        "Time since the link was made.";
    Gauge LINK_SESSION_AGE = "weave_link_session_age_seconds" ["peer" "nickname"]
        "Age of the keys that are sent under; keys are replaced after 120 s and end at 180 s.";
    Counter LINK_REKEYS = "weave_link_rekeys_total" ["peer" "nickname"]
        "Times the keys of the link were replaced.";
    Gauge LINK_PATH_MTU = "weave_link_path_mtu_bytes" ["peer" "nickname"]
        "Largest datagram that the path of the link carries.";
    Gauge LINK_LANES = "weave_link_lanes" ["peer" "nickname" "direction"]
        "Lanes that pass data, in and out.";
    Gauge LINK_QUEUE = "weave_link_queue_bytes" ["peer" "nickname"]
        "Bytes that wait to be written to the TCP connection of the link.";
    Gauge LINK_DEGRADED = "weave_link_degraded" ["peer" "nickname" "name"]
        "1 for each way in which the link works more slowly than it could; see status.";
    Counter LINK_BYTES = "weave_link_bytes_total" ["peer" "nickname" "direction"]
        "Bytes of frames that crossed the link, in and out.";
    Counter LINK_FRAMES = "weave_link_frames_total" ["peer" "nickname" "direction"]
        "Frames that crossed the link, in and out.";
    Counter LANE_BYTES = "weave_lane_bytes_total" ["shard" "direction"]
        "Bytes of frames that crossed links, out on the lane of this shard, in on the lanes of peers that it owns.";
    Counter LANE_FRAMES = "weave_lane_frames_total" ["shard" "direction"]
        "Frames that crossed links, out on the lane of this shard, in on the lanes of peers that it owns.";
    Histogram ROUND_TRIPS = "weave_heartbeat_round_trip_seconds" []
        "Round trips of heartbeats over all links.";

    // Keys and handshakes.
    Counter HANDSHAKES_FAILED = "weave_handshakes_failed_total" []
        "Handshakes that failed, dialled or accepted: wrong passwords, other versions, time limits.";
    Counter LINKS_REFUSED = "weave_links_refused_total" []
        "Authenticated connections refused because this host has its limit of links.";
    Counter LINKS_MADE = "weave_links_made_total" []
        "Links made.";
    Counter LINKS_UNFINISHED = "weave_links_unfinished_total" []
        "Authenticated connections that ended before they were links; one of two dials that cross, mostly.";
    Counter REKEYS = "weave_rekeys_total" []
        "Times the keys of a link were replaced.";
    Counter KEYS_EXPIRED = "weave_keys_expired_total" []
        "Links lost because no new keys could be agreed in time.";
    Counter RESUMPTIONS = "weave_resumptions_total" []
        "TCP connections of links replaced by new ones without a handshake.";
    Counter TCP_ACCEPTED = "weave_tcp_accepted_total" []
        "TCP connections from peers accepted.";
    Counter TCP_REFUSED = "weave_tcp_refused_total" []
        "TCP connections from peers closed at once because there were too many.";
    Counter ADDRESS_MOVES = "weave_address_moves_total" []
        "Times a peer was found at another address.";
    Counter HEARTBEATS_SENT = "weave_heartbeats_sent_total" []
        "Datagrams sent on the control lane.";
    Counter HEARTBEATS_UNANSWERED = "weave_heartbeats_unanswered_total" []
        "Heartbeats that were due while one before them had no answer: it or its answer got lost, or is slow (250 ms, less once TCP has ended).";
    Counter HEARTBEATS_DROPPED = "weave_heartbeats_dropped_total" []
        "Datagrams of the control lane that could not be sent or were not sealed by a peer.";
    Counter KEEP_ALIVES_DROPPED = "weave_keep_alives_dropped_total" []
        "Keep-alives not asked for because a shard was far behind.";

    // The mesh.
    Gauge PEERS = "weave_peers" []
        "Peers that can be reached, this host among them.";
    Gauge PEERS_UNREACHABLE = "weave_peers_unreachable" []
        "Peers that are known but cannot be reached.";
    Gauge TOPOLOGY_LINKS = "weave_topology_links" []
        "Links that reachable peers announce, each counted at both ends.";
    Gauge TOPOLOGY_DIGEST = "weave_topology_digest" []
        "A number made of all reachable peers and their links: hosts of one network that agree have the same.";
    Gauge ROUTES = "weave_routes" ["way"]
        "Peers that are reached: direct, or relayed by others.";
    Counter ROUTE_RUNS = "weave_route_computations_total" []
        "Times the routes were computed.";
    Counter GOSSIP = "weave_gossip_events_total" ["event"]
        "What was done with what peers tell, and what was refused.";
    Gauge GOSSIP_BYTES = "weave_gossip_store_bytes" []
        "Bytes of what peers told that are kept.";
    Gauge NAMES = "weave_names" ["origin"]
        "Addresses in the table of names, of this host (local) and of others (remote).";
    Gauge STATIONS = "weave_stations" ["source"]
        "Stations (MAC addresses) known: attached here, attached elsewhere, or learned from frames.";
    Counter STATION_EVENTS = "weave_station_events_total" ["event"]
        "Stations seen at two places in turn (flap), that had to make room (replaced), or whose address is attached here (conflict).";

    // Forwarding.
    Counter DROPS = "weave_drops_total" ["shard" "reason"]
        "Frames and datagrams that went no further, by reason.";
    Histogram FRAME_TIME = "weave_frame_processing_seconds" ["shard"]
        "Time from taking a frame off the tap until its datagrams are queued for the kernel; one in 256 is timed.";
    Gauge SHARD_BUFFERS = "weave_shard_buffers_used" ["shard" "kind"]
        "Buffers in use when the control core last spoke to the shard: read and receive of 32 each, send slots, parked frames.";
    Gauge SHARD_RING = "weave_shard_ring_entries" ["shard" "queue"]
        "Entries of the shard's ring when the control core last spoke to the shard: operations not submitted (submission, of 1,024), finished ones not looked at (completion, of 8,192).";

    // The control core.
    Gauge QUEUE = "weave_control_queue_length" ["queue"]
        "What waits for the control core: events, and reports of shards.";
    Counter REQUESTS = "weave_control_requests_total" ["request"]
        "Requests over the control socket.";
    Counter HTTP_REQUESTS = "weave_http_requests_total" ["result"]
        "Requests over HTTP: answered, or failed.";
    Gauge HTTP_CONNECTIONS = "weave_http_connections" ["kind"]
        "Open HTTP connections, and those of them that are streams of events.";
    Counter HTTP_CLOSED = "weave_http_connections_closed_total" ["reason"]
        "HTTP connections closed by the router: too many (full), too many of one address (source), too slow (timeout), or nothing asked for 120 s (idle).";

    // The log.
    Counter LOG_LEFT_OUT = "weave_log_lines_left_out_total" []
        "Lines of the log left out because many of one kind came at once.";

    // The DNS of this host.
    Gauge DNS_UP = "weave_dns_up" []
        "1 if the DNS of this host answers, 0 if it does not; absent where none was launched. It is asked every 5 s, by the router and not by a scrape.";
    Gauge DNS_ROUTER_LOST = "weave_dns_router_lost" []
        "1 if the DNS hears nothing from the router.";
    Gauge DNS_NAMES = "weave_dns_names" []
        "Names that the DNS knows.";
    Gauge DNS_ADDRESSES = "weave_dns_addresses" []
        "Addresses they stand for.";
    Gauge DNS_NOT_LISTENING = "weave_dns_not_listening" []
        "Addresses that the DNS cannot be asked at.";
    Counter DNS_QUERIES = "weave_dns_queries_total" []
        "Questions read.";
    Counter DNS_EVENTS = "weave_dns_events_total" ["event"]
        "What became of questions and answers.";

    // The process.
    Counter PROCESS_CPU = "process_cpu_seconds_total" []
        "Time on a core, in user space and in the kernel.";
    Gauge PROCESS_START = "process_start_time_seconds" []
        "Start of the process since 1970.";
    Gauge PROCESS_RESIDENT = "process_resident_memory_bytes" []
        "Memory that is resident.";
    Gauge PROCESS_VIRTUAL = "process_virtual_memory_bytes" []
        "Memory that is mapped.";
    Gauge PROCESS_OPEN_FDS = "process_open_fds" []
        "Open file descriptors.";
    Gauge PROCESS_MAX_FDS = "process_max_fds" []
        "Most file descriptors.";
    Gauge PROCESS_THREADS = "process_threads" []
        "Threads.";

    // What runs beside it.
    Gauge DAEMON_RESIDENT = "weave_daemon_resident_memory_bytes" ["daemon"]
        "Memory of the keeper and of the DNS of this host (dns) that is resident; absent of one that does not run.";
}

/// A family for each counter of shards, in the order of [`Counters::values`].
pub(super) static SHARD: LazyLock<Vec<Family>> = LazyLock::new(|| {
    let family = |(name, meaning): &(&str, &'static str)| Family {
        name: format!("weave_shard_{name}_total").into(),
        kind: Kind::Counter,
        labels: &["shard"],
        help: meaning.trim().into(),
    };
    Counters::MEANINGS.iter().map(family).collect()
});

/// The whole table.
pub(super) fn all() -> impl Iterator<Item = &'static Family> {
    FIXED.iter().copied().chain(SHARD.iter())
}
