// Reports as a router gives them, made from a seed: `node tests/recorded.mjs HOSTS [SEED]` prints one.

import { pathToFileURL } from "node:url";
import { REASONS } from "../src/reasons.js";

/** Numbers from 0 to 1 that only the seed decides (mulberry32). */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const hex = (number, digits) => number.toString(16).padStart(digits, "0");
const peerName = (index) => `02:00:00:00:${hex(index >> 8, 2)}:${hex(index & 255, 2)}`;
const ROLES = ["web", "db", "cache", "queue", "mail", "build"];

/**
 * A network seen by its host 0. Options: `hosts`, `seed`, `direct` (links of host 0),
 * `nickname(index)`, `full` (every host links with every other).
 * `at(second)` is the report at that time, `link(index)` what host 0 carries each second.
 */
export function recorded({ hosts = 100, seed = 1, direct = 12, nickname = null, full = false, clear = false } = {}) {
  const next = random(seed);
  const between = (least, most) => least + Math.floor(next() * (most - least + 1));
  const nick = nickname ?? ((index) => `host-${index}`);
  const pairs = new Map();
  const join = (a, b) => {
    if (a === b || pairs.has(`${Math.min(a, b)} ${Math.max(a, b)}`)) return;
    // Host 0's own network is sealed or clear; elsewhere some links are readable (trusted subnets).
    const sealed = !clear && next() > 0.06;
    pairs.set(`${Math.min(a, b)} ${Math.max(a, b)}`, { dialler: a, other: b, sealed, up: a === 0 || b === 0 || next() > 0.02 });
  };
  for (let index = 1; index < hosts; index += 1) {
    if (full || index <= direct) join(index, 0);
    else join(index, 1 + ((index - 1) % direct));
    if (full) for (let other = 1; other < index; other += 1) join(index, other);
    else if (index > 2 && next() < 0.35) join(index, between(1, index - 1));
  }
  const ends = (index) => [...pairs.values()].filter((pair) => pair.dialler === index || pair.other === index);
  const address = (index) => `10.${index >> 8}.${index & 255}.1:6783`;
  const carried = new Map();
  for (const pair of ends(0)) {
    const peer = pair.dialler === 0 ? pair.other : pair.dialler;
    const scale = 10 ** (3 + next() * 5.4);
    carried.set(peer, {
      rx_bytes: Math.round(scale * (0.5 + next())),
      tx_bytes: Math.round(scale * (0.5 + next())),
      rx_frames: Math.round(scale / between(300, 1300)),
      tx_frames: Math.round(scale / between(300, 1300)),
      rtt_us: between(180, 42_000),
      sealed: pair.sealed,
      outbound: pair.dialler === 0,
    });
  }
  const dropped = new Map(
    [...REASONS.keys()].map((name) => [name, { local: 40, no_route: 3, send_queue_full: 120, too_big: 1 }[name] ?? 0]),
  );
  const names = [];
  for (let index = 0; index < hosts; index += 1) {
    for (let number = 0; number < 1 + (index % 4); number += 1) {
      const container = number === 3 ? "000000000000" : hex(0x5ea000000000 + index * 4096 + number * 17, 12);
      names.push({
        name: `${ROLES[(index + number) % ROLES.length]}-${index}.weave.local`,
        address: `10.2.${index}.${number + 1}`,
        container,
        origin: peerName(index),
        nickname: nick(index),
      });
    }
  }
  const macs = [...Array(hosts).keys()].map((index) => ({
    mac: `a2:00:00:00:${hex(index >> 8, 2)}:${hex(index & 255, 2)}`,
    peer: peerName(index),
    nickname: nick(index),
    source: index % 3 === 0 ? "learned" : "attached",
    idle_s: index % 60,
  }));
  const peers = [...Array(hosts).keys()].map((index) => ({
    name: peerName(index),
    nickname: nick(index),
    uid: hex(index + 1, 16),
    connections: ends(index).map((pair) => {
      const peer = pair.dialler === index ? pair.other : pair.dialler;
      const outbound = pair.dialler === index;
      return {
        direction: outbound ? "outbound" : "inbound",
        address: address(peer),
        peer: peerName(peer),
        nickname: nick(peer),
        established: pair.up,
        encrypted: pair.sealed,
      };
    }),
  }));
  const routes = [];
  for (let index = 1; index < hosts; index += 1) {
    const own = carried.get(index);
    const via = own ? index : 1 + ((index - 1) % direct);
    routes.push({
      peer: peerName(index),
      nickname: nick(index),
      via: peerName(via),
      via_nickname: nick(via),
      hops: own ? 1 : 2,
      encrypted: own ? own.sealed : carried.get(via).sealed && pairs.get(`${via} ${index}`).sealed,
      broadcast_from: true,
      broadcast_to: [],
    });
  }

  function at(second) {
    const connections = [...carried].map(([peer, each]) => ({
      direction: each.outbound ? "outbound" : "inbound",
      address: address(peer),
      state: "established",
      since_s: 3600 + second,
      encrypted: each.sealed,
      peer: peerName(peer),
      nickname: nick(peer),
      mtu: 1376,
      rtt_us: each.rtt_us,
      lanes_in: 2,
      lanes_out: 2,
      tx_frames: 1000 + each.tx_frames * second,
      tx_bytes: 1_000_000 + each.tx_bytes * second,
      rx_frames: 1000 + each.rx_frames * second,
      rx_bytes: 1_000_000 + each.rx_bytes * second,
    }));
    const shards = [0, 1].map((shard) => ({
      shard,
      counters: { back_pressure: 0, datagrams_received: 5000 * second, datagrams_sent: 4000 * second, turns: 900 * second },
      drops: Object.fromEntries([...dropped].map(([name, each]) => [name, each * (second + 2)])),
    }));
    return {
      version: 1,
      taken_ms: 1000 * second,
      status: {
        version: "0.1.0",
        protocol: [1, 1],
        name: peerName(0),
        nickname: nick(0),
        uid: hex(1, 16),
        pid: 4242,
        uptime_s: 93_784 + second,
        port: 6783,
        encrypted: !clear,
        discovery: true,
        mtu: 1376,
        conn_limit: 200,
        trusted_subnets: [],
        targets: [],
        connections,
        peers,
        routes,
        macs,
        shards,
        counters: { gossip_accepted: 300 + second, handshakes_failed: 2, heartbeats_sent: 6 * second, links_lost: 1, links_made: connections.length + 1, rekeys: 12 },
        degraded: [],
      },
      names,
      names_left_out: 0,
    };
  }
  return { at, carried, peerName, nick };
}

/** As `/events` sends it. */
export function event(report) {
  return { ...report, status: { ...report.status, macs: [] } };
}

/** Adds what an operator is called for: links that are down, slow ways. */
export function troubled(report) {
  const { status } = report;
  const blank = { since_s: 12, lanes_in: 0, lanes_out: 0, tx_frames: 0, tx_bytes: 0, rx_frames: 0, rx_bytes: 0 };
  const connections = [
    ...status.connections.map((connection, index) =>
      index === 1
        ? { ...connection, degraded: [{ name: "small_path", reason: "the path carries datagrams of 1280 bytes at most: larger frames are cut or come in fragments; more is tried within a minute", since_s: 75 }] }
        : connection,
    ),
    { ...blank, direction: "outbound", address: "backup.example.net", state: "retrying", reason: "connection refused: no router listens at 192.0.2.77:6783", retry_in_s: 8 },
    { ...blank, direction: "outbound", address: "192.0.2.99", state: "failed", reason: "it has another password", retry_in_s: 55 },
  ];
  const degraded = [{ name: "plain_reads", reason: "reading many frames at once needs Linux 6.7", since_s: status.uptime_s }];
  return { ...report, status: { ...status, connections, degraded } };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [hosts = "100", seed = "1"] = process.argv.slice(2);
  process.stdout.write(`${JSON.stringify(troubled(recorded({ hosts: Number(hosts), seed: Number(seed) }).at(60)))}\n`);
}
