/** The network of a Firecracker, with a program in its place that opens the tap as Firecracker does and speaks for the guest. */
import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { processEnds } from "../../../test/support/wait.ts";
import { agentBinary } from "../../host/paths.ts";
import { startProcess } from "../../host/process.ts";
import { startPlainPasst } from "../qemu/network.ts";
import { requireTap } from "./host.ts";

const guest = join(import.meta.dirname, "../../../test/support/tap-guest.py");

test("a guest reaches the network through its tap, and not the host's loopback; its VMM has no capability; all ends with it", async () => {
  await requireTap();
  const folder = await mkdtemp(join(tmpdir(), "fire-"));
  const server = createServer((socket) => socket.end()).listen(0, "0.0.0.0");
  try {
    await new Promise((resolve) => server.once("listening", resolve));
    const address = server.address();
    assert.ok(typeof address === "object" && address);
    const own = Object.values(networkInterfaces())
      .flat()
      .find((each) => each?.family === "IPv4" && !each.internal);
    assert.ok(own, "this host has an address");
    const rules = join(folder, "rules");
    await writeFile(rules, `allow ${own.address}/32 tcp ${address.port}\ndefault deny`);
    const log = join(folder, "network.log");
    const { nic, pid } = await startPlainPasst(folder, log);
    await using networkLog = await open(log, "a");
    await using running = await startProcess({
      argv: [agentBinary(), "--launch", "--tap", rules, "--", "python3", guest, own.address, String(address.port)],
      stdio: ["ignore", "pipe", "inherit", nic, "ignore", networkLog.fd],
    });
    nic.destroy();
    assert.ok(running.child.stdout);
    const none = "0".repeat(16);
    assert.deepEqual((await text(running.child.stdout)).trim().split("\n"), [
      `capabilities ${none} ${none}`,
      "gateway 10.0.2.2",
      "loopback refused",
      "host True",
    ]);
    assert.equal((await running.exited).status, 0);
    await processEnds(pid);
    assert.ok((await readFile(log, "utf8")).includes(`refused tcp 127.0.0.1:${address.port} by: never\n`));
  } finally {
    server.close();
    await rm(folder, { recursive: true });
  }
});
