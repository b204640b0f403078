// Runs all tests, several files at once, and says what failed and how many passed.

import { readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { run } from "node:test";
import { fileURLToPath } from "node:url";

/** Most of the time browsers wait. */
const AT_ONCE = 3;
const here = dirname(fileURLToPath(import.meta.url));
const files = readdirSync(here).filter((name) => name.endsWith(".test.mjs"));
const begun = performance.now();
let [passed, failed] = [0, 0];

/** A file counts as a test, too. */
const isFile = (name) => files.includes(basename(name));

for await (const { type, data } of run({ files: files.map((name) => join(here, name)), concurrency: AT_ONCE })) {
  if (type === "test:pass" && !isFile(data.name)) passed += 1;
  if (type !== "test:fail") continue;
  const { error } = data.details;
  // A file fails when one of its tests does; that is said already.
  if (isFile(data.name) && error?.failureType === "subtestsFailed") continue;
  failed += 1;
  console.log(`FAIL ${basename(data.file ?? "")}: ${data.name}\n${error?.cause?.stack ?? error?.cause ?? error}`);
}
const seconds = ((performance.now() - begun) / 1000).toFixed(1);
console.log(`status page: ${passed} tests passed, ${failed} failed, ${seconds} s`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
