// The page by keyboard, by screen reader and on a phone.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { test } from "node:test";
import { rows, second, shown, textOf, until, withBrowser } from "./browser.mjs";
import { recorded, troubled } from "./recorded.mjs";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
withBrowser();

test("all of it by the keyboard", async () => {
  const world = recorded({ hosts: 16, direct: 5 });
  await shown(world.at, {}, async (page, server) => {
    const focused = () =>
      page.evaluate(() => {
        const { activeElement: element } = document;
        const style = getComputedStyle(element);
        const ring = element.querySelector?.(".target");
        return {
          id: element.id,
          body: element === document.body,
          host: element.dataset.host ?? null,
          select: element.dataset.select ?? null,
          text: element.textContent.slice(0, 40),
          label: element.getAttribute("aria-label") ?? element.querySelector("title")?.textContent ?? null,
          seen: style.outlineStyle !== "none" || (ring !== null && getComputedStyle(ring).stroke !== "none"),
        };
      });
    await page.keyboard.press("Tab");
    assert.equal((await focused()).text, "Skip to the content");
    await page.keyboard.press("Tab");
    let at = await focused();
    assert.equal(at.host, world.peerName(0), `the map is one stop, at this host first, not ${JSON.stringify(at)}`);
    assert.ok(at.seen, "focus is seen on the map");
    await page.keyboard.press("ArrowRight");
    at = await focused();
    assert.ok(at.host && at.host !== world.peerName(0));
    await page.keyboard.press("Enter");
    assert.equal(await page.locator(`[data-host="${at.host}"]`).getAttribute("aria-selected"), "true");
    assert.equal(await textOf(page, "#host-body .title"), at.label.split(",")[0]);
    assert.equal(new URL(page.url()).hash, `#host=${encodeURIComponent(at.host)}`);
    await second(server, page, world.at);
    assert.equal((await focused()).host, at.host, "a new report takes no focus away");
    await until(page, () => [...document.querySelectorAll("#host-body h3")].some((head) => head.textContent.startsWith("Stations")));
    // Every host can be reached by arrows alone.
    const keys = new Set();
    await page.keyboard.press("Home");
    const reach = async (from) => {
      for (const arrow of ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]) {
        await page.evaluate((key) => document.querySelector(`[data-host="${key}"]`).focus(), from);
        await page.keyboard.press(arrow);
        const { host } = await focused();
        if (!keys.has(host)) {
          keys.add(host);
          await reach(host);
        }
      }
    };
    await reach(world.peerName(0));
    assert.equal(keys.size, 16);
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("[aria-selected=true]").count(), 0);
    // Then everything else, with focus that is seen, and out at the end.
    const stops = [];
    for (let index = 0; index < 200; index += 1) {
      await page.keyboard.press("Tab");
      const stop = await focused();
      if (stop.body || stop.text.startsWith("Skip")) break;
      assert.ok(stop.seen, `focus is not seen on ${JSON.stringify(stop)}`);
      stops.push(stop);
    }
    for (const wanted of ["search-hosts", "search-names", "all-drops"]) assert.ok(stops.some(({ id }) => id === wanted), wanted);
    assert.ok(stops.some(({ label }) => label === "Links of this host"), "a table scrolls by the keyboard");
    assert.ok(stops.some(({ select }) => select === world.peerName(14)), "hosts are selected in their table");
  });
});

test("tables sort by their headers and search", async () => {
  const world = recorded({ hosts: 100 });
  await shown(world.at, {}, async (page) => {
    const head = page.locator("#links th", { hasText: "Receives" });
    await head.locator("button").click();
    assert.equal(await head.getAttribute("aria-sort"), "descending");
    const most = [...world.carried].sort((a, b) => b[1].rx_bytes - a[1].rx_bytes).map(([peer]) => world.nick(peer));
    assert.deepEqual((await rows(page, "links")).map((row) => row.Peer), most);
    await head.locator("button").click();
    assert.equal(await head.getAttribute("aria-sort"), "ascending");
    assert.deepEqual((await rows(page, "links")).map((row) => row.Peer), most.reverse());
    await page.fill("#search-names", "10.2.17.");
    const { names } = world.at(2);
    const found = names.filter((entry) => entry.address.startsWith("10.2.17.")).map((entry) => entry.name);
    assert.deepEqual((await rows(page, "names")).map((row) => row.Name).sort(), found.sort());
    await page.fill("#search-hosts", "nobody");
    assert.equal(await page.locator("#hosts .empty").isVisible(), true);
  });
});

for (const colorScheme of ["dark", "light"]) {
  test(`no rule of accessibility is broken, ${colorScheme}`, async () => {
    const world = recorded({ hosts: 20 });
    const report = (time) => troubled(world.at(time));
    await shown(report, { colorScheme, lossy: true }, async (page, server) => {
      // As a file of a browser's extension would come: the policy of the page stays as it is.
      const session = await page.context().newCDPSession(page);
      const evaluate = async (expression) => (await session.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true })).result.value;
      await evaluate(await readFile(AXE, "utf8"));
      const check = async (when) => {
        // Colours on their way to what they will be are not judged.
        await until(page, () => document.getAnimations().length === 0);
        const found = await evaluate(
          "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => html.slice(0, 160) + failureSummary).join(' | ')}`))",
        );
        assert.deepEqual(found, [], when);
      };
      await check("nothing selected");
      await page.locator("#hosts [data-select]").nth(5).click();
      await page.locator("summary").click();
      await second(server, page, report);
      await check("a host selected");
      await server.stop();
      await until(page, () => document.body.dataset.feed === "lost");
      await check("the router is gone");
    });
  });
}

test("it fits a phone, and moves nothing for those who want no motion", async () => {
  const world = recorded({ hosts: 100 });
  const report = (time) => troubled(world.at(time));
  await shown(report, { viewport: { width: 360, height: 740 }, reducedMotion: "reduce" }, async (page) => {
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(wide <= 0, `the page is ${wide} px too wide`);
    assert.equal(await page.locator("#map [data-host]").count(), 102);
    const box = await page.locator("#map svg").boundingBox();
    assert.ok(box.width <= 360);
    const moving = await page.evaluate(
      () => [...document.querySelectorAll("*")].filter((element) => /[1-9]/.test(getComputedStyle(element).transitionDuration + getComputedStyle(element).animationDuration)).length,
    );
    assert.equal(moving, 0);
  });
});
