import assert from "node:assert/strict";
import { test } from "node:test";
import { BangerError } from "./errors.ts";
import { abortable, allEnded, silentProgress, withDeadline } from "./progress.ts";

const late = () => new BangerError("VM_BOOT_TIMEOUT", "late");

test("a deadline raises its error, and one that is disposed of does not", async () => {
  using limited = withDeadline(silentProgress(), 5, late);
  await assert.rejects(abortable(new Promise(() => undefined), limited.signal), { code: "VM_BOOT_TIMEOUT" });
  const other = withDeadline(silentProgress(), 5, late);
  other[Symbol.dispose]();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(other.signal.aborted, false);
});

test("a deadline longer than a timer can be is not over at once", async () => {
  using limited = withDeadline(silentProgress(), 30 * 86_400_000, late);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(limited.signal.aborted, false);
});

test("nothing goes on behind a failure", async () => {
  const slow = Promise.withResolvers<number>();
  let settled = false;
  const all = allEnded([Promise.reject(new Error("first")), slow.promise]).finally(() => {
    settled = true;
  });
  all.catch(() => undefined);
  await new Promise(setImmediate);
  assert.equal(settled, false);
  slow.resolve(1);
  await assert.rejects(all, /first/);
  assert.deepEqual(await allEnded([1, Promise.resolve("two")]), [1, "two"]);
});
