// Chromium, and what no page may do in it.

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { chromium } from "playwright-core";
import { Server } from "./server.mjs";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

let chrome = null;

/** A browser with a profile of its own, which goes with it. */
export const browser = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ARGUMENTS, timeout: 20_000 });

/**
 * Opens `url` and runs `work(page)`. A dialog, an error, anything the policy forbids or a request to
 * elsewhere fails the test; `lossy`: requests may fail, since the server goes away.
 */
export async function visit(chrome, url, options, work) {
  const { lossy = false, ...context } = options;
  const wrong = [];
  const session = await chrome.newContext({ viewport: { width: 1360, height: 900 }, ...context });
  try {
    const page = await session.newPage();
    page.setDefaultTimeout(8000);
    page.on("dialog", (dialog) => {
      wrong.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("pageerror", (error) => wrong.push(`error: ${error.stack}`));
    page.on("console", (message) => {
      const failed = /^Failed to load resource/.test(message.text());
      if (["error", "warning"].includes(message.type()) && !(lossy && failed)) wrong.push(`console: ${message.text()}`);
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith("data:")) wrong.push(`request: ${request.url()}`);
    });
    await page.addInitScript(() => {
      window.violations = [];
      document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
    });
    await page.goto(url);
    await work(page);
    assert.deepEqual(await page.evaluate(() => window.violations), [], "violations of the policy");
    assert.deepEqual(wrong, []);
  } finally {
    await session.close();
  }
}

/** Waits until `holds(...)` is true in the page. */
export const until = (page, holds, argument, timeout = 8000) => page.waitForFunction(holds, argument, { timeout, polling: 50 });

/** The text of an element. */
export const textOf = (page, selector) => page.locator(selector).textContent();

/** A table as lists of texts by header. */
export function rows(page, id) {
  return page.locator(`#${id} table`).evaluate((table) => {
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    return [...table.tBodies[0].rows].map((row) => Object.fromEntries([...row.cells].map((cell, index) => [heads[index], cell.textContent])));
  });
}

/** Gives the tests of this file a browser. */
export function withBrowser() {
  before(async () => {
    chrome = await browser();
  });
  after(() => chrome?.close());
}

/** Serves `report` to one page; the test decides when the next second comes. */
export async function shown(report, options, work) {
  const server = await new Server(report, { every: 0 }).listen();
  try {
    await visit(chrome, server.url, options, async (page) => {
      await linked(server);
      await second(server, page, report);
      await second(server, page, report);
      await work(page, server);
    });
  } finally {
    await server.stop();
  }
}

/** Waits until the page listens. */
export async function linked(server, limit = 8000) {
  const end = Date.now() + limit;
  while (server.listeners.size === 0) {
    assert.ok(Date.now() < end, "nobody listens to /events");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Sends the next report and waits until the page shows it. */
export async function second(server, page, report) {
  server.step();
  const { uptime_s: time, nickname } = report(server.second).status;
  await until(page, ([name, up]) => document.getElementById("nickname").textContent === name && window.document.body.dataset.up === String(up), [nickname, time]);
}
