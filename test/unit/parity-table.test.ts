/** docs/vmm.md tells of each behaviour which drivers have it, as the list that is run with them says. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { behaviours, drivers } from "../parity/behaviours.ts";

test("the table of docs/vmm.md is the list of behaviours, with the reason where a driver does not have one", async () => {
  const text = await readFile(join(import.meta.dirname, "../../docs/vmm.md"), "utf8");
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const table = [
    row(["a VM", ...drivers]),
    row(["---", ...drivers.map(() => "---")]),
    ...behaviours.map(({ name, not }) => row([name, ...drivers.map((driver) => not?.[driver] ?? "yes")])),
  ].join("\n");
  assert.ok(text.includes(`\n${table}\n`), `docs/vmm.md must have this table:\n${table}`);
});
