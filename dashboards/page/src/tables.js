// The tables of the page: what stands in their columns.

import { chip, el, set } from "./dom.js";
import { bits, bytes, count, duration, micros, rate, UNKNOWN } from "./format.js";
import { sealChip, stateChip } from "./host.js";
import { containers, isContainer, linkName, sealed, way } from "./model.js";
import { EXPECTED, REASONS } from "./reasons.js";
import { once, Table } from "./table.js";

/** Rows shown of a table that may be long. */
const ROWS_MAX = 300;
const STATES = ["failed", "retrying", "connecting", "pending", "established"];

const text = (key, label, value, more = {}) => ({ key, label, value, show: (item) => value(item) ?? UNKNOWN, ...more });
const number = (key, label, value, shown, more = {}) => ({ key, label, value, show: (item) => shown(value(item)), number: true, ...more });
const element = (key, label, value, state, make, more = {}) => ({
  key,
  label,
  value,
  show: (item, cell) => once(cell, state(item), () => make(item)),
  ...more,
});

export function linksTable(place, onSelect) {
  return new Table(place, {
    caption: "Links of this host",
    empty: "This host has no link and dials nobody. `weave connect PEER` adds one.",
    sort: "state",
    key: (link) => link.key,
    columns: [
      element("peer", "Peer", (link) => linkName(link.connection), (link) => `${link.host} ${linkName(link.connection)}`, (link) => selector(link.host, linkName(link.connection), onSelect), { first: true }),
      element("state", "State", (link) => STATES.indexOf(link.connection.state), (link) => link.connection.state, (link) => stateChip(link.connection.state)),
      text("notes", "Remarks", (link) => remarks(link.connection), { class: "notes" }),
      number("since", "For", (link) => link.connection.since_s, duration),
      element("seal", "Data", (link) => link.connection.encrypted ?? null, (link) => String(link.connection.encrypted), (link) => sealChip(link.connection.encrypted)),
      number("rtt", "Round trip", (link) => link.connection.rtt_us ?? null, micros),
      number("rx", "Receives", (link) => link.rates.rx_bytes, bits),
      number("tx", "Sends", (link) => link.rates.tx_bytes, bits),
      number("rxf", "Frames in", (link) => link.rates.rx_frames, rate),
      number("txf", "Frames out", (link) => link.rates.tx_frames, rate),
      number("rxt", "Received", (link) => link.connection.rx_bytes, bytes),
      number("txt", "Sent", (link) => link.connection.tx_bytes, bytes),
      number("mtu", "MTU", (link) => link.connection.mtu ?? null, count),
      text("address", "Address", (link) => `${link.connection.direction === "outbound" ? "→" : "←"} ${link.connection.address}`, { class: "mono" }),
    ],
  });
}

function remarks({ reason, retry_in_s: until, degraded }) {
  const parts = [];
  if (reason) parts.push(reason);
  if (until !== undefined && until !== null) parts.push(`next try in ${duration(until)}`);
  for (const each of degraded ?? []) parts.push(`${each.name}: ${each.reason}`);
  return parts.join("; ");
}

/** A name that selects its host. */
function selector(key, name, onSelect) {
  if (!key) return name;
  const button = el("button", { type: "button", class: "name", "data-select": key }, name);
  button.addEventListener("click", () => onSelect(key));
  return button;
}

export function hostsTable(place, onSelect) {
  return new Table(place, {
    caption: "Hosts of the network",
    empty: "No host is called so.",
    sort: "host",
    most: ROWS_MAX,
    key: (host) => host.key,
    columns: [
      element("host", "Host", (host) => host.nickname, (host) => host.nickname, (host) => selector(host.key, host.nickname, onSelect), { first: true }),
      text("name", "Name", (host) => host.name, { class: "mono" }),
      text("way", "Way", way),
      element("seal", "Data", sealed, (host) => String(sealed(host)), (host) => sealChip(sealed(host))),
      number("rtt", "Round trip", (host) => host.link?.connection.rtt_us ?? null, micros),
      number("rx", "Receives", (host) => host.link?.rates.rx_bytes ?? null, bits),
      number("tx", "Sends", (host) => host.link?.rates.tx_bytes ?? null, bits),
      number("links", "Links", (host) => host.peers.size, count),
      number("containers", "Containers", containers, count),
      number("names", "Names", (host) => host.nameCount, count),
    ],
    onShown: (row, host) => set(row, { "aria-current": host.selected ? "true" : null }),
  });
}

export function namesTable(place) {
  return new Table(place, {
    caption: "Containers and names of the network",
    empty: "No name.",
    sort: "name",
    most: ROWS_MAX,
    key: (entry) => `${entry.name} ${entry.address} ${entry.origin} ${entry.container}`,
    columns: [
      text("name", "Name", (entry) => entry.name, { first: true }),
      text("address", "Address", (entry) => entry.address, { class: "mono" }),
      text("container", "Container", (entry) => (isContainer(entry.container) ? entry.container : null), { class: "mono" }),
      text("host", "Host", (entry) => entry.nickname ?? entry.origin),
    ],
  });
}

export function dropsTable(place) {
  return new Table(place, {
    caption: "Frames and datagrams dropped, by reason",
    empty: "Nothing was dropped since the router started.",
    sort: "rate",
    ascending: false,
    key: (drop) => drop.name,
    columns: [
      text("reason", "Reason", (drop) => drop.name, { first: true, class: "mono" }),
      number("rate", "Rate", (drop) => drop.rate, rate),
      number("total", "Total", (drop) => drop.total, count),
      text("meaning", "Meaning", (drop) => REASONS.get(drop.name) ?? "", { class: "meaning" }),
    ],
    onShown: (row, drop) => set(row, { class: EXPECTED.has(drop.name) ? "quiet" : drop.rate > 0 ? "active" : null }),
  });
}

export function countersTable(place) {
  return new Table(place, {
    caption: "Counters of the control core, and of all shards together",
    empty: "No counter.",
    sort: "name",
    key: (counter) => counter.name,
    columns: [
      text("name", "Counter", (counter) => counter.name, { first: true, class: "mono" }),
      number("rate", "Rate", (counter) => counter.rate, rate),
      number("total", "Total", (counter) => counter.total, count),
    ],
  });
}

/** A degraded state: its name, where, and why. */
export function degradedItem({ name, reason, since_s: since, of }) {
  const where = of.length === 0 ? "" : `${of.slice(0, 5).join(", ")}${of.length > 5 ? ` and ${of.length - 5} more` : ""}: `;
  return [chip("warn", name), el("span", {}, `${where}${reason}`), el("span", { class: "quiet" }, `for ${duration(since)}`)];
}
