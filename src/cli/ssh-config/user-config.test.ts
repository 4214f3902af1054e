import assert from "node:assert/strict";
import { test } from "node:test";
import { findIncludes, withInclude, withoutInclude } from "./user-config.ts";

const target = "/home/me/.config/banger/ssh_config";

/** The same numbers for the same seed. */
const random = (seed: number) => () => {
  seed += 0x6d2b79f5;
  let value = Math.imul(seed ^ (seed >>> 15), seed | 1);
  value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
  return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
};

const pieces = [
  "Host work",
  "Host *",
  "Match all",
  "Match exec true",
  "  User me",
  "Include other",
  "include = other",
  `  Include "${target}"`,
  "# a comment",
  "# Include x",
  "",
  " ",
  "\t",
  "\xff\xfe",
  "caf\xe9",
];
const ends = ["\n", "\r\n", "\n\n"];

test("of any file, what was put in comes out, and all the rest stays byte for byte", () => {
  for (let seed = 1; seed <= 3000; seed++) {
    const next = random(seed);
    const pick = (from: readonly string[]): string => from[Math.floor(next() * from.length)] ?? "";
    let text = "";
    for (let lines = Math.floor(next() * 8); lines > 0; lines--) text += pick(pieces) + pick(ends);
    if (next() < 0.3) text = text.replace(/\r?\n$/, "");
    const before = Buffer.from(text, "latin1");
    const installed = withInclude(before, target);
    const shown = `seed ${seed}: ${JSON.stringify(text)}`;
    assert.ok(
      findIncludes(installed, target).some(({ effective }) => effective),
      shown,
    );
    assert.deepEqual(withInclude(installed, target), installed, shown);
    assert.deepEqual(withoutInclude(installed), before, shown);
    assert.deepEqual(withoutInclude(before), before, shown);
    // Nothing of the user's is changed where something is added.
    assert.deepEqual(installed.subarray(installed.length - before.length), before, shown);
  }
});

test("an Include of the user's after a mark that was left alone stays", () => {
  const [mark = ""] = withInclude(Buffer.alloc(0), target).toString().split("\n");
  assert.equal(withoutInclude(Buffer.from(`${mark}\nInclude mine\n`)).toString(), "Include mine\n");
  assert.equal(
    withoutInclude(Buffer.from(`${mark}\nInclude "/old place/banger/ssh_config"\nUser me\n`)).toString(),
    "User me\n",
  );
});
