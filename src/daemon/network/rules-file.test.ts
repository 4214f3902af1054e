import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { NetRule } from "../../contract/network.ts";
import { parseNetRule } from "../../contract/net-rules.ts";
import { checkRules } from "./rules.ts";
import { heedsRules, rulesText, writeRules } from "./rules-file.ts";

test("rules are written as the filter reads them, each network of the host once", () => {
  const rules = [parseNetRule("deny", "any:25/tcp"), parseNetRule("allow", "192.168.1.7/24")];
  const near = ["192.0.2.2/24", "192.0.2.0/24", "192.0.2.2/32", "fd00:0000:0000:0000:0000:0000:0000:0002/64"];
  const text =
    "format 2\ndeny 0.0.0.0/0 tcp 25-25\nallow 192.168.1.0/24 any *\nlocal 192.0.2.0/24\nlocal 192.0.2.2/32\nlocal fd00::/64\ndefault allow";
  assert.equal(rulesText({ network: "user", rules, team: [] }, { near, six: false }), text);
  const nowhere = { near: [], six: false };
  assert.equal(rulesText({ network: "policy", rules: [], team: [] }, nowhere), "format 2\ndefault deny");
  assert.equal(
    rulesText({ network: "learn", rules: [], team: ["team x"], whose: "whose 1 /x" }, { near: [], six: true }),
    "format 2\ndefault allow\nipv6\nlearn\nwhose 1 /x\nteam x",
  );
});

test("a filter of an earlier banger would not understand them", async () => {
  const folder = await mkdtemp(join(tmpdir(), "rules-"));
  try {
    const path = join(folder, "network.rules");
    assert.equal(await heedsRules(path), false);
    await writeFile(path, "default allow");
    assert.equal(await heedsRules(path), false);
    await writeRules(path, () => ({ network: "user", rules: [], team: [] }));
    assert.equal(await heedsRules(path), true);
  } finally {
    await rm(folder, { recursive: true });
  }
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
