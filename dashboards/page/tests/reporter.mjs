// Says what failed and why, and how many passed in one line.

import { basename } from "node:path";

export default async function* report(source) {
  let [passed, failed, time] = [0, 0, 0];
  for await (const { type, data } of source) {
    // A file is no test.
    const counts = data?.details?.type !== "suite" && !/\.mjs$/.test(data?.name ?? "");
    if (type === "test:pass" && counts) {
      passed += 1;
      time += data.details.duration_ms;
    } else if (type === "test:fail") {
      const { error } = data.details;
      if (counts) failed += 1;
      if (counts || error?.failureType !== "subtestsFailed") {
        yield `FAIL ${basename(data.file ?? "")}: ${data.name}\n${error?.cause?.stack ?? error?.cause ?? error}\n`;
      }
    }
  }
  yield `status page: ${passed} tests passed, ${failed} failed, ${(time / 1000).toFixed(1)} s of tests\n`;
}
