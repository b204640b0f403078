// Rates over the last minutes.

/** How far back, seconds. */
export const KEPT_S = 600;
/** A gap longer than this is shown as one, seconds. */
const GAP_S = 5;

/** Columns of numbers over time, the oldest thrown away. */
export class History {
  constructor(names) {
    this.names = names;
    this.times = [];
    this.columns = names.map(() => []);
  }

  /** Adds one sample at `time` (seconds). */
  add(time, values) {
    const last = this.times.at(-1);
    if (last !== undefined && time <= last) return;
    if (last !== undefined && time - last > GAP_S) {
      this.#push(
        last + 1,
        this.names.map(() => null),
      );
    }
    this.#push(time, values);
    while (this.times[0] < time - KEPT_S) {
      this.times.shift();
      for (const column of this.columns) column.shift();
    }
  }

  #push(time, values) {
    this.times.push(time);
    this.columns.forEach((column, index) => column.push(values[index] ?? null));
  }

  /** The column of this name. */
  column(name) {
    return this.columns[this.names.indexOf(name)];
  }

  /** Times and the columns of these names. */
  table(names) {
    return [this.times, ...names.map((name) => this.column(name))];
  }
}
