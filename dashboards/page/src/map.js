// The map: hosts and the links between them.

import { el, keyed, say, set, svg } from "./dom.js";
import { bits, micros, shortened } from "./format.js";
import { layout } from "./layout.js";
import { sealed, severity, way } from "./model.js";

const LABEL_MAX = 16;
/** With more links than this those of other hosts are shown for the selected host only. */
const OTHERS_MAX = 600;
/** Widest line, pixels, at this many bytes a second. */
const WIDEST = { width: 6, crowded: 2.5, bytes: 1.25e9 };
/** With more own links than this their lines are thinner. */
const CROWD = 30;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const LEGEND = [
  ["own", "this host"],
  ["direct", "direct link"],
  ["relayed", "by a relay"],
  ["away", "no way or no answer"],
  ["line-sealed", "encrypted"],
  ["line-clear", "clear"],
  ["line-down", "not established"],
  ["line-other", "between other hosts"],
];

export class HostMap {
  #hosts = [];
  #laid = "";
  #places = new Map();
  #focus = null;
  #selected = null;

  /** `onSelect(key)`: a host was chosen, or null. */
  constructor(place, legend, onSelect) {
    this.onSelect = onSelect;
    this.place = place;
    this.others = {
      sealed: svg("path", { class: "others sealed" }),
      clear: svg("path", { class: "others clear" }),
      down: svg("path", { class: "others down" }),
    };
    this.chosen = svg("path", { class: "chosen" });
    this.lines = svg("g");
    this.hosts = svg("g", { role: "listbox", "aria-label": "Hosts", "aria-describedby": "map-hint" });
    this.picture = svg(
      "svg",
      { class: "map", role: "group", "aria-labelledby": "h-map" },
      svg("g", { "aria-hidden": "true" }, ...Object.values(this.others), this.chosen, this.lines),
      this.hosts,
    );
    place.append(this.picture);
    for (const [kind, text] of LEGEND) legend.append(el("li", {}, sample(kind), text));
    this.hosts.addEventListener("keydown", (event) => this.#key(event));
    this.hosts.addEventListener("click", (event) => this.#click(event));
    // Not on the list: a browser lets an element of SVG with such a listener take focus itself.
    place.addEventListener("focusin", (event) => this.#move(event.target.closest("[data-host]")?.dataset.host));
    new ResizeObserver(() => this.view && this.show(this.view, this.#selected)).observe(place);
  }

  /** Draws these hosts and links. */
  show(view, selected) {
    this.view = view;
    this.#selected = selected;
    this.#hosts = [...view.hosts.values()];
    this.#lay(view);
    this.#drawOthers(view, selected);
    this.#drawLinks(view);
    this.#drawHosts(selected);
  }

  /** Puts hosts to their places when there are others than before. */
  #lay(view) {
    const width = Math.max(280, this.place.clientWidth);
    const wanted = `${width} ${this.#hosts.map((host) => host.key).sort().join()}`;
    if (wanted === this.#laid) return;
    this.#laid = wanted;
    const { places, height } = layout(this.#hosts, view.edges, width);
    this.#places = places;
    set(this.picture, { viewBox: `0 0 ${width} ${height}`, width, height });
  }

  #segment(edge) {
    const [a, b] = [this.#places.get(edge.a), this.#places.get(edge.b)];
    return a && b ? `M${a.x.toFixed(1)} ${a.y.toFixed(1)}L${b.x.toFixed(1)} ${b.y.toFixed(1)}` : "";
  }

  #drawOthers(view, selected) {
    const others = view.edges.filter((edge) => !edge.link);
    const shown = others.length > OTHERS_MAX ? [] : others;
    const path = (edges) => edges.map((edge) => this.#segment(edge)).join("");
    set(this.others.sealed, { d: path(shown.filter((edge) => edge.established && edge.encrypted)) });
    set(this.others.clear, { d: path(shown.filter((edge) => edge.established && !edge.encrypted)) });
    set(this.others.down, { d: path(shown.filter((edge) => !edge.established)) });
    const of = selected && view.hosts.get(selected);
    set(this.chosen, { d: of ? path([...of.peers.values()]) : "" });
    set(this.picture, { "data-density": others.length > 250 ? "many" : null });
  }

  #drawLinks(view) {
    const widest = view.links.length > CROWD ? WIDEST.crowded : WIDEST.width;
    keyed(
      this.lines,
      view.edges.filter((edge) => edge.link),
      {
        key: (edge) => edge.key,
        make: () => svg("path", { class: "link" }),
        update: (line, edge) => {
          const { connection, rates } = edge.link;
          const up = severity(connection.state);
          const kind = up === "ok" ? (connection.encrypted ? "sealed" : "clear") : `down ${up}`;
          set(line, { d: this.#segment(edge), class: `link ${kind}` });
          line.style.strokeWidth = up === "ok" ? `${thickness((rates.rx_bytes ?? 0) + (rates.tx_bytes ?? 0), widest)}px` : "";
        },
      },
    );
  }

  #drawHosts(selected) {
    if (!this.#places.has(this.#focus)) this.#focus = this.#hosts.find((host) => host.own)?.key ?? null;
    keyed(this.hosts, this.#hosts, {
      key: (host) => host.key,
      make: (host) => this.#makeHost(host),
      update: (node, host) => this.#updateHost(node, host, selected),
    });
  }

  #makeHost(host) {
    return svg(
      "g",
      { role: "option", "data-host": host.key },
      svg("title"),
      svg("circle", { class: "target", r: 22 }),
      svg("g", { class: "sign" }),
      svg("text", { class: "label", y: 21, "aria-hidden": "true" }),
      svg("text", { class: "detail", y: 34, "aria-hidden": "true" }),
    );
  }

  #updateHost(node, host, selected) {
    const [title, , sign, label, detail] = node.children;
    const { x, y } = this.#places.get(host.key);
    const kind = kindOf(host);
    const lines = describe(host);
    set(node, {
      class: `host ${kind}`,
      transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
      tabindex: host.key === this.#focus ? "0" : "-1",
      "aria-selected": String(host.key === selected),
    });
    if (sign.dataset.kind !== kind) {
      sign.dataset.kind = kind;
      sign.replaceChildren(...shapes(kind));
    }
    say(title, lines.join(",\n"));
    say(label, shortened(host.nickname, LABEL_MAX));
    say(detail, detailOf(host));
  }

  #move(key) {
    if (!key || key === this.#focus) return;
    this.#focus = key;
    for (const node of this.hosts.children) set(node, { tabindex: node.dataset.host === key ? "0" : "-1" });
  }

  #click(event) {
    const key = event.target.closest("[data-host]")?.dataset.host;
    if (key) this.onSelect(key === this.#selected ? null : key);
  }

  #key(event) {
    const here = event.target.closest("[data-host]")?.dataset.host;
    if (!here || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") this.onSelect(here);
    else if (event.key === "Escape") this.onSelect(null);
    else if (event.key === "Home") this.#go(this.#hosts.find((host) => host.own)?.key);
    else if (ARROWS[event.key]) this.#go(this.#nearest(here, ARROWS[event.key]));
    else return;
    event.preventDefault();
  }

  #go(key) {
    if (!key) return;
    for (const node of this.hosts.children) if (node.dataset.host === key) node.focus();
  }

  /** The nearest host in a direction; what lies aside counts as farther. */
  #nearest(key, [dx, dy]) {
    const from = this.#places.get(key);
    let best = null;
    for (const [other, place] of this.#places) {
      const [x, y] = [place.x - from.x, place.y - from.y];
      const ahead = x * dx + y * dy;
      if (other === key || ahead <= 1) continue;
      const cost = ahead + 2.5 * Math.abs(x * dy + y * dx);
      if (!best || cost < best.cost) best = { key: other, cost };
    }
    return best?.key;
  }
}

/** A wider line for more bytes a second, on a logarithmic scale from 1 kB/s. */
function thickness(rate, widest) {
  if (rate < 1000) return 1.5;
  const share = Math.log10(rate / 1000) / Math.log10(WIDEST.bytes / 1000);
  return Number((1.5 + Math.min(1, share) * (widest - 1.5)).toFixed(1));
}

function kindOf(host) {
  if (host.own) return "own";
  if (host.link?.connection.state === "established") return "direct";
  return host.route ? "relayed" : "away";
}

/** Signs differ by shape, not by colour alone. */
function shapes(kind) {
  switch (kind) {
    case "own":
      return [svg("circle", { r: 10, class: "ring" }), svg("circle", { r: 6, class: "full" })];
    case "direct":
      return [svg("circle", { r: 7, class: "full" })];
    case "relayed":
      return [svg("circle", { r: 6.5, class: "hollow" })];
    default:
      return [svg("path", { d: "M0-8 8 0 0 8-8 0z", class: "hollow" })];
  }
}

function detailOf(host) {
  if (host.own) return "this host";
  const { link } = host;
  if (link?.connection.state === "established") {
    const { rx_bytes: rx, tx_bytes: tx } = link.rates;
    const both = rx === null ? "" : rx + tx > 0 ? ` ${bits(rx + tx)}` : "";
    return `${micros(link.connection.rtt_us)}${both}`;
  }
  if (link) return link.connection.state;
  return host.route ? `via ${shortened(host.route.via_nickname, 10)}` : "no way";
}

/** What is to be known of a host, in words. */
function describe(host) {
  const lines = [host.nickname];
  if (host.name) lines.push(host.name);
  lines.push(way(host));
  const closed = sealed(host);
  if (closed !== null) lines.push(closed ? "encrypted" : "clear");
  const { link } = host;
  if (link?.connection.state === "established") {
    lines.push(`round trip ${micros(link.connection.rtt_us)}`);
    lines.push(`receives ${bits(link.rates.rx_bytes)}, sends ${bits(link.rates.tx_bytes)}`);
  } else if (link?.connection.reason) {
    lines.push(link.connection.reason);
  }
  if (host.nameCount > 0) lines.push(`${host.nameCount} ${host.nameCount > 1 ? "names" : "name"}`);
  return lines;
}

function sample(kind) {
  const box = svg("svg", { viewBox: "-12 -12 24 24", class: "sample", "aria-hidden": "true" });
  if (kind.startsWith("line-")) {
    const style = { "line-sealed": "link sealed", "line-clear": "link clear", "line-down": "link down bad", "line-other": "others sealed" };
    set(box, { viewBox: "0 -12 36 24", class: "sample wide" });
    box.append(svg("path", { d: "M0 0H36", class: style[kind] }));
  } else {
    const host = svg("g", { class: `host ${kind}` });
    host.append(svg("g", { class: "sign" }, ...shapes(kind)));
    box.append(host);
  }
  return box;
}
