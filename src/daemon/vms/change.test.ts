import assert from "node:assert/strict";
import { test } from "node:test";
import { vmRow } from "../../../test/support/vm-row.ts";
import { applyLabels, planChange } from "./change.ts";

const GiB = 2 ** 30;
const running = vmRow({ vcpu: 2, memory: GiB, diskSize: 8 * GiB, network: "user", labels: { team: "web", tier: "1" } });
const stopped = { ...running, state: "stopped" as const };

test("the shape of a running VM changes at its next start, that of a stopped one in its record", () => {
  const later = planChange(running, { vcpu: 4, memory: 2 * GiB, network: "none" });
  assert.deepEqual(later.record, { next: { vcpu: 4, memory: 2 * GiB, network: "none" } });
  assert.deepEqual(later.effects, { vcpu: "restart", memory: "restart", network: "restart" });
  const now = planChange(stopped, { vcpu: 4, memory: 2 * GiB });
  assert.deepEqual(now.record, { next: {}, vcpu: 4, memory: 2 * GiB });
  assert.deepEqual(now.effects, { vcpu: "start", memory: "start" });
});

test("what a VM has already takes back what was to come", () => {
  const pending = { ...running, next: { vcpu: 4, memory: 2 * GiB } };
  const { record, effects } = planChange(pending, { vcpu: 2 });
  assert.deepEqual(record.next, { memory: 2 * GiB });
  assert.deepEqual(effects, { vcpu: "now" });
});

test("a disk grows and never shrinks", () => {
  assert.deepEqual(planChange(running, { diskSize: 9 * GiB }), {
    record: { next: {}, diskSize: 9 * GiB },
    effects: { diskSize: "now" },
  });
  assert.equal(planChange(stopped, { diskSize: 9 * GiB }).effects.diskSize, "start");
  assert.deepEqual(planChange(running, { diskSize: 8 * GiB }).record.diskSize, 8 * GiB);
  assert.throws(() => planChange(running, { diskSize: 8 * GiB - 1, vcpu: 3 }), {
    code: "USAGE",
    message: /cannot shrink/,
  });
});

test("labels are set and taken away, and are bounded", () => {
  const { record } = planChange(running, { labels: { team: "db", tier: null, extra: "" } });
  assert.deepEqual(record.labels, { team: "db", extra: "" });
  const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`l${index}`, ""]));
  assert.throws(() => applyLabels({}, many), { code: "USAGE" });
});

test("auto-stop: a time, never, or as the config says", () => {
  assert.equal(planChange(running, { autoStop: 1000 }).record.autoStop, 1000);
  assert.equal(planChange(running, { autoStop: 0 }).record.autoStop, 0);
  const unset = planChange({ ...running, autoStop: 5 }, { autoStop: null }).record;
  assert.ok("autoStop" in unset && unset.autoStop === undefined);
});
