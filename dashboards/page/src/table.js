// Tables that are kept up to date row by row and sorted by their headers.

import { el, keyed, say, set } from "./dom.js";

/** Order of two values; what is not known comes last whichever way. */
function compare(a, b, ascending) {
  const [noA, noB] = [a === null || a === undefined, b === null || b === undefined];
  if (noA || noB) return noA - noB;
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return ascending ? order : -order;
}

export class Table {
  /**
   * `columns`: [{key, label, value(item), show(cell, item), number, first}]; the one of `sort` begins.
   * `key(item)`: what a row is known by. `most`: rows shown.
   */
  constructor(place, { caption, columns, key, sort, ascending = true, most = Infinity, empty, onShown }) {
    Object.assign(this, { columns, key, sort, ascending, most, onShown, items: [] });
    this.buttons = new Map();
    const heads = columns.map((column) => {
      const button = el("button", { type: "button" }, column.label);
      button.addEventListener("click", () => this.#sortBy(column));
      const head = el("th", { scope: "col", class: column.number ? "number" : null }, button);
      this.buttons.set(column.key, head);
      return head;
    });
    this.body = el("tbody");
    this.empty = el("p", { class: "empty", hidden: true }, empty ?? "");
    this.more = el("p", { class: "more", hidden: true });
    this.table = el("table", {}, el("caption", { class: "unseen" }, caption), el("thead", {}, el("tr", {}, ...heads)), this.body);
    place.append(
      el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption }, this.table),
      this.empty,
      this.more,
    );
    this.#heads();
  }

  #sortBy(column) {
    // Numbers are looked at for the largest.
    this.ascending = this.sort === column.key ? !this.ascending : !column.number;
    this.sort = column.key;
    this.#heads();
    this.#draw(false);
  }

  #heads() {
    for (const [key, head] of this.buttons) {
      set(head, { "aria-sort": key === this.sort ? (this.ascending ? "ascending" : "descending") : null });
    }
  }

  /** Shows these items. */
  show(items) {
    this.items = items;
    // Rows do not run away from the pointer or the keyboard.
    this.#draw(this.body.contains(document.activeElement) || this.body.matches(":hover"));
  }

  #draw(still) {
    const column = this.columns.find((each) => each.key === this.sort);
    const first = this.columns[0];
    const values = new Map(this.items.map((item) => [item, column.value(item)]));
    const sorted = [...this.items].sort(
      (a, b) => compare(values.get(a), values.get(b), this.ascending) || compare(first.value(a), first.value(b), true),
    );
    const shown = sorted.slice(0, this.most);
    keyed(this.body, shown, { key: this.key, make: () => this.#row(), update: (row, item) => this.#fill(row, item), still });
    set(this.empty, { hidden: this.items.length > 0 });
    set(this.table, { hidden: this.items.length === 0 });
    const left = sorted.length - shown.length;
    set(this.more, { hidden: left === 0 });
    say(this.more, left > 0 ? `${left} more rows are not shown: search for what you need` : "");
  }

  #row() {
    return el(
      "tr",
      {},
      ...this.columns.map((column) =>
        column.first
          ? el("th", { scope: "row", class: column.class })
          : el("td", { class: column.number ? "number" : column.class }),
      ),
    );
  }

  #fill(row, item) {
    this.columns.forEach((column, index) => {
      const cell = row.children[index];
      const shown = column.show(item, cell);
      if (typeof shown === "string") say(cell, shown);
    });
    this.onShown?.(row, item);
  }
}

const states = new WeakMap();

/** Puts an element into a cell, made again only when `state` is another one. */
export function once(cell, state, make) {
  if (states.get(cell) === state) return;
  states.set(cell, state);
  cell.replaceChildren(...[make()].flat());
}
