import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openFrameStream } from "../../client/frame-stream.ts";
import { BangerError } from "../../contract/errors.ts";
import { socketPair } from "../../host/sockets.ts";
import { type ClientStream, clientStream } from "./client-stream.ts";

const joined = async () => {
  const folder = await mkdtemp(join(tmpdir(), "banger-stream-"));
  const [near, far] = await socketPair(folder);
  await rm(folder, { recursive: true });
  const client = openFrameStream(near, Buffer.alloc(0), { argv: ["true"] });
  client.stdout.resume();
  client.stderr.resume();
  const daemon: ClientStream = clientStream(far, Buffer.alloc(0));
  far.resume();
  return { client, daemon, [Symbol.dispose]: () => void [near, far].map((socket) => socket.destroy()) };
};

test("an error that is longer than a frame arrives, shortened", async () => {
  using pair = await joined();
  await pair.daemon.request;
  const message = `VM box ended while it booted\n${"\u0000\u{1f600}".repeat(30_000)}\nthe cause`;
  pair.daemon.closeWithError(
    new BangerError("VM_BOOT_FAILED", message, { hint: "look", details: { console: [message] } }),
  );
  await assert.rejects(pair.client.closed, (error: BangerError) => {
    assert.deepEqual([error.code, error.hint], ["VM_BOOT_FAILED", "look"]);
    assert.match(error.message, /^VM box ended.*the cause$/s);
    return true;
  });
});

test("a result that is longer than a frame fails its stream only", async () => {
  using pair = await joined();
  await pair.daemon.request;
  pair.daemon.opened({ pid: "x".repeat(40_000) });
  pair.daemon.close({ ok: { size: "x".repeat(40_000) } });
  await assert.rejects(pair.client.closed, { code: "GUEST_PROTOCOL" });
});
