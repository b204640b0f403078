// The selected host: its links, containers and names, stations.

import { chip, el } from "./dom.js";
import { bits, count, duration, micros, rate, UNKNOWN } from "./format.js";
import { isContainer, linkName, sealed, severity, way } from "./model.js";

/** Entries of a list, at most. */
const SHOWN = 60;

/** `encrypted`, `clear`, or nothing while it is not known. */
export function sealChip(closed) {
  if (closed === null || closed === undefined) return UNKNOWN;
  return closed ? chip("sealed", "encrypted") : chip("clear", "clear");
}

/** The state of a link. */
export const stateChip = (state) => chip(severity(state), state);

function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null);
  return el("dl", { class: "pairs" }, ...known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** `all`: how many there are, where not all are among `items`. */
function list(title, items, make, all = items.length) {
  if (all === 0) return null;
  const shown = items.slice(0, SHOWN).map((item) => el("li", {}, ...[make(item)].flat()));
  const rest = all - shown.length;
  if (rest > 0) shown.push(el("li", { class: "quiet" }, shown.length > 0 ? `and ${count(rest)} more` : `${count(rest)}, not sent here`));
  return el("div", {}, el("h3", {}, `${title} (${count(all)})`), el("ul", { class: "list" }, ...shown));
}

function ownLink(link) {
  if (!link) return null;
  const { connection, rates } = link;
  const until = connection.retry_in_s;
  return el(
    "div",
    {},
    el("h3", {}, "Link from this host"),
    facts([
      ["State", stateChip(connection.state)],
      ["For", duration(connection.since_s)],
      ["Why", connection.reason ?? null],
      ["Next try", until === undefined || until === null ? null : `in ${duration(until)}`],
      ["Address", el("span", { class: "mono" }, connection.address)],
      ["Round trip", micros(connection.rtt_us)],
      ["Receives", `${bits(rates.rx_bytes)}, ${rate(rates.rx_frames)}`],
      ["Sends", `${bits(rates.tx_bytes)}, ${rate(rates.tx_frames)}`],
      ["Lanes", `${connection.lanes_in} in, ${connection.lanes_out} out`],
      ...connection.degraded?.map((each) => [each.name, each.reason]) ?? [],
    ]),
  );
}

/** What was asked of the host, as text that changes when the panel has to. */
export function signature(host, asked) {
  const links = [...host.peers.values()].map((edge) => `${edge.key}${edge.established}${edge.encrypted}`);
  return JSON.stringify([host.nickname, host.route, host.link?.connection, host.link?.rates, links, host.names, host.nameCount, asked.stations?.length, asked.names?.length]);
}

/** Names of `host`: those that were asked for, where not all come by themselves. */
function allNames(host, asked) {
  return host.nameCount > host.names.length && asked.names !== null ? asked.names : host.names;
}

/** Elements that tell of `host`. `asked`: its stations and names, both null while they are not known. */
export function hostPanel(host, view, asked) {
  const { stations } = asked;
  const peers = [...host.peers.entries()].map(([key, edge]) => ({ edge, other: view.hosts.get(key) }));
  peers.sort((a, b) => linkOrder(a) - linkOrder(b) || a.other.nickname.localeCompare(b.other.nickname, "en", { numeric: true }));
  const names = [...allNames(host, asked)].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  return [
    el("p", { class: "title" }, el("b", {}, host.nickname)),
    facts([
      ["Name", host.name ? el("span", { class: "mono" }, host.name) : null],
      ["Way", way(host)],
      ["On the whole way", sealed(host) === null ? null : sealChip(sealed(host))],
    ]),
    ownLink(host.link),
    list("Links", peers, ({ edge, other }) => [
      el("span", { class: "grow" }, other.nickname),
      edge.established ? chip("ok", "up") : chip("bad", "down"),
      sealChip(edge.encrypted),
    ]),
    list("Containers and names", names, (entry) => [
      el("span", { class: "grow" }, entry.name),
      el("span", { class: "mono" }, entry.address),
      el("span", { class: "mono quiet" }, isContainer(entry.container) ? entry.container : "no container"),
    ], Math.max(host.nameCount, names.length)),
    stations === null
      ? null
      : list("Stations", stations, (station) => [
          el("span", { class: "grow mono" }, station.mac),
          el("span", {}, station.source),
          el("span", { class: "quiet" }, `seen ${duration(station.idle_s)} ago`),
        ]),
  ].filter((part) => part !== null);
}

/** Links that are down come first. */
const linkOrder = ({ edge }) => (edge.established ? 1 : 0);

/** What the panel says while no host is selected. */
export function nothingSelected(view) {
  const down = view.links.filter((link) => link.connection.state !== "established");
  return [
    el("p", { class: "quiet" }, "Select a host on the map or in the table of hosts to see its links, containers and names."),
    list("Links that are not established", down, (link) => [
      el("span", { class: "grow" }, linkName(link.connection)),
      stateChip(link.connection.state),
      el("span", { class: "why" }, link.connection.reason ?? ""),
    ]),
  ].filter((part) => part !== null);
}
