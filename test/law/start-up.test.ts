/** What a command loads before it does anything: schemas cost 20 ms, a third of the start of the whole program, cryptography 11 ms. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";
import { importsOf, scan } from "./scan.ts";

const root = join(import.meta.dirname, "..", "..");
/** These read config.toml. */
const zod = /^zod/;
const slow = /^node:(?:crypto|child_process|fs\/promises|http)$/;
const allowed = ["src/cli/config/show.ts", "src/cli/doctor.ts"];

/** @returns how `from` comes to import one of `modules` as it is loaded; undefined: it does not */
const wayTo = async (modules: RegExp, from: string, seen = new Set<string>()): Promise<string[] | undefined> => {
  if (seen.has(from)) return undefined;
  seen.add(from);
  const source = scan(await readFile(join(root, from), "utf8"));
  for (const { specifier, offset, typeOnly } of importsOf(source)) {
    // What is imported by a call is loaded when it is needed.
    if (typeOnly || !/^(?:import|export)\b(?!\s*\()/.test(source.code.slice(offset))) continue;
    if (modules.test(specifier)) return [from, specifier];
    if (!specifier.startsWith(".")) continue;
    const way = await wayTo(modules, normalize(join(dirname(from), specifier)), seen);
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
    const way = await wayTo(zod, file);
    if (!allowed.includes(file)) assert.equal(way, undefined, way?.join(" -> ") ?? "");
  }
});

test("a command in a VM that runs, and a list of VMs, load none of Node's slow modules on their way to the daemon", async () => {
  for (const file of ["src/cli/main.ts", "src/cli/vm/exec.ts", "src/cli/vm/list.ts"]) {
    const way = await wayTo(slow, file);
    assert.equal(way, undefined, way?.join(" -> ") ?? "");
  }
});

test("the program itself loads no stream before it knows its command", async () => {
  const way = await wayTo(/^node:stream/, "src/cli/main.ts");
  assert.equal(way, undefined, way?.join(" -> ") ?? "");
});

test("the law can fail", async () => {
  assert.deepEqual((await wayTo(zod, "src/cli/doctor.ts"))?.at(-1), "zod/mini");
  assert.ok(await wayTo(slow, "src/cli/workspace/export.ts"));
});
