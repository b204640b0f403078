// The page: takes documents from the feed and shows them.

import { at, chip, el, keyed, say, set } from "./dom.js";
import { Feed } from "./feed.js";
import { bits, count, duration, micros, rate } from "./format.js";
import { hostPanel, nothingSelected, signature } from "./host.js";
import { HostMap } from "./map.js";
import { Charts } from "./charts.js";
import { linkName, Model, VERSION } from "./model.js";
import { countersTable, degradedItem, dropsTable, hostsTable, linksTable, namesTable } from "./tables.js";
import { once } from "./table.js";

/** Changes told to screen readers at once, and how often at most, milliseconds. */
const TOLD_MAX = 3;
const TOLD_EVERY_MS = 5000;

const model = new Model();
let view = null;
let selected = null;
let software = null;
/** MACs and all names of the selected host. They are no part of events, or not all of them. */
let asked = { of: null, stations: null, names: null };
let allDrops = false;
/** Why what comes cannot be shown. */
let fault = null;
let told = { number: 0, at: -TOLD_EVERY_MS };

const map = new HostMap(at("map"), at("legend"), select);
const charts = new Charts(at("charts"));
const links = linksTable(at("links"), select);
const hosts = hostsTable(at("hosts"), select);
const names = namesTable(at("names"));
const drops = dropsTable(at("drops"));
const counters = countersTable(at("counters"));
const feed = new Feed({ onReport: take, onState: () => showFeed() });

function take(report, now) {
  const readable = report.version === VERSION;
  fault = readable ? null : `This page cannot read reports of version ${report.version}: reload it.`;
  if (!readable) {
    showFeed();
    return;
  }
  const { version } = report.status;
  if (software !== null && software !== version) {
    // The page belongs to the router that served it.
    location.reload();
    return;
  }
  software = version;
  view = model.take(report, now / 1000, Date.now() / 1000);
  if (selected === null && location.hash.startsWith("#host=")) {
    const wanted = decodeHash();
    if (view.hosts.has(wanted)) select(wanted);
  }
  show();
}

function decodeHash() {
  try {
    return decodeURIComponent(location.hash.slice("#host=".length));
  } catch {
    return "";
  }
}

function select(key) {
  selected = key;
  history.replaceState(null, "", key ? `#host=${encodeURIComponent(key)}` : location.pathname);
  asked = { of: key, stations: null, names: null };
  if (key && view?.hosts.get(key)?.name) ask(key);
  show();
}

/** Asks for the stations and names of a host. */
async function ask(key) {
  try {
    const answer = await fetch("report", { cache: "no-store" });
    const report = await answer.json();
    if (asked.of === key) {
      asked.stations = report.status.macs.filter((entry) => entry.peer === key);
      asked.names = report.names.filter((entry) => entry.origin === key);
    }
  } catch {
    // The feed says it when the router is lost.
  }
  show();
}

function show() {
  if (!view) return;
  if (selected !== null && !view.hosts.has(selected)) selected = null;
  showHead();
  showSums();
  showDegraded();
  map.show(view, selected);
  showHost();
  showCharts();
  const keys = new Map([...view.hosts.values()].filter((host) => host.link).map((host) => [host.link.key, host.key]));
  links.show(view.links.map((link) => ({ ...link, host: keys.get(link.key) ?? null })));
  showHosts();
  showNames();
  showDrops();
  if (at("counters").closest("details").open) counters.show(view.counters);
  showChanges();
}

function showHead() {
  const { status, totals } = view;
  say(at("nickname"), status.nickname);
  say(at("name"), status.name);
  once(at("seal"), String(status.encrypted), () => (status.encrypted ? chip("sealed", "encrypted") : chip("clear", "clear network")));
  say(at("version"), status.version);
  say(at("uptime"), duration(status.uptime_s));
  // Tests know by this which report is shown.
  set(document.body, { "data-up": status.uptime_s });
  say(at("port"), String(status.port));
  say(at("mtu"), String(status.mtu));
  const broken = totals.links - totals.established;
  document.title = `${broken > 0 ? `${broken} down, ` : ""}${status.nickname} – weave`;
}

function showSums() {
  const { totals } = view;
  const known = [...view.hosts.values()].filter((host) => host.name !== null).length;
  const other = totals.links - totals.established;
  say(at("sum-hosts"), count(known));
  say(at("sum-links"), other > 0 ? `${count(totals.established)} up, ${count(other)} not` : `${count(totals.established)} up`);
  set(at("sum-links").parentElement, { "data-level": other > 0 ? "bad" : null });
  say(at("sum-rx"), bits(totals.rx));
  say(at("sum-tx"), bits(totals.tx));
  say(at("sum-rtt"), micros(totals.rtt));
  say(at("sum-drops"), `${rate(totals.drops)}`);
  set(at("sum-drops").parentElement, { "data-level": totals.drops > 0 ? "warn" : null });
  say(at("sum-names"), count(view.names.length + view.namesLeftOut));
}

/** States of the router, and those of links with the same name together. */
function degraded() {
  const all = view.status.degraded.map((each) => ({ ...each, key: each.name, of: [] }));
  const ofLinks = new Map();
  for (const { connection } of view.links) {
    for (const each of connection.degraded ?? []) {
      const known = ofLinks.get(each.name);
      if (known) known.of.push(linkName(connection));
      else ofLinks.set(each.name, { ...each, key: `link ${each.name}`, of: [linkName(connection)] });
    }
  }
  return [...all, ...ofLinks.values()];
}

function showDegraded() {
  const all = degraded();
  set(at("degraded"), { hidden: all.length === 0 });
  keyed(at("degraded-list"), all, {
    key: (each) => each.key,
    make: () => el("li"),
    update: (item, each) => once(item, JSON.stringify(each), () => degradedItem(each)),
  });
}

function showHost() {
  const body = at("host-body");
  const host = selected === null ? null : view.hosts.get(selected);
  set(at("deselect"), { hidden: host === null });
  if (host === null) {
    once(body, JSON.stringify(view.links.map(({ connection }) => [connection.state, linkName(connection), connection.reason])), () => nothingSelected(view));
  } else {
    once(body, signature(host, asked), () => hostPanel(host, view, asked));
  }
}

function showCharts() {
  const link = selected === null ? null : view.hosts.get(selected).link;
  const history = link ? model.links.get(link.key) : null;
  say(at("charts-of"), history ? `Link to ${linkName(link.connection)}` : "All links of this host");
  charts.show(history ?? model.all, !history, performance.now() / 1000);
}

const wanted = (id) => at(id).value.trim().toLowerCase();

function showHosts() {
  const word = wanted("search-hosts");
  const found = [...view.hosts.values()].filter(({ nickname, name }) => `${nickname} ${name ?? ""}`.toLowerCase().includes(word));
  for (const host of found) host.selected = host.key === selected;
  hosts.show(found);
}

function showNames() {
  const word = wanted("search-names");
  const text = (entry) => `${entry.name} ${entry.address} ${entry.container} ${entry.nickname ?? ""} ${entry.origin}`.toLowerCase();
  names.show(view.names.filter((entry) => text(entry).includes(word)));
  set(at("names-left"), { hidden: view.namesLeftOut === 0 });
  say(at("names-left"), `${count(view.namesLeftOut)} more names are not sent here; \`weave status dns\` lists all.`);
}

function showDrops() {
  const some = view.drops.filter((drop) => drop.total > 0);
  const zero = view.drops.length - some.length;
  drops.show(allDrops ? view.drops : some);
  say(at("all-drops"), `Show ${count(zero)} without drops`);
  set(at("all-drops"), { hidden: zero === 0, "aria-pressed": String(allDrops) });
}

function showChanges() {
  const { changes } = model;
  set(at("no-changes"), { hidden: changes.length > 0 });
  keyed(at("changes"), changes, {
    key: (change) => change.number,
    make: (change) => {
      const when = new Date(change.wall * 1000);
      const clock = when.toLocaleTimeString("en-GB");
      return el("li", {}, el("time", { class: "quiet", datetime: when.toISOString() }, clock), chip(change.level, ""), el("span", {}, change.text));
    },
    update: () => {},
  });
  tell(changes);
}

/** Tells screen readers what changed, a few at a time. */
function tell(changes) {
  const now = performance.now();
  const fresh = changes.filter((change) => change.number > told.number);
  if (fresh.length === 0 || now - told.at < TOLD_EVERY_MS) return;
  const rest = fresh.length > TOLD_MAX ? `; and ${fresh.length - TOLD_MAX} more` : "";
  say(at("said"), `${fresh.slice(0, TOLD_MAX).map((change) => change.text).join("; ")}${rest}`);
  told = { number: fresh[0].number, at: now };
}

function showFeed() {
  const { live } = feed;
  const age = feed.age();
  const ago = age === null ? null : duration(Math.floor(age / 1000));
  set(document.body, { "data-feed": live === null ? "connecting" : live ? "live" : "lost" });
  say(at("feed-state"), live ? "live" : ago === null ? "connecting" : `data of ${ago} ago`);
  if (live !== false) showLost(fault ?? "");
  else if (age === null) showLost("The router does not answer; trying again.");
  else showLost("The connection to the router is lost: what is shown is old. Trying again.");
}

/** Said once, not every second. */
function showLost(text) {
  say(at("lost"), text);
  set(at("lost"), { class: text ? "lost shown" : "lost" });
}

at("deselect").addEventListener("click", () => {
  select(null);
  at("main").focus();
});
for (const id of ["search-hosts", "search-names"]) at(id).addEventListener("input", show);
at("all-drops").addEventListener("click", () => {
  allDrops = !allDrops;
  show();
});
at("counters").closest("details").addEventListener("toggle", show);
setInterval(showFeed, 1000);
feed.start();
showFeed();
