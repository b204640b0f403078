// A router that goes away, comes back or changes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bits } from "../src/format.js";
import { linked, rows, second, shown, textOf, until, withBrowser } from "./browser.mjs";
import { recorded } from "./recorded.mjs";
import { Server } from "./server.mjs";

withBrowser();

test("a router that goes is seen to be gone, and one that comes back goes on", async () => {
  const world = recorded({ hosts: 4, direct: 3 });
  await shown(world.at, { lossy: true }, async (page, server) => {
    await page.evaluate(() => {
      window.said = [];
      new MutationObserver(() => window.said.push(document.getElementById("lost").textContent)).observe(document.getElementById("lost"), { childList: true, characterData: true, subtree: true });
    });
    await server.stop();
    await until(page, () => document.body.dataset.feed === "lost");
    assert.match(await textOf(page, "#lost"), /is lost.*old/);
    assert.equal(await page.locator("#lost").isVisible(), true);
    await until(page, () => /^data of \d+ s ago$/.test(document.getElementById("feed-state").textContent));
    const style = await page.locator("main").evaluate((main) => getComputedStyle(main).filter);
    assert.match(style, /grayscale/);
    assert.equal(await textOf(page, "#nickname"), "host-0", "what was known stays");
    const again = new Server(world.at, { every: 0 });
    again.second = server.second + 2;
    await again.listen(server.port);
    try {
      await linked(again);
      await second(again, page, world.at);
      assert.equal(await page.evaluate(() => document.body.dataset.feed), "live");
      assert.equal(await page.locator("#lost").isVisible(), false);
      assert.deepEqual((await page.evaluate(() => window.said)).filter(Boolean).length, 1, "said once");
      assert.equal((await rows(page, "links"))[0].Receives, bits(world.carried.get(1).rx_bytes));
    } finally {
      await again.stop();
    }
  });
});

test("a router that says nothing counts as lost, too", async () => {
  const world = recorded({ hosts: 2, direct: 1 });
  await shown(world.at, {}, async (page, server) => {
    await until(page, () => document.body.dataset.feed === "lost");
    await linked(server);
    await second(server, page, world.at);
    assert.equal(await page.evaluate(() => document.body.dataset.feed), "live");
  });
});

test("screen readers are told of a link that is lost, not of every second", async () => {
  const world = recorded({ hosts: 4, direct: 3 });
  const report = (time) => {
    const made = world.at(time);
    if (time >= 4) made.status.connections = made.status.connections.slice(1);
    return made;
  };
  await shown(report, {}, async (page, server) => {
    await second(server, page, report);
    assert.equal(await textOf(page, "#said"), "");
    await second(server, page, report);
    assert.equal(await textOf(page, "#said"), "Link to host-1 lost");
    assert.match(await textOf(page, "#changes"), /Link to host-1 lost/);
    await second(server, page, report);
    assert.equal(await textOf(page, "#said"), "Link to host-1 lost");
  });
});

test("a report of another version is named for as long as such reports come", async () => {
  const world = recorded({ hosts: 2, direct: 1 });
  const report = (time) => ({ ...world.at(time), version: time === 4 ? 2 : 1 });
  await shown(report, {}, async (page, server) => {
    while (server.second < 4) server.step();
    await until(page, () => /version 2: reload/.test(document.getElementById("lost").textContent));
    // What is looked at each second leaves it there.
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 1200)));
    assert.match(await textOf(page, "#lost"), /version 2: reload/);
    await second(server, page, report);
    await until(page, () => document.getElementById("lost").textContent === "");
  });
});
