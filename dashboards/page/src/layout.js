// Where hosts stand on the map. The same hosts and links always give the same map.

import { forceCollide, forceLink, forceManyBody, forceSimulation, forceX, forceY } from "d3-force";

/** Room for a host and what is written below it, pixels. */
export const CELL = { width: 116, height: 62 };
const PADDING = { x: 58, top: 30, bottom: 50 };
const HEIGHT_MIN = 300;
/** Few hosts stand this much farther apart at most. */
const APART_MAX = 1.8;
/** Turns of the simulation: fewer where each costs more. */
const TURNS = { least: 80, most: 300, hosts: 20_000 };
const SPREAD_TURNS = 80;
/** With more links than this for each host the mesh has no shape to show. */
const DENSE = 4;

/**
 * Places for `nodes` ([{key, own}]) in a box `width` wide: `{places: Map(key → {x, y}), height}`.
 * `cell`: the least room for each host.
 */
export function layout(nodes, edges, width, cell = CELL) {
  // Cells are wider than high; what pushes hosts apart is round. So x is shrunk meanwhile.
  const shrink = cell.height / cell.width;
  const inner = Math.max(1, width - 2 * PADDING.x);
  const half = (inner * shrink) / 2;
  const sorted = [...nodes].sort((a, b) => (a.own === b.own ? (a.key < b.key ? -1 : 1) : a.own ? -1 : 1));
  const points = sorted.map((node) => ({ key: node.key, own: node.own }));
  const present = new Set(points.map((point) => point.key));
  const links = edges
    .filter((edge) => present.has(edge.a) && present.has(edge.b))
    .map((edge) => ({ source: edge.a, target: edge.b }));
  const room = (width * HEIGHT_MIN) / (points.length * cell.width * cell.height);
  const radius = (cell.height / 2) * Math.min(APART_MAX, Math.max(1, Math.sqrt(room / 2)));
  // As flat as the box is.
  const expected = (points.length * cell.height * cell.height) / (2 * half);
  const flat = Math.min(1, Math.max(0.08, expected / (2 * half)));
  const shapeless = links.length > DENSE * points.length;
  const simulation = forceSimulation(points)
    .force("x", forceX(0).strength(0.06 * flat))
    .force("y", forceY(0).strength(0.06))
    .force("collide", forceCollide(radius).strength(1).iterations(2))
    .force("walls", () => {
      for (const point of points) point.x = Math.min(half, Math.max(-half, point.x));
    })
    .stop();
  if (!shapeless) {
    simulation.force("charge", forceManyBody().strength(-radius * 6).distanceMax(radius * 12));
    simulation.force("link", forceLink(links).id((point) => point.key).distance(radius * 2.6));
  }
  const own = points.find((point) => point.own);
  if (own) {
    own.fx = 0;
    own.fy = 0;
  }
  const turns = Math.round(Math.min(TURNS.most, Math.max(TURNS.least, TURNS.hosts / points.length)));
  simulation.alphaDecay(1 - 0.001 ** (1 / turns)).tick(turns);
  // What pulls hosts together has done its work: now they only make room for each other.
  for (const name of ["x", "y", "charge", "link"]) simulation.force(name, null);
  simulation.tick(SPREAD_TURNS);
  return fit(points, shrink, width, inner);
}

function fit(points, shrink, width, inner) {
  const xs = points.map((point) => point.x / shrink);
  const ys = points.map((point) => point.y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const wide = Math.max(1, right - left);
  const stretch = Math.min(inner / wide, 1.5);
  const high = bottom - top;
  const height = Math.max(HEIGHT_MIN, high + PADDING.top + PADDING.bottom);
  const middle = (left + right) / 2;
  const lift = (height - PADDING.bottom + PADDING.top) / 2 - (top + bottom) / 2;
  const places = new Map(
    points.map((point, index) => [
      point.key,
      { x: width / 2 + (xs[index] - middle) * stretch, y: ys[index] + lift },
    ]),
  );
  return { places, height: Math.round(height) };
}
