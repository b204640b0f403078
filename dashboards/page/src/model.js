// From documents to what the page shows. Pure: no element, no clock.

import { History } from "./history.js";
import { EXPECTED } from "./reasons.js";

/** The version of the document that is understood. */
export const VERSION = 1;
/** Two documents nearer than this give no rates, seconds. */
const NEAR_S = 0.4;
/** Changes remembered. */
const CHANGES_MAX = 100;
/** What `ShortId` says of what is no container. */
const NO_CONTAINER = "000000000000";

const LINK_COLUMNS = ["rx", "tx", "rx_frames", "tx_frames", "rtt"];
const ALL_COLUMNS = ["rx", "tx", "rx_frames", "tx_frames", "rtt", "drops"];
const COUNTED = ["rx_bytes", "tx_bytes", "rx_frames", "tx_frames"];
const NO_RATES = Object.fromEntries(COUNTED.map((field) => [field, null]));

/** What a link is known by from one document to the next. */
export const linkKey = (connection) => connection.peer ?? `${connection.direction} ${connection.address}`;

/** What a link is called. */
export const linkName = (connection) => connection.nickname ?? connection.peer ?? connection.address;

/** The sum of a list of counters of all shards, by name. */
export function summed(shards, field) {
  const sums = new Map();
  for (const shard of shards) {
    for (const [name, value] of Object.entries(shard[field] ?? {})) {
      sums.set(name, (sums.get(name) ?? 0) + value);
    }
  }
  return sums;
}

/** Follows one router. */
export class Model {
  #before = null;
  #run = null;
  #noted = 0;

  constructor() {
    /** What was seen to change, the newest first. */
    this.changes = [];
    this.#reset();
  }

  #reset() {
    /** Sums over all links. */
    this.all = new History(ALL_COLUMNS);
    /** Each link by its key. */
    this.links = new Map();
    this.#before = null;
  }

  /**
   * Takes a document that came at `arrived` (seconds of a clock that never jumps), which was `wall`
   * on the clock of the wall (seconds).
   * The answer is what the page shows.
   */
  take(report, arrived, wall) {
    // The router's own time, where it tells it: what is late on the way changes no rate.
    const now = report.taken_ms === undefined ? arrived : report.taken_ms / 1000;
    const { status } = report;
    const restarted = this.#run !== null && this.#run !== `${status.name} ${status.uid}`;
    if (restarted) {
      this.#reset();
      this.#note(wall, "warn", "The router was started anew");
    }
    this.#run = `${status.name} ${status.uid}`;
    const past = this.#before;
    const elapsed = past ? now - past.now : null;
    const near = past !== null && elapsed < NEAR_S;
    const links = status.connections.map((connection) => {
      const key = linkKey(connection);
      const was = past?.links.get(key);
      return { key, connection, rates: near ? was?.rates ?? NO_RATES : rates(connection, was?.connection, elapsed) };
    });
    const since = (values, was) => (near ? again(values, was) : counted(values, was, elapsed));
    const drops = since(summed(status.shards, "drops"), past?.drops);
    const view = {
      report,
      status,
      links,
      drops,
      counters: since(
        new Map([...Object.entries(status.counters), ...summed(status.shards, "counters")]),
        past?.counters,
      ),
      totals: totals(links, drops),
      names: report.names ?? [],
      namesLeftOut: report.names_left_out ?? 0,
      ...mesh(status, links, report.names ?? [], report.names_by_host ?? {}),
    };
    if (!near) {
      this.#remember(view, arrived);
      this.#compare(past, view, wall);
      this.#before = {
        now,
        links: new Map(links.map((each) => [each.key, each])),
        drops: new Map(drops.map((each) => [each.name, each])),
        counters: new Map(view.counters.map((each) => [each.name, each])),
        degraded: new Set(status.degraded.map((each) => each.name)),
      };
    }
    return view;
  }

  #remember(view, arrived) {
    const { totals: sum } = view;
    this.all.add(arrived, [sum.rx, sum.tx, sum.rx_frames, sum.tx_frames, sum.rtt, sum.drops]);
    const present = new Set();
    for (const each of view.links) {
      present.add(each.key);
      if (!this.links.has(each.key)) this.links.set(each.key, new History(LINK_COLUMNS));
      const { rates } = each;
      const rtt = each.connection.rtt_us ?? null;
      this.links.get(each.key).add(arrived, [rates.rx_bytes, rates.tx_bytes, rates.rx_frames, rates.tx_frames, rtt]);
    }
    for (const key of this.links.keys()) {
      if (!present.has(key)) this.links.delete(key);
    }
  }

  #compare(past, view, wall) {
    if (!past) return;
    const seen = new Set();
    for (const each of view.links) {
      seen.add(each.key);
      const was = past.links.get(each.key)?.connection;
      const is = each.connection;
      if (was?.state === is.state) continue;
      if (!was && is.state !== "established") continue;
      const why = is.reason ? `: ${is.reason}` : "";
      this.#note(wall, severity(is.state), `Link to ${linkName(is)} ${is.state}${why}`);
    }
    for (const [key, each] of past.links) {
      if (!seen.has(key) && each.connection.state === "established") {
        this.#note(wall, "bad", `Link to ${linkName(each.connection)} lost`);
      }
    }
    for (const { name, reason } of view.status.degraded) {
      if (!past.degraded.has(name)) this.#note(wall, "warn", `Degraded, ${name}: ${reason}`);
    }
    for (const name of past.degraded.keys()) {
      if (!view.status.degraded.some((each) => each.name === name)) this.#note(wall, "ok", `No longer degraded: ${name}`);
    }
  }

  #note(wall, level, text) {
    this.#noted += 1;
    this.changes.unshift({ number: this.#noted, wall, level, text });
    this.changes.length = Math.min(this.changes.length, CHANGES_MAX);
  }
}

/** An attempt of others that was turned away: anybody can make one, it says nothing of this host's links. */
export function isRefused({ direction, state }) {
  return direction === "inbound" && state === "failed";
}

/** How a state is to be taken: ok, warn or bad. */
export function severity(state) {
  if (state === "established") return "ok";
  return state === "connecting" || state === "pending" ? "warn" : "bad";
}

/** Growth a second of what a link counts; null where it is not known. */
function rates(connection, was, elapsed) {
  return Object.fromEntries(
    COUNTED.map((field) => {
      const grown = was && connection.peer ? connection[field] - was[field] : -1;
      // A link that was made anew counts from 0 again.
      return [field, grown >= 0 ? grown / elapsed : null];
    }),
  );
}

const byName = (a, b) => (a.name < b.name ? -1 : 1);

function counted(values, past, elapsed) {
  const all = [...values].map(([name, total]) => {
    const was = past?.get(name);
    return { name, total, rate: was && total >= was.total ? (total - was.total) / elapsed : null };
  });
  return all.sort(byName);
}

/** The same with the rates of before. */
function again(values, past) {
  return [...values].map(([name, total]) => ({ name, total, rate: past?.get(name)?.rate ?? null })).sort(byName);
}

function sum(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length > 0 ? known.reduce((a, b) => a + b, 0) : null;
}

function totals(links, drops) {
  const established = links.filter((each) => each.connection.state === "established");
  const times = established.map((each) => each.connection.rtt_us).filter((time) => time !== undefined && time !== null);
  const lost = drops.filter((each) => !EXPECTED.has(each.name));
  // Without a link the sum is 0; with one it is not known before the second document.
  const all = (field) => (established.length > 0 ? sum(established.map((each) => each.rates[field])) : 0);
  return {
    rx: all("rx_bytes"),
    tx: all("tx_bytes"),
    rx_frames: all("rx_frames"),
    tx_frames: all("tx_frames"),
    rtt: times.length > 0 ? Math.max(...times) : null,
    drops: sum(lost.map((each) => each.rate)),
    dropped: sum(lost.map((each) => each.total)) ?? 0,
    established: established.length,
    links: links.filter((each) => !isRefused(each.connection)).length,
  };
}

/** Hosts, and the links between them as both ends tell. */
function mesh(status, links, names, namesByHost) {
  const hosts = new Map();
  const host = (name, nickname) => {
    if (!hosts.has(name)) {
      hosts.set(name, {
        key: name,
        name,
        nickname,
        own: name === status.name,
        link: null,
        route: null,
        peers: new Map(),
        names: [],
        nameCount: 0,
        containers: new Set(),
      });
    }
    return hosts.get(name);
  };
  host(status.name, status.nickname);
  for (const peer of status.peers) host(peer.name, peer.nickname);
  const edges = new Map();
  for (const peer of status.peers) {
    for (const told of peer.connections) {
      const other = host(told.peer, told.nickname);
      const [a, b] = [peer.name, told.peer].sort();
      const key = `${a} ${b}`;
      const known = edges.get(key);
      const edge = {
        key,
        a,
        b,
        // Data passes if both ends that tell of it say so.
        established: told.established && (known?.established ?? true),
        encrypted: told.encrypted && (known?.encrypted ?? true),
        link: null,
      };
      edges.set(key, edge);
      host(peer.name).peers.set(other.name, edge);
      other.peers.set(peer.name, edge);
    }
  }
  for (const route of status.routes) host(route.peer, route.nickname).route = route;
  for (const each of links) {
    const { connection } = each;
    if (isRefused(connection)) continue;
    const end = connection.peer ? host(connection.peer, connection.nickname) : strange(hosts, each);
    end.link = each;
    const [a, b] = [status.name, end.key].sort();
    const key = `${a} ${b}`;
    const edge = edges.get(key) ?? { key, a, b, established: false, encrypted: connection.encrypted ?? false, link: null };
    edge.link = each;
    edges.set(key, edge);
    hosts.get(status.name).peers.set(end.key, edge);
    end.peers.set(status.name, edge);
  }
  for (const entry of names) {
    const at = hosts.get(entry.origin);
    if (!at) continue;
    at.names.push(entry);
    if (isContainer(entry.container)) at.containers.add(entry.container);
  }
  for (const each of hosts.values()) each.nameCount = Math.max(namesByHost[each.key] ?? 0, each.names.length);
  return { hosts, edges: [...edges.values()] };
}

/** A target that nobody has answered at. */
function strange(hosts, each) {
  const key = `? ${each.key}`;
  const host = {
    key,
    name: null,
    nickname: each.connection.address,
    own: false,
    link: each,
    route: null,
    peers: new Map(),
    names: [],
    nameCount: 0,
    containers: new Set(),
  };
  hosts.set(key, host);
  return host;
}

/** How many containers of a host have names; null where names of it are left out. */
export const containers = (host) => (host.nameCount > host.names.length ? null : host.containers.size);

/** True for the beginning of a container's id. */
export const isContainer = (id) => id !== undefined && id !== null && id !== NO_CONTAINER;

/** The way to a host, in words. */
export function way(host) {
  if (host.own) return "this host";
  if (host.name === null) return "no answer";
  if (host.link?.connection.state === "established") return "direct";
  const { route } = host;
  if (!route) return host.link ? host.link.connection.state : "unreachable";
  if (route.via === host.name) return "direct";
  return `via ${route.via_nickname}, ${route.hops} links`;
}

/** Whether what goes to a host is sealed on the whole way: true, false or null. */
export function sealed(host) {
  if (host.own) return null;
  const { route, link: own } = host;
  if (route) return route.encrypted;
  return own?.connection.encrypted ?? null;
}
