/** Chaos in its short form; `make chaos` is the long one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { chaos } from "../chaos/run.ts";
import { slope, soak } from "../chaos/soak.ts";
import { plan } from "../chaos/plan.ts";

const quiet = () => undefined;

test("a seed repeats a run, another one does not", () => {
  assert.deepEqual(plan(7, 50, 5), plan(7, 50, 5));
  assert.notDeepEqual(plan(7, 50, 5), plan(8, 50, 5));
});

test("commands and faults at random moments: nothing lost, nothing left", async () => {
  const done = await chaos({ seed: 4711, commands: 24, vms: 5, small: false, templates: false, say: quiet });
  assert.ok(done.commands >= 24 && done.faults > 0);
});

test("a daemon holds nothing of the VMs that are gone", async () => {
  assert.equal(slope([1, 1, 1, 1]), 0);
  assert.equal(slope([1, 3, 5, 7]), 2);
  const grown = await soak({ rounds: 10, templates: false, say: quiet });
  assert.ok(grown.descriptors < 1, JSON.stringify(grown));
  assert.ok(grown.processes < 0.5 && grown.disk < 100, JSON.stringify(grown));
});
