// The map as it looks, pixel by pixel: what a report says is there, and looks as in tests/shots.
// After a change that is meant: `npm run shots`, and look at them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browser, second, shown, withBrowser } from "./browser.mjs";
import { recorded, troubled } from "./recorded.mjs";
import { Pictures, drawn, shot } from "./shots.mjs";

/** Pixels that may be unlike those of the kept picture: none where the browser is the same. */
const UNLIKE_MAX = 20;
/** What is to be seen of the page, and the least share of it that is written or drawn on. */
const PARTS = ["header", ".sums", "#degraded-list", "#map", "#legend", "#host-body", "#charts", "#links", "#hosts", "#names", "#drops"];
const COVERED_MIN = 0.01;

withBrowser();
let [chrome, pictures] = [null, null];
before(async () => {
  chrome = await browser();
  pictures = await Pictures.open(chrome);
});
after(() => chrome?.close());

/** Where parts of the page are, and the colour of what is behind them. Runs in the page. */
function placed(parts) {
  const solid = (each) => getComputedStyle(each).backgroundColor !== "rgba(0, 0, 0, 0)";
  return parts.map((part) => {
    const element = document.querySelector(part);
    const { x, y, width, height } = element.getBoundingClientRect();
    let behind = element;
    while (behind.parentElement && !solid(behind)) behind = behind.parentElement;
    const colour = getComputedStyle(behind).backgroundColor.match(/\d+/g).slice(0, 3).map(Number);
    const [left, top] = [Math.round(x + scrollX), Math.round(y + scrollY)];
    return { x: left, y: top, width: Math.floor(width), height: Math.floor(height), colour };
  });
}

for (const colorScheme of ["dark", "light"]) {
  for (const hosts of [2, 100]) {
    test(`a map of ${hosts} hosts looks as it did and shows what the report says, ${colorScheme}`, async () => {
      const world = recorded(hosts === 2 ? { hosts, direct: 1 } : { hosts });
      const report = (time) => (hosts === 2 ? world.at(time) : troubled(world.at(time)));
      await shown(report, { colorScheme, reducedMotion: "reduce" }, async (page, server) => {
        // A page that hears nothing for seconds says so, in grey.
        const look = async () => {
          await second(server, page, report);
          return shot(page);
        };
        const png = await look();
        const places = await drawn(page);
        assert.equal(places.hosts.length, hosts === 2 ? 2 : 102);
        assert.deepEqual(await pictures.missing(png, report(2), places), []);
        const { pixels, ...found } = await pictures.fromKept(`map-${hosts}-${colorScheme}`, png);
        assert.ok(pixels <= UNLIKE_MAX, `${pixels} pixels are unlike the kept ones: ${JSON.stringify(found)}`);
        // What is not drawn, or drawn as something else, is seen.
        for (const [selector, lacks] of [
          ["#map svg > *", places.hosts.length],
          ["#map .link", world.carried.size],
          ["#map .link >> nth=0", 1],
          ["#map .direct .sign >> nth=0", 1],
        ]) {
          const shows = (display) => page.locator(selector).evaluateAll((all, value) => all.forEach((node) => (node.style.display = value)), display);
          await shows("none");
          const without = await look();
          assert.ok((await pictures.differences(png, without)).pixels > UNLIKE_MAX, `without ${selector}`);
          assert.ok((await pictures.missing(without, report(2), places)).length >= lacks, `without ${selector}`);
          await shows("");
        }
        assert.equal((await pictures.differences(png, await look())).pixels, 0, "as it was");
        await page.locator("#map .direct").first().evaluate((node) => node.querySelector(".full").setAttribute("class", "hollow"));
        assert.ok((await pictures.missing(await shot(page), report(2), places)).length > 0, "a host of another sign");
      });
    });
  }
}

for (const colorScheme of ["dark", "light"]) {
  test(`no part of the page is empty, ${colorScheme}`, async () => {
    const world = recorded({ hosts: 100 });
    const report = (time) => troubled(world.at(time));
    await shown(report, { colorScheme, reducedMotion: "reduce" }, async (page) => {
      const look = async () => {
        const png = await page.screenshot({ fullPage: true });
        return pictures.covered(png, await page.evaluate(placed, PARTS));
      };
      for (const [index, share] of (await look()).entries()) {
        assert.ok(share > COVERED_MIN && share < 0.5, `${share} of ${PARTS[index]} is written or drawn on`);
      }
      await page.locator(PARTS.map((part) => `${part} > *`).join()).evaluateAll((all) => all.forEach((each) => (each.style.visibility = "hidden")));
      for (const [index, share] of (await look()).entries()) assert.ok(share < COVERED_MIN / 2, `${share} of ${PARTS[index]} although nothing is`);
    });
  });
}
