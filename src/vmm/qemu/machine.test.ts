/** Machines of an earlier daemon, with other programs in QEMU's place: only their processes and sockets count here. */
import assert from "node:assert/strict";
import { access, mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { processEnds } from "../../../test/support/wait.ts";
import { processStartTime } from "../../host/proc.ts";
import { startProcess } from "../../host/process.ts";
import type { MachineIdentity } from "../driver.ts";
import { qemuDriver } from "./driver.ts";

const withSleeper = async (
  use: (sleeper: MachineIdentity, sockets: Parameters<ReturnType<typeof qemuDriver>["adopt"]>[1]) => Promise<void>,
  ...words: string[]
): Promise<void> => {
  const root = await mkdtemp(join(tmpdir(), "banger-machine-"));
  const folder = join(root, "vm");
  await mkdir(folder);
  // It waits without a child: one would have the same command line until it executes something else.
  await using running = await startProcess({
    argv: ["sh", "-c", "read -r _", "sh", ...words],
    stdio: ["pipe", "ignore", "pipe"],
  });
  try {
    const startTime = await processStartTime(running.pid);
    const socket = (name: string) => join(folder, name);
    const sockets = { folder, agent: socket("agent"), control: socket("control"), console: socket("console") };
    await use({ pid: running.pid, startTime: startTime ?? "", helpers: [] }, sockets);
  } finally {
    running.signal("SIGKILL");
    await rm(root, { recursive: true });
  }
};

const driver = qemuDriver("qemu-system-x86_64");

test("a lost control connection is not the end of a machine that lives", () =>
  withSleeper(async (identity, sockets) => {
    const connections: Socket[] = [];
    const servers = [sockets.control, sockets.console].map((path) =>
      createServer((socket) => void connections.push(socket.on("error", () => undefined))).listen(path),
    );
    await Promise.all(servers.map((server) => new Promise((resolve) => server.once("listening", resolve))));
    const machine = await driver.adopt(identity, sockets);
    assert.ok(machine);
    while (connections.length < 2) await new Promise(setImmediate);
    for (const socket of connections) socket.destroy();
    const pause = new Promise((resolve) => setTimeout(resolve, 3000, "lives"));
    assert.equal(await Promise.race([machine.ended, pause]), "lives");
    await access(sockets.folder);
    await machine.kill();
    assert.equal((await machine.ended).clean, true);
    await assert.rejects(access(sockets.folder));
    for (const server of servers) server.close();
  }));

test("a machine whose sockets are gone can be ended, and nothing else", () =>
  withSleeper(async (identity, sockets) => {
    const machine = await driver.adopt(identity, sockets);
    assert.ok(machine);
    await assert.rejects(machine.openAgentChannel(), { code: "GUEST_AGENT_LOST" });
    await machine.kill();
    assert.equal(await processStartTime(identity.pid), undefined);
  }));

test("a process of another start time is somebody else's", () =>
  withSleeper(async (identity, sockets) => {
    assert.equal(await driver.adopt({ ...identity, startTime: "1" }, sockets), undefined);
    assert.notEqual(await processStartTime(identity.pid), undefined);
  }));

test("a VMM that no daemon wrote down is found by its own disk, and nothing else is taken for one", async () => {
  const folder = join(tmpdir(), "banger, vms", `${process.pid}`);
  const disk = join(folder, "box", "disk.ext4");
  const words = ["-drive", `id=disk1,file=${disk.replaceAll(",", ",,")},format=raw,if=none`];
  await withSleeper(
    async (identity) => {
      assert.deepEqual(await driver.running(`${folder}x`), []);
      assert.deepEqual(await driver.running(folder), [{ identity, disk }]);
    },
    ...words,
  );
  await withSleeper(async () => assert.deepEqual(await driver.running(folder), []), `less ${words[1]}`, disk);
});

test("what serves a VMM's network ends with it, also where it stands still", async () => {
  await withSleeper((helper) =>
    withSleeper(async (identity, sockets) => {
      process.kill(helper.pid, "SIGSTOP");
      const stranger = { pid: process.pid, startTime: "1", helpers: [] };
      const machine = await driver.adopt({ ...identity, helpers: [helper, stranger] }, sockets);
      await machine?.kill();
      await processEnds(helper.pid);
    }),
  );
  await withSleeper(async (helper, sockets) => {
    assert.equal(await driver.adopt({ pid: helper.pid, startTime: "1", helpers: [helper] }, sockets), undefined);
    await processEnds(helper.pid);
  });
});
