// dist/ is what src/ makes, and small.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "../build.mjs";

const DIST = join(dirname(fileURLToPath(import.meta.url)), "../dist");
const SCRIPT_MAX = 250_000;

test("dist/ holds what `npm run build` makes of src/", async () => {
  const fresh = await build();
  assert.deepEqual((await readdir(DIST)).sort(), Object.keys(fresh).sort());
  for (const [name, bytes] of Object.entries(fresh)) {
    assert.ok(bytes.equals(await readFile(join(DIST, name))), `dist/${name} is stale: run \`npm run build\``);
  }
});

test("the script is small, evaluates no text, sets no HTML and carries its licences", async () => {
  const { "app.js": script, "index.html": page } = await build();
  assert.ok(script.length < SCRIPT_MAX, `${script.length} bytes`);
  const text = script.toString();
  for (const forbidden of [/\beval\(/, /new Function/, /innerHTML/, /outerHTML/, /insertAdjacentHTML/, /document\.write/]) {
    assert.doesNotMatch(text, forbidden);
  }
  for (const library of ["uplot", "d3-force", "d3-quadtree", "d3-timer", "d3-dispatch"]) assert.match(text, new RegExp(`^${library} [0-9.]+ \\(`, "m"));
  assert.doesNotMatch(page.toString(), /style=|<style|\son[a-z]+=|<script>|https?:\/\/(?!www\.w3\.org)/);
});
