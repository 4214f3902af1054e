import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

const root = join(import.meta.dirname, "../..");
const read = (path: string): Promise<string> => readFile(join(root, path), "utf8");

type Entry = {
  version?: string;
  integrity?: string;
  resolved?: string;
  dependencies?: Record<string, string>;
  devDependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
};

for (const folder of [".", "tools/node"]) {
  test(`${folder}/package-lock.json is complete and names no registry`, async () => {
    const { packages }: { packages: Record<string, Entry> } = JSON.parse(await read(`${folder}/package-lock.json`));
    for (const [path, entry] of Object.entries(packages)) {
      assert.equal(entry.resolved, undefined, `${path} names where it came from`);
      if (path !== "") assert.match(entry.integrity ?? "", /^sha512-/, `${path} has no digest`);
      // A registry that lacked a platform's package when the file was written leaves a gap that `npm ci` refuses.
      for (const name of Object.keys({ ...entry.dependencies, ...entry.optionalDependencies }))
        assert.ok(packages[`${path}/node_modules/${name}`] ?? packages[`node_modules/${name}`], `${name} is missing`);
    }
  });

  test(`${folder}/package.json pins exact versions`, async () => {
    const { dependencies, devDependencies }: Entry = JSON.parse(await read(`${folder}/package.json`));
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies }))
      assert.match(version, /^\d+\.\d+\.\d+$/, name);
  });
}

test("agent/Cargo.lock takes every crate from crates.io, with a checksum", async (t) => {
  const text = await read("agent/Cargo.lock").catch(() => undefined);
  if (text === undefined) return t.skip("no agent yet");
  for (const crate of text.split("[[package]]").slice(1)) {
    const source = /^source = "(.*)"$/m.exec(crate)?.[1];
    if (source === undefined) continue;
    assert.equal(source, "registry+https://github.com/rust-lang/crates.io-index");
    assert.match(crate, /^checksum = "[0-9a-f]{64}"$/m);
  }
});
