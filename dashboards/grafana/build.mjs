// Makes the dashboards: `npm ci && npm run build`. With --check it only compares.
// @ts-check
import { readFileSync, writeFileSync } from "node:fs";
import * as common from "@grafana/grafana-foundation-sdk/common";
import * as d from "@grafana/grafana-foundation-sdk/dashboard";
import * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import * as stat from "@grafana/grafana-foundation-sdk/stat";
import * as table from "@grafana/grafana-foundation-sdk/table";
import * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";

const SOURCE = { type: "prometheus", uid: "${datasource}" };

/** @param {string} expr @param {string} legend */
function query(expr, legend) {
  return new prometheus.DataqueryBuilder().expr(expr).legendFormat(legend).range();
}

/** @typedef {{ title: string, unit: string, help: string, of: [string, string][], width?: number, stack?: boolean }} Chart */

/** A chart of one or more queries. @param {Chart} chart */
function chart({ title, unit, help, of, width = 12, stack = false }) {
  const panel = new timeseries.PanelBuilder().title(title).description(help).unit(unit).datasource(SOURCE)
    .span(width).height(8).min(0).fillOpacity(10).showPoints(common.VisibilityMode.Never)
    .tooltip(new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending));
  if (stack) panel.stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal).group("A"));
  of.forEach(([expr, legend]) => panel.withTarget(query(expr, legend)));
  return panel;
}

/** The newest value. @param {string} title @param {string} unit @param {string} expr @param {string} help */
function value(title, unit, expr, help, width = 4) {
  return new stat.PanelBuilder().title(title).description(help).unit(unit).datasource(SOURCE).span(width).height(4)
    .withTarget(new prometheus.DataqueryBuilder().expr(expr).instant());
}

/** A list of what there is now. @param {string} title @param {string} expr @param {string} help */
function list(title, expr, help, width = 12) {
  return new table.PanelBuilder().title(title).description(help).datasource(SOURCE).span(width).height(8)
    .withTarget(new prometheus.DataqueryBuilder().expr(expr).instant().format(prometheus.PromQueryFormat.Table))
    .withTransformation({ id: "organize", options: { excludeByName: { Time: true, __name__: true, job: true } } });
}

/** A variable out of the labels of a family. @param {string} name @param {string} expr */
function variable(name, expr, all = false) {
  return new d.QueryVariableBuilder(name).label(name).datasource(SOURCE).query(expr)
    .refresh(d.VariableRefresh.OnTimeRangeChanged).sort(d.VariableSort.AlphabeticalAsc).includeAll(all).multi(all);
}

/** @param {string} uid @param {string} title @param {d.QueryVariableBuilder[]} variables @param {any[]} panels */
function board(uid, title, variables, panels) {
  const builder = new d.DashboardBuilder(`Weave: ${title}`).uid(`weave-${uid}`).tags(["weave"]).refresh("30s")
    .time({ from: "now-1h", to: "now" }).timezone("browser").tooltip(d.DashboardCursorSync.Crosshair)
    .link(new d.DashboardLinkBuilder("Weave").type(d.DashboardLinkType.Dashboards).tags(["weave"]).asDropdown(true).includeVars(true).keepTime(true))
    .withVariable(new d.DatasourceVariableBuilder("datasource").label("data source").type("prometheus"))
    .withVariable(variable("job", "label_values(weave_build_info, job)"));
  variables.forEach((one) => builder.withVariable(one));
  panels.forEach((panel) => builder.withPanel(panel));
  return builder.build();
}

const J = 'job="$job"';
const I = 'job="$job", instance="$instance"';
const L = `${I}, nickname="$peer"`;
const instance = variable("instance", 'label_values(weave_build_info{job="$job"}, instance)');
const peer = variable("peer", 'label_values(weave_link_up{job="$job", instance="$instance"}, nickname)');
const RATE = "[$__rate_interval]";
const quantile = (/** @type {number} */ q, /** @type {string} */ name, /** @type {string} */ where, by = "le") =>
  `histogram_quantile(${q}, sum by (${by}) (rate(${name}_bucket{${where}}${RATE})))`;

const boards = {
  overview: board("overview", "overview", [], [
    value("Hosts up", "none", `sum(up{${J}})`, "Routers that answer."),
    value("Hosts down", "none", `count(up{${J}} == 0) or vector(0)`, "Routers that do not answer."),
    value("Links", "none", `sum(weave_connections{${J}, state="established"}) / 2`, "Links that pass data, each counted once."),
    value("Not linked", "none", `sum(weave_targets{${J}, state=~"connecting|retrying"})`, "Peers that hosts are told to dial and are not linked to."),
    value("Views of the network", "none", `count(count_values("digest", weave_topology_digest{${J}}))`, "1 when all hosts agree."),
    value("Stations", "none", `sum(weave_stations{${J}, source="attached"})`, "Containers attached to all hosts."),
    chart({ title: "Traffic sent", unit: "Bps", help: "Bytes of frames that each host sends over its links.", stack: true,
      of: [[`sum by (instance) (rate(weave_lane_bytes_total{${J}, direction="out"}${RATE}))`, "{{instance}}"]] }),
    chart({ title: "Frames sent", unit: "pps", help: "Frames that each host sends over its links.", stack: true,
      of: [[`sum by (instance) (rate(weave_lane_frames_total{${J}, direction="out"}${RATE}))`, "{{instance}}"]] }),
    chart({ title: "Links by state", unit: "none", help: "Links and attempts of all hosts; a link counts at both ends.",
      of: [[`sum by (state) (weave_connections{${J}})`, "{{state}}"]] }),
    chart({ title: "Links lost", unit: "none", help: "Links lost in each five minutes.",
      of: [[`sum by (instance) (increase(weave_connection_terminations_total{${J}}[5m]))`, "{{instance}}"]] }),
    chart({ title: "Round trips, 99 %", unit: "s", help: "Of heartbeats, over all links of a host.",
      of: [[quantile(0.99, "weave_heartbeat_round_trip_seconds", J, "instance, le"), "{{instance}}"]] }),
    chart({ title: "Drops by reason", unit: "pps", help: "Frames and datagrams that went no further, without those between stations of one host.",
      of: [[`sum by (reason) (rate(weave_drops_total{${J}, reason!="local"}${RATE})) > 0`, "{{reason}}"]] }),
    list("Links that work more slowly", `weave_link_degraded{${J}} > 0`, "See the runbook, WeaveLinkDegraded."),
    list("Routers that work more slowly", `weave_degraded{${J}} > 0`, "See the runbook, WeaveContainersCut and WeaveRouterDegraded."),
    list("Hosts", `weave_host_info{${J}} * on (job, instance) group_left (version) weave_build_info`, "Name, nickname and version of each router.", 24),
  ]),

  host: board("host", "one host", [instance], [
    value("Uptime", "s", `weave_uptime_seconds{${I}}`, "Since the router began to forward."),
    value("Links", "none", `sum(weave_connections{${I}, state="established"})`, "Links that pass data."),
    value("Peers", "none", `weave_peers{${I}}`, "Hosts that can be reached, this one among them."),
    value("Relayed", "none", `weave_routes{${I}, way="relayed"}`, "Hosts that are reached by way of others."),
    value("Containers", "none", `weave_stations{${I}, source="attached"}`, "Attached to this host."),
    value("Encrypted", "bool_yes_no", `weave_network_encrypted{${I}}`, "Whether the network has a password."),
    chart({ title: "Traffic out, by peer", unit: "Bps", help: "Bytes of frames.", stack: true,
      of: [[`rate(weave_link_bytes_total{${I}, direction="out"}${RATE})`, "{{nickname}}"]] }),
    chart({ title: "Traffic in, by peer", unit: "Bps", help: "Bytes of frames.", stack: true,
      of: [[`rate(weave_link_bytes_total{${I}, direction="in"}${RATE})`, "{{nickname}}"]] }),
    chart({ title: "Round trip, by peer", unit: "s", help: "Of the last heartbeat.",
      of: [[`weave_link_round_trip_seconds{${I}}`, "{{nickname}}"]] }),
    chart({ title: "Time of frames in the router", unit: "s", help: "From the tap to the kernel; one in 256 is timed.",
      of: [0.5, 0.99].map((q) => [quantile(q, "weave_frame_processing_seconds", I), `${q * 100} %`]) }),
    chart({ title: "Drops by reason", unit: "pps", help: "Frames and datagrams that went no further; local: between stations of this host.",
      of: [[`sum by (reason) (rate(weave_drops_total{${I}}${RATE})) > 0`, "{{reason}}"]] }),
    chart({ title: "Frames relayed", unit: "pps", help: "For other hosts.",
      of: [[`sum(rate(weave_shard_frames_relayed_total{${I}}${RATE}))`, "frames"]] }),
    chart({ title: "Datagrams for each system call's send", unit: "none", help: "How well sends are batched, by shard.",
      of: [[`rate(weave_shard_datagrams_sent_total{${I}}${RATE}) / rate(weave_shard_sends_total{${I}}${RATE})`, "shard {{shard}}"]] }),
    chart({ title: "Buffers in use", unit: "none", help: "When the control core last spoke to a shard.",
      of: [[`weave_shard_buffers_used{${I}}`, "{{kind}}, shard {{shard}}"]] }),
    chart({ title: "Entries of the rings in use", unit: "none", help: "When the control core last spoke to a shard.",
      of: [[`weave_shard_ring_entries{${I}}`, "{{queue}}, shard {{shard}}"]] }),
    chart({ title: "Waits and exhausted buffers", unit: "cps", help: "Times that reading stopped because sends or buffers were full.",
      of: [[`sum(rate(weave_shard_back_pressure_total{${I}}${RATE}))`, "back pressure"],
        [`sum(rate(weave_shard_buffers_exhausted_total{${I}}${RATE}))`, "buffers exhausted"]] }),
    chart({ title: "Gossip", unit: "cps", help: "What was done with what peers tell.",
      of: [[`rate(weave_gossip_events_total{${I}}${RATE}) > 0`, "{{event}}"]] }),
    chart({ title: "Handshakes, links, keys", unit: "none", help: "In each five minutes.",
      of: [[`increase(weave_links_made_total{${I}}[5m])`, "links made"], [`increase(weave_connection_terminations_total{${I}}[5m])`, "links lost"],
        [`increase(weave_handshakes_failed_total{${I}}[5m])`, "handshakes failed"], [`increase(weave_rekeys_total{${I}}[5m])`, "keys replaced"]] }),
    chart({ title: "Requests", unit: "cps", help: "Over the control socket and over HTTP.",
      of: [[`rate(weave_control_requests_total{${I}}${RATE})`, "{{request}}"], [`rate(weave_http_requests_total{${I}}${RATE})`, "http {{result}}"]] }),
    list("Links", `weave_link_age_seconds{${I}}`, "Seconds since each was made.", 24),
  ]),

  link: board("link", "one link", [instance, peer], [
    value("Up", "bool_yes_no", `max(weave_link_up{${L}})`, "Whether it passes data."),
    value("Encrypted", "bool_yes_no", `max(weave_link_encrypted{${L}})`, "Whether data crosses it encrypted."),
    value("Age", "s", `max(weave_link_age_seconds{${L}})`, "Since it was made."),
    value("Path MTU", "decbytes", `max(weave_link_path_mtu_bytes{${L}})`, "Largest datagram."),
    value("Round trip", "s", `max(weave_link_round_trip_seconds{${L}})`, "Of the last heartbeat."),
    value("Lanes out", "none", `max(weave_link_lanes{${L}, direction="out"})`, "That pass data."),
    chart({ title: "Traffic", unit: "Bps", help: "Bytes of frames.",
      of: [[`rate(weave_link_bytes_total{${L}}${RATE})`, "{{direction}}"]] }),
    chart({ title: "Frames", unit: "pps", help: "Frames.",
      of: [[`rate(weave_link_frames_total{${L}}${RATE})`, "{{direction}}"]] }),
    chart({ title: "Mean size of frames", unit: "decbytes", help: "Bytes for each frame.",
      of: [[`rate(weave_link_bytes_total{${L}}${RATE}) / rate(weave_link_frames_total{${L}}${RATE})`, "{{direction}}"]] }),
    chart({ title: "Round trip", unit: "s", help: "Of heartbeats.",
      of: [[`weave_link_round_trip_seconds{${L}}`, "round trip"]] }),
    chart({ title: "Age of keys", unit: "s", help: "Replaced after 120 s; at 180 s the link goes down.",
      of: [[`weave_link_session_age_seconds{${L}}`, "age"]] }),
    chart({ title: "Waiting for TCP", unit: "decbytes", help: "Bytes that wait to be written to the link's TCP connection.",
      of: [[`weave_link_queue_bytes{${L}}`, "bytes"]] }),
    list("Slower ways", `weave_link_degraded{${L}} > 0`, "See the runbook, WeaveLinkDegraded.", 24),
  ]),

  dns: board("dns", "DNS", [], [
    value("Answering", "none", `sum(weave_dns_up{${J}}) or vector(0)`, "Hosts whose DNS answers.", 5),
    value("Not answering", "none", `count(weave_dns_up{${J}} == 0) or vector(0)`, "Hosts whose DNS does not.", 5),
    value("Not to be asked", "none", `count(weave_dns_not_listening{${J}} > 0) or vector(0)`, "Hosts whose DNS cannot be asked at an address, mostly because another program has the port there.", 5),
    value("Without router", "none", `sum(weave_dns_router_lost{${J}}) or vector(0)`, "Hosts whose DNS hears nothing from the router.", 5),
    value("Names", "none", `max(weave_dns_names{${J}}) or vector(0)`, "That the DNS knows.", 4),
    chart({ title: "Questions", unit: "qps", help: "By host.",
      of: [[`sum by (instance) (rate(weave_dns_queries_total{${J}}${RATE}))`, "{{instance}}"]] }),
    chart({ title: "What became of them", unit: "qps", help: "Over all hosts.",
      of: [[`sum by (event) (rate(weave_dns_events_total{${J}}${RATE}))`, "{{event}}"]] }),
    chart({ title: "Names known, by host", unit: "none", help: "Equal on all hosts, but for moments.",
      of: [[`weave_dns_names{${J}}`, "{{instance}}"]] }),
    chart({ title: "Entries of each host", unit: "none", help: "Addresses that names of the host stand for.",
      of: [[`weave_dns_entries{${J}}`, "{{instance}}"]] }),
  ]),

  capacity: board("capacity", "capacity", [], [
    chart({ title: "Cores used", unit: "none", help: "By the router.",
      of: [[`rate(process_cpu_seconds_total{${J}}${RATE})`, "{{instance}}"]] }),
    chart({ title: "Memory", unit: "bytes", help: "Resident, of the router.",
      of: [[`process_resident_memory_bytes{${J}}`, "{{instance}}"]] }),
    chart({ title: "Links of those allowed", unit: "percentunit", help: "Established links by --conn-limit.",
      of: [[`sum by (instance) (weave_connections{${J}, state="established"}) / on (instance) weave_connections_max{${J}}`, "{{instance}}"]] }),
    chart({ title: "Peers", unit: "none", help: "That can be reached.",
      of: [[`weave_peers{${J}}`, "{{instance}}"]] }),
    chart({ title: "Stations known", unit: "none", help: "MAC addresses; tables hold 16,384.",
      of: [[`weave_flows{${J}}`, "{{instance}}"]] }),
    chart({ title: "What peers told", unit: "bytes", help: "Kept by each host.",
      of: [[`weave_gossip_store_bytes{${J}}`, "{{instance}}"]] }),
    chart({ title: "Lost because something was full", unit: "pps", help: "Queues and buffers of the router and its sockets.",
      of: [[`sum by (instance, reason) (rate(weave_drops_total{${J}, reason=~".*_full"}${RATE})) > 0`, "{{instance}} {{reason}}"]] }),
    chart({ title: "Limits of gossip reached", unit: "cps", help: "What peers tell that was refused for a limit.",
      of: [[`sum by (instance, event) (rate(weave_gossip_events_total{${J}, event=~".*_full|own_does_not_fit"}${RATE})) > 0`, "{{instance}} {{event}}"]] }),
    chart({ title: "Open files of those allowed", unit: "percentunit", help: "By the router.",
      of: [[`process_open_fds{${J}} / process_max_fds{${J}}`, "{{instance}}"]] }),
    chart({ title: "Waiting for the control core", unit: "none", help: "Events and reports.",
      of: [[`weave_control_queue_length{${J}}`, "{{instance}} {{queue}}"]] }),
  ]),
};

const check = process.argv.includes("--check");
for (const [name, made] of Object.entries(boards)) {
  const file = new URL(`${name}.json`, import.meta.url);
  const text = `${JSON.stringify(made, null, 2)}\n`;
  if (!check) writeFileSync(file, text);
  else if (readFileSync(file, "utf8") !== text) {
    console.error(`${name}.json is stale: npm run build`);
    process.exitCode = 1;
  }
}
