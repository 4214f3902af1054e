import assert from "node:assert/strict";
import { test } from "node:test";
import { BangerError } from "../../contract/errors.ts";
import { checkCopied, checkSecrets, merged, recordOf, settle } from "./records.ts";

const hosts = ["api.example.com"];
const record = { name: "TOKEN", hosts, headers: ["authorization"], placeholder: `banger_secret_${"0".repeat(32)}` };
const hasCode = (code: string) => (error: unknown) => error instanceof BangerError && error.code === code;

test("a new value keeps the placeholder, and hosts need no naming only where they came with a value", () => {
  const [fresh] = settle([{ name: "TOKEN", value: "a-new-value", hosts: ["b.example"] }], [record]);
  assert.deepEqual(
    [fresh?.placeholder, fresh?.hosts, fresh?.headers],
    [record.placeholder, ["b.example"], record.headers],
  );
  const kept = { ...record, value: "an-old-value" };
  assert.deepEqual(settle([{ name: "TOKEN", value: "a-new-value" }], [record], [kept])[0]?.hosts, hosts);
  // Of a copy without values the hosts may be anybody's.
  assert.throws(() => settle([{ name: "TOKEN", value: "a-new-value" }], [record], []), hasCode("USAGE"));
  const twice = { name: "TOKEN", value: "a-new-value", hosts };
  assert.throws(() => settle([twice, twice], []), hasCode("USAGE"));
  assert.deepEqual(merged([record], settle([twice], [record]).map(recordOf)), [record]);
});

test("what a VM cannot have is refused", () => {
  checkSecrets({ network: "policy", env: { OTHER: "x" } }, [record]);
  checkSecrets({ network: "none", env: {} }, []);
  assert.throws(() => checkSecrets({ network: "none", env: {} }, [record]), hasCode("USAGE"));
  assert.throws(() => checkSecrets({ network: "user", env: { TOKEN: "x" } }, [record]), hasCode("USAGE"));
});

test("a snapshot of somebody else's names nothing that the daemon would trip over", () => {
  checkCopied([record]);
  for (const change of [
    { name: "XDG_STATE_HOME" },
    { name: "A\nB" },
    { hosts: ["a b"] },
    { hosts: [] },
    { headers: ["host"] },
  ])
    assert.throws(() => checkCopied([{ ...record, ...change }]), hasCode("SAVED_CORRUPT"));
});
