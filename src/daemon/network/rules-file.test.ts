import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { NetRule } from "../../contract/network.ts";
import { parseNetRule } from "../../contract/net-rules.ts";
import { checkRules } from "./rules.ts";
import { rulesText, writeRules } from "./rules-file.ts";

test("rules are written as the filter reads them, each network of the host once", () => {
  const rules = [parseNetRule("deny", "any:25/tcp"), parseNetRule("allow", "192.168.1.7/24")];
  const near = ["192.0.2.2/24", "192.0.2.0/24", "192.0.2.2/32"];
  const text =
    "deny 0.0.0.0/0 tcp 25-25\nallow 192.168.1.0/24 any *\nlocal 192.0.2.0/24\nlocal 192.0.2.2/32\ndefault allow";
  assert.equal(rulesText({ network: "user", rules, team: [] }, near), text);
  assert.equal(rulesText({ network: "policy", rules: [], team: [] }, []), "default deny");
  assert.equal(rulesText({ network: "learn", rules: [], team: ["team x"] }, []), "default allow\nlearn\nteam x");
});

test("of many changes at once the last one is what counts in the end", async () => {
  const folder = await mkdtemp(join(tmpdir(), "rules-"));
  try {
    const path = join(folder, "network.rules");
    let rules: NetRule[] = [];
    const writes: Promise<void>[] = [];
    for (let port = 1; port <= 50; port++) {
      rules = [parseNetRule("deny", `any:${port}`), ...rules];
      writes.push(writeRules(path, () => ({ network: "user", rules, team: [] })));
    }
    await Promise.all(writes);
    assert.equal((await readFile(path, "utf8")).split("\n").filter((line) => line.startsWith("deny")).length, 50);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a program's rules are checked too, and brought into the filter's form", () => {
  const rule = { action: "deny", proto: "any" } as const;
  assert.deepEqual(checkRules([{ ...rule, to: "1.2.3.4/8" }]), [{ ...rule, to: "1.0.0.0/8" }]);
  for (const wrong of [
    { ...rule, to: "999.0.0.0/8" },
    { ...rule, to: "1.0.0.0/8", ports: [9, 8] as [number, number] },
  ])
    assert.throws(() => checkRules([wrong]), { code: "USAGE" });
  assert.throws(() => checkRules(Array(1001).fill({ ...rule, to: "1.0.0.0/8" })), { code: "USAGE" });
});
