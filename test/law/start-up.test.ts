/** What a command loads before it does anything: schemas cost 20 ms, a third of the start of the whole program. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";
import { importsOf, scan } from "./scan.ts";

const root = join(import.meta.dirname, "..", "..");
/** These read config.toml. */
const allowed = ["src/cli/config/show.ts", "src/cli/doctor.ts"];

/** @returns how `from` comes to import zod as it is loaded; undefined: it does not */
const wayToZod = async (from: string, seen = new Set<string>()): Promise<string[] | undefined> => {
  if (seen.has(from)) return undefined;
  seen.add(from);
  const source = scan(await readFile(join(root, from), "utf8"));
  for (const { specifier, offset, typeOnly } of importsOf(source)) {
    // What is imported by a call is loaded when it is needed.
    if (typeOnly || /^import\s*\(/.test(source.code.slice(offset))) continue;
    if (specifier.startsWith("zod")) return [from, specifier];
    if (!specifier.startsWith(".")) continue;
    const way = await wayToZod(normalize(join(dirname(from), specifier)), seen);
    if (way) return [from, ...way];
  }
  return undefined;
};

const commandFiles = async (): Promise<string[]> => {
  const table = await readFile(join(root, "src/cli/table.ts"), "utf8");
  return [...table.matchAll(/import\("\.\/([^"]+)"\)/g)].map(([, path = ""]) => `src/cli/${path}`);
};

test("no command loads a schema before it does anything, but those that read the config", async () => {
  const files = [...(await commandFiles()), "src/cli/main.ts", "src/cli/help.ts", "src/cli/completion/words.ts"];
  assert.ok(files.length > 30, "the table is read");
  for (const file of files) {
    const way = await wayToZod(file);
    if (!allowed.includes(file)) assert.equal(way, undefined, way?.join(" -> ") ?? "");
  }
});

test("the law can fail", async () => {
  assert.deepEqual((await wayToZod("src/cli/doctor.ts"))?.at(-1), "zod/mini");
});
