// Charts of the last minutes.

import uPlot from "uplot";
import { el, say, set } from "./dom.js";
import { bits, micros, rate, scaled, UNKNOWN } from "./format.js";
import { KEPT_S } from "./history.js";

const HEIGHT = 132;
/** What the time axis may span, seconds. */
const SPANS = [60, 120, 300, KEPT_S];
const perSecond = (value) => rate(value);

const KINDS = [
  {
    title: "Throughput",
    unit: bits,
    axis: (value) => scaled(value * 8, ""),
    axisUnit: "bit/s",
    lines: [["rx", "received"], ["tx", "sent"]],
  },
  {
    title: "Frames",
    unit: perSecond,
    axis: (value) => scaled(value, ""),
    axisUnit: "per second",
    lines: [["rx_frames", "received"], ["tx_frames", "sent"]],
  },
  {
    title: "Round trip",
    unit: (value) => micros(value === null ? null : Math.round(value)),
    axis: (value) => (value / 1000).toLocaleString("en", { maximumFractionDigits: 2 }),
    axisUnit: "ms",
    lines: [["rtt", "round trip"]],
  },
  {
    title: "Drops",
    unit: perSecond,
    axis: (value) => scaled(value, ""),
    axisUnit: "per second",
    lines: [["drops", "dropped"]],
    allOnly: true,
  },
];

/** Numbers of a line: the last, the least and the largest. */
function extent(column) {
  let [least, most] = [null, null];
  for (const value of column) {
    if (value === null) continue;
    if (least === null || value < least) least = value;
    if (most === null || value > most) most = value;
  }
  return { now: column.at(-1) ?? null, least, most };
}

export class Charts {
  constructor(place) {
    this.charts = KINDS.map((kind) => {
      const now = kind.lines.map(([, name], index) => {
        const value = el("b");
        return { value, item: el("span", { class: `line line-${index}` }, el("i", { "aria-hidden": "true" }), `${name} `, value) };
      });
      const canvas = el("div", { class: "chart", role: "img" });
      const figure = el(
        "figure",
        {},
        el("figcaption", {}, el("h3", {}, kind.title), el("span", { class: "quiet" }, kind.axisUnit), ...now.map(({ item }) => item)),
        canvas,
      );
      place.append(figure);
      return { kind, canvas, figure, now, plot: null };
    });
    this.place = place;
    const again = () => this.#again();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    new ResizeObserver(() => this.#resize()).observe(place);
  }

  /** Draws a history up to `now` (its own clock); `whole`: that of the router, not of one link. */
  show(history, whole, now) {
    this.last = [history, whole, now];
    const since = now - (history.times[0] ?? now);
    const span = SPANS.find((each) => each >= since) ?? KEPT_S;
    for (const chart of this.charts) {
      const { kind } = chart;
      const apt = whole || !kind.allOnly;
      set(chart.figure, { hidden: !apt });
      if (!apt) continue;
      const data = history.table(kind.lines.map(([column]) => column));
      chart.plot ??= this.#make(chart);
      chart.plot.setData(data, false);
      chart.plot.batch(() => {
        chart.plot.setScale("x", { min: now - span, max: now });
        chart.plot.setScale("y", { min: 0, max: top(data.slice(1)) });
      });
      this.#tell(chart, data.slice(1));
    }
  }

  #tell(chart, columns) {
    const words = columns.map((column, index) => {
      const { now, least, most } = extent(column);
      const { unit, lines } = chart.kind;
      say(chart.now[index].value, unit(now));
      return most === null
        ? `${lines[index][1]}: ${UNKNOWN}`
        : `${lines[index][1]}: ${unit(now)} now, from ${unit(least)} to ${unit(most)}`;
    });
    set(chart.canvas, { "aria-label": `${chart.kind.title}, last ten minutes; ${words.join("; ")}` });
  }

  #make({ kind, canvas }) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const options = {
      width: this.#width(canvas),
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 16, 0, 0],
      scales: { x: { auto: false }, y: { auto: false } },
      axes: [
        { ...axis, size: 22, space: 60, incrs: [15, 30, 60, 120, 300], values: (plot, ticks) => ticks.map((tick) => ago(plot.scales.x.max - tick)), splits: (plot, _, min, max, step) => splits(min, max, step) },
        { ...axis, size: 46, gap: 3, space: 28, values: (_, ticks) => ticks.map((tick) => kind.axis(tick)) },
      ],
      series: [
        {},
        ...kind.lines.map((_, index) => ({
          stroke: colour(`--line-${index}`),
          width: 1.5,
          dash: index === 1 ? [5, 3] : undefined,
          fill: index === 0 ? colour("--line-fill") : undefined,
          points: { show: false },
          spanGaps: false,
        })),
      ],
    };
    return new uPlot(options, [[], ...kind.lines.map(() => [])], canvas);
  }

  #width(canvas) {
    return Math.max(120, Math.floor(canvas.clientWidth));
  }

  #resize() {
    for (const { plot, canvas } of this.charts) {
      if (plot && plot.width !== this.#width(canvas)) plot.setSize({ width: this.#width(canvas), height: HEIGHT });
    }
  }

  /** Colours are drawn into the charts, so others need new ones. */
  #again() {
    for (const chart of this.charts) {
      chart.plot?.destroy();
      chart.plot = null;
    }
    if (this.last) this.show(...this.last);
  }
}

/** The upper end of the axis: a little more than the largest number. */
function top(columns) {
  const most = Math.max(...columns.map((column) => extent(column).most ?? 0));
  return most > 0 ? most * 1.1 : 1;
}

/** Marks at whole steps before now. */
function splits(min, max, step) {
  const marks = [];
  for (let mark = max; mark >= min; mark -= step) marks.unshift(mark);
  return marks;
}

const ago = (seconds) => {
  if (seconds < 1) return "now";
  return seconds % 60 < 1 ? `-${Math.round(seconds / 60)} min` : `-${Math.round(seconds)} s`;
};
