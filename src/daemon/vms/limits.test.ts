import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { checkDisk, checkMemory, type HostRoom, hostRoom } from "./limits.ts";

const GiB = 2 ** 30;
const room: HostRoom = {
  memory: { total: 16 * GiB, available: 8 * GiB, swapTotal: 2 * GiB, swapFree: GiB },
  diskTotal: 200 * GiB,
  diskFree: 50 * GiB,
};

test("memory: fine, told of, and refused", () => {
  assert.deepEqual(checkMemory(2 * GiB, 4 * GiB, room, false), []);
  assert.match(checkMemory(2 * GiB, 15 * GiB, room, false)[0] ?? "", /may use 17 GiB .*together.* 16 GiB/);
  assert.match(checkMemory(10 * GiB, 0, room, false)[0] ?? "", /10 GiB .* 9 GiB left now/);
  assert.throws(() => checkMemory(19 * GiB, 0, room, false), {
    code: "HOST_LIMIT",
    message: /19 GiB cannot run on a host with 18 GiB/,
    hint: /--memory.*--force/,
  });
  const exhausted = { ...room, memory: { ...room.memory, available: 50 * 2 ** 20, swapFree: 0 } };
  assert.throws(() => checkMemory(GiB, 0, exhausted, false), { code: "HOST_LIMIT", message: /only 50 MiB/ });
  assert.equal(checkMemory(GiB, 0, exhausted, true).length, 1);
  assert.equal(checkMemory(19 * GiB, 0, room, true).length, 1);
});

test("disk: fine, told of, and refused", () => {
  assert.deepEqual(checkDisk(8 * GiB, 50 * GiB, room, false), []);
  assert.match(checkDisk(8 * GiB, 58 * GiB, room, false)[0] ?? "", /may grow by 58 GiB .* 50 GiB free/);
  assert.throws(() => checkDisk(300 * GiB, 300 * GiB, room, false), { code: "HOST_LIMIT", message: /never be filled/ });
  assert.throws(() => checkDisk(GiB, GiB, { ...room, diskFree: 1024 }, false), { code: "HOST_LIMIT" });
  assert.equal(checkDisk(300 * GiB, 300 * GiB, room, true).length, 1);
});

test("what this host has is understood", async () => {
  const found = await hostRoom(tmpdir());
  assert.ok(found.memory.available > 0 && found.memory.available <= found.memory.total);
  assert.ok(found.diskFree > 0 && found.diskFree <= found.diskTotal);
});
