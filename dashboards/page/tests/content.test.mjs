// What the page shows is what the report says, in a real browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bits, bytes, count, micros, rate } from "../src/format.js";
import { summed } from "../src/model.js";
import { rows, second, shown, textOf, until, withBrowser } from "./browser.mjs";
import { recorded, troubled } from "./recorded.mjs";

withBrowser();
const named = (list, column, name) => list.find((row) => row[column] === name);


test("two hosts: what is shown is what the report says", async () => {
  const world = recorded({ hosts: 2, direct: 1 });
  await shown(world.at, {}, async (page) => {
    const { status, names } = world.at(2);
    const [connection] = status.connections;
    const carried = world.carried.get(1);
    assert.equal(await textOf(page, "#nickname"), "host-0");
    assert.equal(await textOf(page, "#name"), status.name);
    assert.equal(await textOf(page, "#seal"), "encrypted");
    assert.equal(await textOf(page, "#version"), "0.1.0");
    assert.equal(await textOf(page, "#uptime"), "1 d 2 h");
    assert.equal(await textOf(page, "#feed-state"), "live");
    assert.equal(await textOf(page, "#sum-hosts"), "2");
    assert.equal(await textOf(page, "#sum-links"), "1 up");
    assert.equal(await textOf(page, "#sum-rx"), bits(carried.rx_bytes));
    assert.equal(await textOf(page, "#sum-tx"), bits(carried.tx_bytes));
    assert.equal(await page.title(), "host-0 – weave");
    assert.deepEqual(await rows(page, "links"), [
      {
        Peer: "host-1",
        State: "established",
        Remarks: "",
        For: "1 h",
        Data: "encrypted",
        "Round trip": micros(connection.rtt_us),
        Receives: bits(carried.rx_bytes),
        Sends: bits(carried.tx_bytes),
        "Frames in": rate(carried.rx_frames),
        "Frames out": rate(carried.tx_frames),
        Received: bytes(connection.rx_bytes),
        Sent: bytes(connection.tx_bytes),
        MTU: "1,376",
        Address: `← ${connection.address}`,
      },
    ]);
    assert.deepEqual(
      (await rows(page, "names")).map((row) => row.Name).sort(),
      names.map((entry) => entry.name).sort(),
    );
    assert.equal(await page.locator("#degraded").isVisible(), false);
    assert.equal(await page.locator("#map [data-host]").count(), 2);
    assert.match(await page.locator("#map .own title").textContent(), /^host-0,\s.*this host/s);
  });
});

test("a hundred hosts: every link, host, name and drop of the report", async () => {
  const world = recorded({ hosts: 100 });
  const report = (time) => troubled(world.at(time));
  await shown(report, {}, async (page) => {
    const { status, names } = report(2);
    const links = await rows(page, "links");
    assert.equal(links.length, status.connections.length);
    assert.deepEqual(links.slice(0, 2).map((row) => row.State), ["failed", "retrying"], "what is wrong comes first");
    assert.match(links[1].Remarks, /^connection refused: .*; next try in 8 s$/);
    for (const [peer, carried] of world.carried) {
      const row = named(links, "Peer", world.nick(peer));
      assert.equal(row.Receives, bits(carried.rx_bytes));
      assert.equal(row.Sends, bits(carried.tx_bytes));
      assert.equal(row["Frames in"], rate(carried.rx_frames));
      assert.equal(row["Round trip"], micros(carried.rtt_us));
      assert.equal(row.Data, carried.sealed ? "encrypted" : "clear");
    }
    const hosts = await rows(page, "hosts");
    assert.equal(hosts.length, 100 + 2);
    for (const peer of status.peers) {
      const row = named(hosts, "Name", peer.name);
      assert.equal(row.Host, peer.nickname);
      assert.equal(row.Names, String(names.filter((entry) => entry.origin === peer.name).length));
    }
    for (const route of status.routes.filter(({ hops }) => hops > 1)) {
      const row = named(hosts, "Name", route.peer);
      assert.equal(row.Way, `via ${route.via_nickname}, ${route.hops} links`);
      assert.equal(row.Data, route.encrypted ? "encrypted" : "clear");
    }
    assert.equal((await rows(page, "names")).length, names.length);
    assert.equal(await textOf(page, "#sum-hosts"), "100");
    assert.equal(await textOf(page, "#sum-links"), `${world.carried.size} up, 2 not`);
    assert.match(await page.title(), /^2 down, host-0/);
    assert.deepEqual(
      await page.locator("#degraded-list .chip").allTextContents(),
      ["plain_reads", "small_path"],
    );
    const drops = await rows(page, "drops");
    const sums = summed(status.shards, "drops");
    assert.deepEqual(drops.map((row) => row.Reason), ["send_queue_full", "local", "no_route", "too_big"]);
    for (const row of drops) assert.equal(row.Total, count(sums.get(row.Reason)));
    assert.equal(named(drops, "Reason", "send_queue_full").Rate, rate(240));
    await page.click("#all-drops");
    assert.equal((await rows(page, "drops")).length, sums.size);
    // The map draws them all, each link by its state and kind.
    assert.equal(await page.locator("#map [data-host]").count(), 102);
    assert.equal(await page.locator("#map .link").count(), status.connections.length);
    assert.equal(await page.locator("#map .link.down").count(), 2);
    const clear = [...world.carried.values()].filter(({ sealed }) => !sealed).length;
    assert.ok(clear > 0);
    assert.equal(await page.locator("#map .link.clear").count(), clear);
    const dashes = (selector) => page.locator(`#map ${selector}`).first().evaluate((line) => getComputedStyle(line).strokeDasharray);
    assert.notEqual(await dashes(".link.clear"), await dashes(".link.sealed"), "not by colour alone");
  });
});

test("charts draw what came, in the colours of the scheme", async () => {
  const world = recorded({ hosts: 3, direct: 2 });
  await shown(world.at, { colorScheme: "light" }, async (page, server) => {
    // Time passes between samples of a chart, so this one waits for it.
    for (let index = 0; index < 3; index += 1) {
      await new Promise((resolve) => setTimeout(resolve, 300));
      await second(server, page, world.at);
    }
    const label = await page.locator(".chart").first().getAttribute("aria-label");
    const sum = [...world.carried.values()].reduce((total, each) => total + each.rx_bytes, 0);
    assert.ok(label.includes(`received: ${bits(sum)} now`), label);
    const drawn = () =>
      page.locator(".chart canvas").evaluateAll((all) =>
        all.map((canvas) => {
          const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
          copy.drawImage(canvas, 0, 0);
          const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
          let blue = 0;
          for (let index = 0; index < data.length; index += 4) if (data[index + 3] > 200 && data[index + 2] - data[index] > 60) blue += 1;
          return blue;
        }),
      );
    const light = await drawn();
    assert.equal(light.length, 4);
    for (const pixels of light) assert.ok(pixels > 3, `${light} pixels of the line`);
    const colour = () => page.locator(".u-wrap").count();
    await page.emulateMedia({ colorScheme: "dark" });
    assert.equal(await colour(), 4, "drawn again, once each");
    for (const pixels of await drawn()) assert.ok(pixels > 3);
    // A selected link has its own.
    await page.locator("#links [data-select]").first().click();
    assert.match(await textOf(page, "#charts-of"), /^Link to host-/);
    assert.equal(await page.locator("figure:visible").count(), 3, "drops are the router's, not a link's");
  });
});

test("hostile names are text and nothing else", async () => {
  const hostile = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "\"><svg onload=alert(3)>",
    "javascript:alert(4)",
    "__proto__",
    "constructor",
    "\u202Eevil\u202C\u0000\uFFFF",
    "</title></textarea><b>bold</b>",
    "x".repeat(5000),
    "{{7*7}}${7*7}",
  ];
  const world = recorded({ hosts: 10, direct: 9, nickname: (index) => hostile[index] });
  const report = (time) => {
    const made = world.at(time);
    made.status.connections[0].address = hostile[0];
    made.status.connections[1].reason = hostile[1];
    made.status.connections[1].state = "retrying";
    made.status.degraded = [{ name: hostile[2], reason: hostile[0], since_s: 1 }];
    made.status.version = hostile[1];
    made.status.counters[hostile[0]] = 1;
    made.status.shards[0].drops[hostile[2]] = 5;
    made.names[0] = { ...made.names[0], name: hostile[0], address: hostile[1], container: hostile[2] };
    return made;
  };
  await shown(report, {}, async (page, server) => {
    await page.locator("summary").click();
    await second(server, page, report);
    for (const key of ["#hosts", "#links"]) await page.locator(`${key} [data-select]`).nth(2).click();
    assert.equal(await textOf(page, "#nickname"), hostile[0]);
    const injected = await page.evaluate(() => ({
      images: document.images.length,
      scripts: document.scripts.length,
      bold: document.querySelectorAll("main b b, table b, table script, table svg[onload], [onerror], [onload]").length,
      polluted: {}.polluted ?? Object.keys(Object.prototype).length,
    }));
    assert.deepEqual(injected, { images: 0, scripts: 1, bold: 0, polluted: 0 });
    const hosts = await rows(page, "hosts");
    assert.deepEqual(hosts.map((row) => row.Host).sort(), [...hostile].sort());
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(wide <= 0, `the page is ${wide} px too wide`);
  });
});

test("only the files of the page, reports and events are asked for", async () => {
  const world = recorded({ hosts: 2, direct: 1 });
  await shown(world.at, {}, async (page, server) => {
    await page.locator("#hosts [data-select]").first().click();
    await until(page, () => document.querySelector("#host-body .title") !== null);
    const allowed = new Set(["/", "/app.js", "/app.css", "/events", "/report"]);
    assert.deepEqual(server.requests.filter((url) => !allowed.has(url)), []);
  });
});
