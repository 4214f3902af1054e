import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { referenceFile, referencePage } from "../../scripts/reference.ts";

test("docs/reference.md says what the program's tables say; where it does not: make reference", async () => {
  assert.equal(await readFile(referenceFile, "utf8"), await referencePage());
});
