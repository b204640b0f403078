// Documents as they come, and whether they still do.

/** Without a document for this long the feed counts as lost, milliseconds; before the second one for longer. */
const SILENCE_MS = 4000;
const SILENCE_AT_FIRST_MS = 12_000;
/** A router with much to tell does so less often: so many times it may be missed. */
const MISSED = 3;
/** Waits before trying again, milliseconds. */
const RETRY_MS = [500, 1000, 2000, 4000];
const WATCH_MS = 500;

/** Follows `/events`; tries again for ever. */
export class Feed {
  #source = null;
  #heard = null;
  #failures = 0;
  /** Time between the last two documents of one connection; null before. */
  #gap = null;
  #retry = null;

  /** `onReport(document)` for each, `onState(live)` when it changes. */
  constructor({ onReport, onState, events = "events" }) {
    this.onReport = onReport;
    this.onState = onState;
    this.events = events;
    this.live = null;
  }

  start() {
    this.#open();
    setInterval(() => this.#watch(), WATCH_MS);
  }

  /** Milliseconds since the last document; null before the first. */
  age() {
    return this.#heard === null ? null : performance.now() - this.#heard;
  }

  #open() {
    this.#retry = null;
    this.#gap = null;
    this.opened = performance.now();
    this.#source = new EventSource(this.events);
    this.#source.addEventListener("report", (event) => this.#take(event.data));
    this.#source.addEventListener("error", () => this.#lost());
  }

  #take(text) {
    let report;
    try {
      report = JSON.parse(text);
    } catch {
      this.#lost();
      return;
    }
    const now = performance.now();
    if (this.#heard > this.opened) this.#gap = now - this.#heard;
    this.#heard = now;
    this.#failures = 0;
    this.#state(true);
    this.onReport(report, this.#heard);
  }

  #watch() {
    const quiet = performance.now() - Math.max(this.#heard ?? 0, this.opened);
    const limit = this.#gap === null ? SILENCE_AT_FIRST_MS : Math.max(SILENCE_MS, MISSED * this.#gap);
    if (this.#source && quiet > limit) this.#lost();
  }

  #lost() {
    this.#source?.close();
    this.#source = null;
    this.#state(false);
    if (this.#retry !== null) return;
    const wait = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)];
    this.#failures += 1;
    this.#retry = setTimeout(() => this.#open(), wait);
  }

  #state(live) {
    if (this.live === live) return;
    this.live = live;
    this.onState(live);
  }
}
