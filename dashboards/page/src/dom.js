// Elements. Text from documents goes through `textContent` or `setAttribute` only.

const SVG = "http://www.w3.org/2000/svg";

/** Sets attributes; null and false take them away. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) {
      element.removeAttribute(name);
    } else {
      const text = value === true ? "" : String(value);
      if (element.getAttribute(name) !== text) element.setAttribute(name, text);
    }
  }
  return element;
}

/** Sets the text, if it is another one. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
  return element;
}

/** An element of HTML. Children are elements or text. */
export function el(tag, attributes = {}, ...children) {
  const element = set(document.createElement(tag), attributes);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** An element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  const element = set(document.createElementNS(SVG, tag), attributes);
  element.append(...children);
  return element;
}

/** The element of the page with this id. */
export const at = (id) => document.getElementById(id);

/**
 * Makes the children of `parent` those of `items`, one each, keeping what is there.
 * `still`: what is there keeps its place.
 */
export function keyed(parent, items, { key, make, update, still = false }) {
  const known = parent.keyedChildren ?? (parent.keyedChildren = new Map());
  const wanted = new Set();
  let place = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    if (wanted.has(name)) continue;
    wanted.add(name);
    let child = known.get(name);
    const fresh = !child;
    if (fresh) {
      child = make(item);
      known.set(name, child);
    }
    update(child, item);
    if (still) {
      if (fresh) parent.append(child);
    } else if (place === child) {
      place = place.nextSibling;
    } else {
      parent.insertBefore(child, place);
    }
  }
  for (const [name, child] of known) {
    if (!wanted.has(name)) {
      child.remove();
      known.delete(name);
    }
  }
}

/** A mark that says by its shape what `name` says: one of the symbols of the page. */
export function mark(name) {
  return svg("svg", { class: `mark mark-${name}`, "aria-hidden": "true", viewBox: "0 0 16 16" }, svg("use", { href: `#mark-${name}` }));
}

/** A mark and its word. */
export function chip(name, word) {
  return el("span", { class: `chip chip-${name}` }, mark(name), word);
}
