import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { consoleFilter } from "./console.ts";
import { asciiJson, harmless } from "./plain.ts";

test("a message of a guest moves no cursor and sets no title", () => {
  assert.equal(harmless("a\x1b]52;c;aGk=\x07b\r\n\tc\x9b2J"), "a?]52;c;aGk=?b?\n\tc?2J");
});

test("JSON on a terminal holds no control character", () => {
  const value = { name: "\x1b[2J\x9b2J\x7f" };
  const printed = asciiJson(value);
  assert.doesNotMatch(printed, /\p{Cc}/u);
  assert.deepEqual(JSON.parse(printed), value);
});

const filtered = (pieces: string[]) =>
  text(Readable.from(pieces.map((piece) => Buffer.from(piece))).pipe(consoleFilter()));

const CONSOLE =
  "\x1b[0;32m  OK  \x1b[0m Started ssh.\r\n\x1b]0;title\x07\x1b]52;c;aGk=\x1b\\\x1b[2J\x1b[10;10Hd\xe9j\xe0\x1bc\x9b2K\x08\tend\n\x1bP+q544e\x1b\\\x1b[6n.";
const CLEAN = "\x1b[0;32m  OK  \x1b[0m Started ssh.\nd\xe9j\xe02K\tend\n.";

test("of a console a terminal gets text and colours", async () => {
  assert.equal(await filtered([CONSOLE]), CLEAN);
});

test("wherever its bytes are cut", async () => {
  for (let at = 1; at < CONSOLE.length; at++)
    assert.equal(await filtered([CONSOLE.slice(0, at), CONSOLE.slice(at)]), CLEAN, `cut at ${at}`);
  assert.equal(await filtered([...CONSOLE]), CLEAN);
});

test("a sequence that never ends is not waited for", async () => {
  const out = await filtered(["\x1b]0;", "x".repeat(10_000), "\x1b[", "y"]);
  assert.ok(!out.includes("\x1b"));
  assert.ok(out.includes("x".repeat(5000)));
});
