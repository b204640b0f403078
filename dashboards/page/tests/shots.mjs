// Pictures of the map: what is drawn where, and how one differs from another.
//
// Text is left out of them, and the map is given its width: so fonts, which are the machine's, change
// nothing. Where edges are smoothed in another way, colours are found one pixel aside.

import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const KEPT = join(dirname(fileURLToPath(import.meta.url)), "shots");
const WIDTH = 1000;
/** Most that a channel of a colour may be off, of 255. */
const OFF_MAX = 48;
/** Points that a line is looked for at, away from the hosts at its ends. */
const POINTS = 60;
const MARGIN = 16;
/** Least share of the points of a line that are of its colour, by its dashes; other lines and signs hide some. */
const LINES = { sealed: 0.6, clear: 0.4, bad: 0.25 };
const SIGN = 0.7;

/** The map as it is drawn, without its text: a PNG. */
export async function shot(page) {
  const height = await page.evaluate((width) => {
    const plain = new CSSStyleSheet();
    plain.replaceSync(`#map { position: fixed; top: 0; left: 0; z-index: 9; width: ${width}px; background: var(--panel) } .host text { visibility: hidden }`);
    document.adoptedStyleSheets = [plain];
    // The map hears of its width before the next frame.
    return new Promise((resolve) => {
      const look = () => {
        const { width: { baseVal: wide }, clientHeight } = document.querySelector("#map svg");
        if (wide.value === width) resolve(clientHeight);
        else requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    });
  }, WIDTH);
  return page.screenshot({ clip: { x: 0, y: 0, width: WIDTH, height } });
}

/** Where hosts stand, `[{key, x, y}]`, and the colours that are drawn with. */
export function drawn(page) {
  return page.evaluate(() => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => [1, 3, 5].map((at) => Number.parseInt(style.getPropertyValue(`--${name}`).trim().slice(at, at + 2), 16));
    const hosts = [...document.querySelectorAll("#map [data-host]")].map((node) => {
      const { e: x, f: y } = node.transform.baseVal.consolidate().matrix;
      return { key: node.dataset.host, x, y };
    });
    const names = ["accent", "sealed", "clear", "quiet", "bad", "panel"];
    return { hosts, colours: Object.fromEntries(names.map((name) => [name, colour(name)])) };
  });
}

/** Points of a sign at a place that are to be of a colour: `[{points, colour}]`. */
function sign(kind, { x, y }) {
  const around = (radius) => [...Array(8).keys()].map((eighth) => [x + radius * Math.cos((eighth * Math.PI) / 4), y + radius * Math.sin((eighth * Math.PI) / 4)]);
  switch (kind) {
    case "own":
      return [{ points: [[x, y], ...around(4)], colour: "accent" }, { points: around(10), colour: "accent" }];
    case "direct":
      return [{ points: [[x, y], ...around(5)], colour: "sealed" }];
    case "relayed":
      return [{ points: [[x, y], ...around(3)], colour: "panel" }, { points: around(6.5), colour: "quiet" }];
    default:
      return [{ points: [[x, y], ...around(2)], colour: "panel" }, { points: [3, 4, 5].flatMap((a) => [[x + a, y + 8 - a], [x - a, y + 8 - a], [x + a, y + a - 8], [x - a, y + a - 8]]), colour: "bad" }];
  }
}

/** Points of the line from one place to another. */
function line(from, to) {
  const length = Math.hypot(to.x - from.x, to.y - from.y);
  const at = (share) => [from.x + share * (to.x - from.x), from.y + share * (to.y - from.y)];
  const margin = Math.min(0.4, MARGIN / length);
  return [...Array(POINTS).keys()].map((index) => at(margin + ((1 - 2 * margin) * index) / (POINTS - 1)));
}

/** What the report says of each host and of each link of this host, as points and their colours. */
function wanted({ status }, places) {
  const own = places.find(({ key }) => key === status.name);
  const known = new Set(status.peers.map(({ name }) => name));
  const links = new Map(status.connections.filter(({ peer }) => peer).map((link) => [link.peer, link]));
  return places.flatMap((place) => {
    const link = links.get(place.key);
    const kind = place === own ? "own" : link ? "direct" : known.has(place.key) ? "relayed" : "away";
    const parts = sign(kind, place).map((part) => ({ ...part, what: `${place.key}, ${kind}`, least: SIGN }));
    if (kind === "own" || kind === "relayed") return parts;
    const colour = kind === "away" ? "bad" : link.encrypted ? "sealed" : "clear";
    return [...parts, { what: `link to ${place.key}`, points: line(own, place), colour, least: LINES[colour] }];
  });
}

/** Looks at pictures, in a page of a browser that shows nothing else. */
export class Pictures {
  constructor(page) {
    this.page = page;
  }

  static async open(chrome) {
    const page = await chrome.newPage();
    await page.evaluate(() => {
      window.pixels = async (text) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
        const context = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, image.width, image.height);
      };
      /** Whether the colour is at this place or next to it. */
      window.near = ({ data, width, height }, x, y, red, green, blue, off) => {
        for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row += 1) {
          for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column += 1) {
            const at = 4 * (row * width + column);
            if (Math.abs(data[at] - red) <= off && Math.abs(data[at + 1] - green) <= off && Math.abs(data[at + 2] - blue) <= off) return true;
          }
        }
        return false;
      };
    });
    return new Pictures(page);
  }

  /** Of each list of points the share that is of its colour, `[{points, colour: [r, g, b]}]`. */
  shares(png, wanted) {
    return this.page.evaluate(
      async ([text, all, off]) => {
        const image = await window.pixels(text);
        return all.map(({ points, colour }) => points.filter(([x, y]) => window.near(image, Math.floor(x), Math.floor(y), ...colour, off)).length / points.length);
      },
      [png.toString("base64"), wanted, OFF_MAX],
    );
  }

  /** What the report says and a picture of the map does not show; `drawn`: where it should be, and the colours. */
  async missing(png, report, { hosts, colours }) {
    const parts = wanted(report, hosts);
    const shares = await this.shares(png, parts.map(({ points, colour }) => ({ points, colour: colours[colour] })));
    return parts.flatMap(({ what, colour, least }, index) => (shares[index] < least ? [`${what}: ${shares[index].toFixed(2)} of it is ${colour}`] : []));
  }

  /** Of each part of a picture the share of pixels that are of another colour, `[{x, y, width, height, colour}]`. */
  covered(png, parts) {
    return this.page.evaluate(
      async ([text, all, off]) => {
        const { data, width } = await window.pixels(text);
        return all.map(({ x, y, width: wide, height: high, colour: [red, green, blue] }) => {
          let others = 0;
          for (let row = y; row < y + high; row += 1) {
            for (let column = x; column < x + wide; column += 1) {
              const at = 4 * (row * width + column);
              if (Math.max(Math.abs(data[at] - red), Math.abs(data[at + 1] - green), Math.abs(data[at + 2] - blue)) > off) others += 1;
            }
          }
          return others / (wide * high);
        });
      },
      [png.toString("base64"), parts, OFF_MAX],
    );
  }

  /** How many pixels of either picture the other has nothing like, and where the first of them is. */
  differences(one, other) {
    return this.page.evaluate(
      async ([texts, off]) => {
        const [a, b] = await Promise.all(texts.map(window.pixels));
        if (a.width !== b.width || a.height !== b.height) return { pixels: Infinity, first: `${a.width}x${a.height} beside ${b.width}x${b.height}` };
        let [pixels, first] = [0, null];
        for (let y = 0; y < a.height; y += 1) {
          for (let x = 0; x < a.width; x += 1) {
            const at = 4 * (y * a.width + x);
            const found = [[a, b], [b, a]].every(([here, there]) => window.near(there, x, y, here.data[at], here.data[at + 1], here.data[at + 2], off));
            if (found) continue;
            pixels += 1;
            first ??= `${x}, ${y}`;
          }
        }
        return { pixels, first };
      },
      [[one, other].map((png) => png.toString("base64")), OFF_MAX],
    );
  }

  /** The differences to the picture that is kept under this name; a new one is left for who looks after it. */
  async fromKept(name, png) {
    const kept = join(KEPT, `${name}.png`);
    if (process.env.KEEP_SHOTS) await writeFile(kept, png);
    const found = await this.differences(await readFile(kept), png);
    if (found.pixels > 0) {
      found.seen = join(tmpdir(), `weave-${name}.png`);
      await writeFile(found.seen, png);
    }
    return found;
  }
}
