// Numbers as people read them. Every function takes null for what is not known.

export const UNKNOWN = "–";

const STEPS = ["", "k", "M", "G", "T", "P"];

/** Three digits and a decimal prefix: 1234567 with "bit/s" is "1.23 Mbit/s". */
export function scaled(value, unit) {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  let step = 0;
  let rest = Math.abs(value);
  while (rest >= 999.5 && step < STEPS.length - 1) {
    rest /= 1000;
    step += 1;
  }
  const whole = step === 0 && Number.isInteger(rest);
  const digits = whole || rest >= 99.95 ? 0 : rest >= 9.995 ? 1 : 2;
  const text = rest.toFixed(digits);
  return `${value < 0 ? "-" : ""}${text} ${STEPS[step]}${unit}`.trimEnd();
}

/** Bits a second, of bytes a second. */
export const bits = (bytes) => scaled(bytes === null || bytes === undefined ? null : bytes * 8, "bit/s");

/** Bytes. */
export const bytes = (value) => scaled(value, "B");

/** So many a second. */
export const rate = (value) => scaled(value, "/s");

/** All digits, in groups of three. */
export function count(value) {
  if (value === null || value === undefined) return UNKNOWN;
  return String(Math.trunc(value)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Microseconds. */
export function micros(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value < 1000) return `${value} µs`;
  const ms = value / 1000;
  if (ms < 1000) return `${ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`;
  return `${(ms / 1000).toFixed(2)} s`;
}

/** Seconds, in the two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  const units = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = units.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [size, name] = units[first];
  const large = `${Math.floor(seconds / size)} ${name}`;
  const next = units[first + 1];
  const small = next ? Math.floor((seconds % size) / next[0]) : 0;
  return small > 0 ? `${large} ${small} ${next[1]}` : large;
}

/** At most `most` characters, the middle left out. */
export function shortened(text, most) {
  const characters = Array.from(text);
  if (characters.length <= most) return text;
  const tail = Math.floor((most - 1) / 3);
  return `${characters.slice(0, most - 1 - tail).join("")}…${tail > 0 ? characters.slice(-tail).join("") : ""}`;
}
