import assert from "node:assert/strict";
import { PassThrough, Writable } from "node:stream";
import { test } from "node:test";
import { vmRow } from "../../../test/support/vm-row.ts";
import type { Vm, VmWatchLine } from "../../contract/vms.ts";
import { vmView } from "./service.ts";
import { vmFeed } from "./watch.ts";

/** As it looks behind the wire. */
const vm = (id: string, change: Partial<Vm> = {}): Vm => ({
  ...JSON.parse(JSON.stringify(vmView(vmRow({ id, name: `vm-${id}` })))),
  ...change,
});

test("a watcher gets all VMs, then each change, then the end of a VM", { timeout: 10_000 }, async () => {
  const vms = new Map([["a", vm("a")]]);
  const feed = vmFeed(
    () => [...vms.values()],
    (id) => vms.get(id),
  );
  const output = new PassThrough();
  const gone = new AbortController();
  const watching = feed.watch(output, gone.signal);
  const lines = output[Symbol.asyncIterator]();
  const next = async () => JSON.parse(String((await lines.next()).value)) as VmWatchLine;
  assert.deepEqual((await next()).vms, [vm("a")]);
  vms.set("b", vm("b"));
  feed.changed("b");
  assert.deepEqual((await next()).vm, vm("b"));
  vms.delete("a");
  feed.changed("a");
  assert.deepEqual((await next()).gone, { id: "a", name: "vm-a" });
  gone.abort();
  await watching;
});

test("a watcher that does not read costs one line per VM, however often it changes", { timeout: 10_000 }, async () => {
  const release: (() => void)[] = [];
  const lines: string[] = [];
  const slow = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      lines.push(String(chunk));
      release.push(done);
    },
  });
  let current = vm("a");
  const feed = vmFeed(
    () => [current],
    () => current,
  );
  const gone = new AbortController();
  const watching = feed.watch(slow, gone.signal);
  for (let epoch = 0; epoch < 1000; epoch++) {
    current = vm("a", { createdAt: epoch });
    feed.changed("a");
  }
  release.shift()?.();
  await new Promise(setImmediate);
  release.shift()?.();
  await new Promise(setImmediate);
  assert.equal(lines.length, 2);
  assert.equal((JSON.parse(lines[1] ?? "") as VmWatchLine).vm?.createdAt, 999);
  gone.abort();
  await watching;
});
