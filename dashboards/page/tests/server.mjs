// A stand-in for the router: serves dist/ as the router does, and reports that a test decides.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { event } from "./recorded.mjs";

const DIST = join(dirname(fileURLToPath(import.meta.url)), "../dist");
export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const FILES = {
  "/": ["index.html", "text/html; charset=utf-8"],
  "/app.js": ["app.js", "text/javascript; charset=utf-8"],
  "/app.css": ["app.css", "text/css; charset=utf-8"],
};

/** Serves `report(second)`, seconds counted from the start; a report every `every` milliseconds. */
export class Server {
  constructor(report, { every = 1000 } = {}) {
    Object.assign(this, { report, every, second: 0, listeners: new Set(), requests: [] });
    this.http = createServer((request, response) => this.#answer(request, response));
    this.http.keepAliveTimeout = 1;
  }

  async listen(port = 0) {
    await new Promise((resolve, reject) => this.http.once("error", reject).listen(port, "127.0.0.1", resolve));
    this.port = this.http.address().port;
    this.timer = this.every > 0 ? setInterval(() => this.step(), this.every) : null;
    return this;
  }

  get url() {
    return `http://127.0.0.1:${this.port}/`;
  }

  /** Sends the report of the next second to everybody. */
  step() {
    this.second += 1;
    const data = JSON.stringify(event(this.report(this.second)));
    for (const listener of this.listeners) listener.write(`event: report\ndata: ${data}\n\n`);
  }

  /** As a router that was stopped. */
  async stop() {
    clearInterval(this.timer);
    const closed = new Promise((resolve) => this.http.close(resolve));
    this.http.closeAllConnections();
    this.listeners.clear();
    await closed;
  }

  async #answer(request, response) {
    this.requests.push(request.url);
    response.setHeader("content-security-policy", POLICY);
    response.setHeader("x-content-type-options", "nosniff");
    response.setHeader("referrer-policy", "no-referrer");
    if (request.url === "/report") {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(this.report(this.second)));
    } else if (request.url === "/events") {
      response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
      response.flushHeaders();
      this.listeners.add(response);
      response.on("close", () => this.listeners.delete(response));
    } else if (FILES[request.url]) {
      const [file, type] = FILES[request.url];
      response.setHeader("content-type", type);
      response.end(await readFile(join(DIST, file)));
    } else {
      response.writeHead(404).end();
    }
  }
}
