// What needs no browser: numbers, rates, the places of hosts.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bits, bytes, count, duration, micros, rate, shortened, UNKNOWN } from "../src/format.js";
import { History, KEPT_S } from "../src/history.js";
import { layout } from "../src/layout.js";
import { containers, Model, sealed, summed, way } from "../src/model.js";
import { recorded, troubled } from "./recorded.mjs";

test("numbers have three digits and their unit", () => {
  assert.equal(bits(125), "1.00 kbit/s");
  assert.equal(bits(0), "0 bit/s");
  assert.equal(bits(154_320_987), "1.23 Gbit/s");
  assert.equal(bytes(999), "999 B");
  assert.equal(bytes(999_600), "1.00 MB");
  assert.equal(rate(12.34), "12.3 /s");
  assert.equal(rate(0.5), "0.50 /s");
  assert.equal(micros(374), "374 µs");
  assert.equal(micros(4_321), "4.32 ms");
  assert.equal(micros(2_500_000), "2.50 s");
  assert.equal(duration(93_784), "1 d 2 h");
  assert.equal(duration(59), "59 s");
  assert.equal(duration(3600), "1 h");
  assert.equal(count(1234567), "1,234,567");
  for (const unknown of [bits(null), rate(undefined), micros(null), duration(null), count(null)]) assert.equal(unknown, UNKNOWN);
});

test("long names lose their middle, whole characters only", () => {
  assert.equal(shortened("short", 8), "short");
  assert.equal(Array.from(shortened("a-very-long-host-name", 12)).length, 12);
  assert.equal(shortened("😀😀😀😀😀", 4), "😀😀…😀");
});

test("rates are what the counters grew by, over the router's own time", () => {
  const world = recorded({ hosts: 3, direct: 2 });
  const model = new Model();
  assert.equal(model.take(world.at(0), 0, 0).links[0].rates.rx_bytes, null);
  // The second document is late on its way.
  const view = model.take(world.at(2), 3.7, 3.7);
  for (const { connection, rates } of view.links) {
    const each = [...world.carried].find(([peer]) => world.peerName(peer) === connection.peer)[1];
    for (const field of ["rx_bytes", "tx_bytes", "rx_frames", "tx_frames"]) assert.equal(rates[field], each[field]);
  }
  const dropped = summed(world.at(2).status.shards, "drops");
  assert.equal(view.drops.find(({ name }) => name === "no_route").total, dropped.get("no_route"));
  assert.equal(view.drops.find(({ name }) => name === "no_route").rate, 6);
  // Frames for stations of the host itself are no loss.
  assert.equal(view.totals.drops, 2 * (3 + 120 + 1));
});

test("without the router's time the time of arrival counts", () => {
  const world = recorded({ hosts: 2, direct: 1 });
  const bare = (second) => ({ ...world.at(second), taken_ms: undefined });
  const model = new Model();
  model.take(bare(0), 10, 0);
  const [{ rates }] = model.take(bare(1), 12, 2).links;
  assert.equal(rates.rx_bytes, world.carried.get(1).rx_bytes / 2);
});

test("a link made anew has no rate until it is seen twice, and never a negative one", () => {
  const world = recorded({ hosts: 2, direct: 1 });
  const model = new Model();
  model.take(world.at(5), 5, 5);
  const anew = world.at(6);
  anew.status.connections[0].rx_bytes = 10;
  assert.equal(model.take(anew, 6, 6).links[0].rates.rx_bytes, null);
});

test("documents that follow at once leave rates as they are", () => {
  const world = recorded({ hosts: 2, direct: 1 });
  const model = new Model();
  model.take(world.at(0), 0, 0);
  const before = model.take(world.at(1), 1, 1);
  const after = model.take({ ...world.at(1), taken_ms: 1001 }, 1.001, 1.001);
  assert.deepEqual(after.links, before.links);
  assert.deepEqual(after.drops, before.drops);
});

test("changes are told: a link lost, one that comes, a degraded state, a restart", () => {
  const world = recorded({ hosts: 3, direct: 2 });
  const model = new Model();
  const texts = () => model.changes.map(({ text }) => text);
  model.take(world.at(0), 0, 0);
  assert.deepEqual(texts(), []);
  const less = world.at(1);
  const [gone] = less.status.connections.splice(0, 1);
  less.status.degraded = [{ name: "no_uso", reason: "old kernel", since_s: 1 }];
  model.take(less, 1, 1);
  assert.deepEqual(texts(), ["Degraded, no_uso: old kernel", `Link to ${gone.nickname} lost`]);
  model.take(world.at(2), 2, 2);
  assert.deepEqual(texts().slice(0, 2), ["No longer degraded: no_uso", `Link to ${gone.nickname} established`]);
  const restarted = world.at(3);
  restarted.status.uid = "ffffffffffffffff";
  const view = model.take(restarted, 3, 3);
  assert.equal(texts()[0], "The router was started anew");
  assert.equal(view.links[0].rates.rx_bytes, null);
});

test("hosts, links and ways are those of the document", () => {
  const world = recorded({ hosts: 40, direct: 6 });
  const report = troubled(world.at(1));
  const { hosts, edges } = new Model().take(report, 1, 1);
  assert.equal(hosts.size, 40 + 2, "and two targets without an answer");
  const told = new Set(
    report.status.peers.flatMap((peer) => peer.connections.map((other) => [peer.name, other.peer].sort().join())),
  );
  assert.equal(edges.length, told.size + 2);
  const relayed = report.status.routes.find((route) => route.hops === 2);
  assert.equal(way(hosts.get(relayed.peer)), `via ${relayed.via_nickname}, 2 links`);
  assert.equal(sealed(hosts.get(relayed.peer)), relayed.encrypted);
  assert.equal(way(hosts.get(report.status.name)), "this host");
  assert.deepEqual([...hosts.values()].filter(({ name }) => name === null).map(way), ["no answer", "no answer"]);
});

test("strangers that were turned away are no links and no hosts of the network", () => {
  const world = recorded({ hosts: 3, direct: 2 });
  const report = world.at(1);
  const [known] = report.status.connections;
  report.status.connections.push({ ...known, direction: "inbound", address: "192.0.2.66", state: "failed", peer: undefined, nickname: undefined });
  const view = new Model().take(report, 1, 1);
  assert.equal(view.links.length, 3, "it is told");
  assert.deepEqual([view.totals.established, view.totals.links, view.hosts.size], [2, 2, 3]);
});

test("hosts have all their names, also those that are left out", () => {
  const world = recorded({ hosts: 3, direct: 2 });
  const whole = world.at(1);
  const count = (peer) => whole.names.filter((entry) => entry.origin === peer).length;
  const peers = whole.status.peers.map((peer) => peer.name);
  const few = { ...whole, names: whole.names.filter((entry) => entry.origin === peers[0]), names_left_out: 9, names_by_host: Object.fromEntries(peers.map((peer) => [peer, count(peer)])) };
  for (const report of [whole, few]) {
    const { hosts } = new Model().take(report, 1, 1);
    assert.deepEqual(peers.map((peer) => hosts.get(peer).nameCount), peers.map(count));
  }
  const { hosts } = new Model().take(few, 1, 1);
  assert.ok(containers(hosts.get(peers[0])) > 0);
  assert.equal(containers(hosts.get(peers[1])), null, "not known");
});

test("a nickname is no key: two hosts of one name stay two", () => {
  const world = recorded({ hosts: 5, direct: 4, nickname: () => "__proto__" });
  const { hosts } = new Model().take(world.at(1), 1, 1);
  assert.equal(hosts.size, 5);
});

test("history keeps ten minutes and shows gaps", () => {
  const history = new History(["a"]);
  for (let time = 0; time <= KEPT_S + 50; time += 1) history.add(time, [time]);
  assert.equal(history.times[0], 50);
  history.add(KEPT_S + 60, [1]);
  assert.deepEqual(history.column("a").slice(-2), [null, 1]);
});

for (const [hosts, width, full] of [[2, 900, false], [100, 900, false], [100, 900, true], [100, 340, false], [300, 900, false]]) {
  test(`${hosts} hosts on a map ${width} wide${full ? ", all linked" : ""} stand apart and inside`, () => {
    const world = recorded({ hosts, direct: Math.min(12, hosts - 1), full });
    const { hosts: all, edges } = new Model().take(world.at(1), 1, 1);
    const { places, height } = layout([...all.values()], edges, width);
    const points = [...places.values()];
    assert.equal(points.length, hosts);
    for (const { x, y } of points) assert.ok(x > 40 && x < width - 40 && y > 15 && y < height - 35, `${x} ${y} of ${width} ${height}`);
    // The signs and the first lines of their labels do not cover each other.
    const near = points.flatMap((a, index) => points.slice(index + 1).filter((b) => Math.abs(a.x - b.x) < 40 && Math.abs(a.y - b.y) < 26));
    assert.ok(near.length <= hosts / 50, `${near.length} pairs too near`);
    assert.deepEqual(layout([...all.values()].reverse(), edges, width).places, places, "the same hosts, the same map");
  });
}
