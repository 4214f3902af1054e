/** The daemon and the filter before a guest's network decide about the same addresses: one table for both, see agent/src/host/address.rs. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { addressOf, holds, isNear, isNever, type Network, networkOf, NEVER, PRIVATE } from "./whose-address.ts";

type Vectors = {
  never: string[];
  private: string[];
  local: string[];
  addresses: Record<"never" | "group" | "near" | "world", string[]>;
  holds: [network: string, address: string, holds: boolean][];
};

const file = join(import.meta.dirname, "..", "..", "..", "test", "support", "address-vectors.json");
const vectors = JSON.parse(await readFile(file, "utf8")) as Vectors;

const network = (text: string): Network => {
  const found = networkOf(text);
  assert.ok(found, text);
  return found;
};

test("the networks that are never reached and those that are somebody's own are those of the table, and no others", () => {
  const sorted = (networks: readonly Network[]) =>
    networks.map(({ six, value, bits }) => `${six} ${value.toString(16)} ${bits}`).sort();
  assert.deepEqual(sorted(NEVER), sorted(vectors.never.map(network)));
  assert.deepEqual(sorted(PRIVATE), sorted(vectors.private.map(network)));
});

test("each address of the table is what the table says", () => {
  const local = vectors.local.map(network);
  for (const [wanted, texts] of Object.entries(vectors.addresses)) {
    assert.notEqual(texts.length, 0, wanted);
    for (const text of texts) {
      const address = addressOf(text);
      assert.ok(address, text);
      const never = isNever(address);
      assert.equal(never, wanted === "never" || wanted === "group", text);
      if (!never) assert.equal(isNear(address, local), wanted === "near", text);
    }
  }
});

test("a network holds what the table says", () => {
  for (const [base, text, wanted] of vectors.holds) {
    const address = addressOf(text);
    assert.ok(address, text);
    assert.equal(holds(network(base), address), wanted, `${base} ${text}`);
  }
});
