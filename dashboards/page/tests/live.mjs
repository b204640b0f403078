// What the page of a live router shows once there is traffic, as JSON: `node tests/live.mjs URL`.

import { browser, rows, textOf, until, visit } from "./browser.mjs";
import { Pictures, drawn, shot } from "./shots.mjs";

/** Time for a link, a name and a rate to be shown, milliseconds. */
const SHOWN_WITHIN = 12_000;

const [url] = process.argv.slice(2);
const chrome = await browser();
try {
  await visit(chrome, url, {}, async (page) => {
    const moving = () => {
      const [link] = document.querySelectorAll("#links tbody tr");
      const text = [...(link?.cells ?? [])].map((cell) => cell.textContent).join(" ");
      const rates = [...text.matchAll(/([0-9.]+) [kMG]?bit\/s/g)].map(([, number]) => Number(number));
      const moves = rates.length === 2 && Math.max(...rates) > 0;
      return text.includes("established") && moves && document.querySelector("#names tbody tr") !== null;
    };
    await until(page, moving, null, SHOWN_WITHIN).catch(async (error) => {
      throw new Error(`${error.message}\nshown: ${await page.locator("main").innerText()}`);
    });
    await page.locator("#hosts [data-select]").last().click();
    await until(page, () => document.querySelector("#host-body h3") !== null);
    const shown = {
      nickname: await textOf(page, "#nickname"),
      name: await textOf(page, "#name"),
      seal: await textOf(page, "#seal"),
      feed: await textOf(page, "#feed-state"),
      links: await rows(page, "links"),
      hosts: await rows(page, "hosts"),
      names: await rows(page, "names"),
      map: await page.locator("#map .label").allTextContents(),
      lines: await page.locator("#map .link.sealed").count(),
      panel: await textOf(page, "#host-body"),
    };
    const report = await page.evaluate(() => fetch("report").then((answer) => answer.json()));
    shown.missing = await (await Pictures.open(chrome)).missing(await shot(page), report, await drawn(page));
    process.stdout.write(`${JSON.stringify(shown)}\n`);
  });
} finally {
  await chrome.close();
}
