// Builds dist/ from src/: `npm run build`. The router embeds what stands in dist/, so it is committed.

import { readFile, readdir, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build as bundle } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const RULE = "-".repeat(72);

/** The licences of everything in the bundle that is not ours. */
async function licences(inputs) {
  const names = inputs.map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]);
  const parts = [];
  for (const name of [...new Set(names)].filter(Boolean).sort()) {
    const home = join(here, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(home, "package.json"), "utf8"));
    const file = (await readdir(home)).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} comes without a licence file`);
    const text = (await readFile(join(home, file), "utf8")).trim();
    parts.push(`${name} ${version} (${license})\n\n${text}\n`);
  }
  return `The status page contains these libraries.\n\n${parts.map((part) => `${RULE}\n${part}`).join("\n")}`;
}

/** The files of the page by name, as bytes. */
export async function build() {
  const common = {
    absWorkingDir: here,
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    legalComments: "none",
    target: ["es2022"],
    charset: "utf8",
  };
  const script = await bundle({ ...common, entryPoints: ["src/main.js"], format: "iife" });
  const style = await bundle({ ...common, entryPoints: ["src/page.css"] });
  const text = await licences([...Object.keys(script.metafile.inputs), ...Object.keys(style.metafile.inputs)]);
  // What is served carries its licences along.
  const noted = `${script.outputFiles[0].text}/*\n${text.replaceAll("*/", "* /")}*/\n`;
  return {
    "index.html": await readFile(join(here, "src/index.html")),
    "app.js": Buffer.from(noted),
    "app.css": Buffer.from(style.outputFiles[0].contents),
    "LICENSES.txt": Buffer.from(text),
  };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await mkdir(join(here, "dist"), { recursive: true });
  for (const [name, bytes] of Object.entries(await build())) {
    await writeFile(join(here, "dist", name), bytes);
    console.log(`${name.padEnd(14)}${String(bytes.length).padStart(8)} bytes`);
  }
}
