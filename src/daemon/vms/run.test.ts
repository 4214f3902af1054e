import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { nextFrame, type ScriptedGuest, scriptedGuest } from "../../../test/support/scripted-guest.ts";
import { decodeJson, encodeFrame, encodeJson, frameType } from "../../contract/frames.ts";
import { silentProgress } from "../../contract/progress.ts";
import { connectGuest, type GuestConnection } from "../../guest/connection.ts";
import type { ClientStream } from "../api/client-stream.ts";
import type { Log } from "../log.ts";
import { operations } from "../operations.ts";
import type { StartOptions } from "./actor.ts";
import { runVm } from "./run.ts";
import type { VmService } from "./service.ts";

const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
} as never as Log;

const connected = async (guest: ScriptedGuest): Promise<GuestConnection> => {
  const connecting = connectGuest({ channel: guest.channel, epoch: 1, onEvent: () => undefined }, silentProgress());
  guest.socket.write(guest.hello(await nextFrame(guest, frameType.sync)));
  return await connecting;
};

/** A run whose VM asks early of `first`, and turns out to have `last` as its guest. */
const run = (first: GuestConnection, last: GuestConnection, prepare = false) => {
  const actor = {
    row: () => ({ workspace: undefined }),
    start: async (_: unknown, { early }: StartOptions) => early?.(first),
    guest: async () => last,
    use: () => ({ [Symbol.dispose]: () => undefined }),
  };
  const vms = { create: async () => actor, view: () => ({}), imageDefaults: async () => undefined };
  const [input, output, errors] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const client = {
    input,
    output,
    errors,
    gone: new AbortController().signal,
    event: () => undefined,
    opened: () => undefined,
    onControl: (listener: (message: Record<string, unknown>) => void) => listener({ prepared: true }),
  };
  return runVm(
    client as unknown as ClientStream,
    { vm: {}, exec: { argv: ["true"] }, ...(prepare ? { prepare } : {}) },
    vms as unknown as VmService,
    operations(log),
  );
};

const answer = async (guest: ScriptedGuest, exit: number) => {
  const open = await nextFrame(guest, frameType.open);
  assert.deepEqual(decodeJson(open.payload), { op: "exec", argv: ["true"] });
  guest.socket.write(encodeFrame(frameType.close, open.stream, encodeJson({ exit }), 0, 1));
  return open.stream;
};

test("a command that was asked for early is not asked for again", async () => {
  await using guest = await scriptedGuest();
  const connection = await connected(guest);
  const [result, stream] = await Promise.all([run(connection, connection), answer(guest, 3)]);
  assert.deepEqual([result, stream], [{ exit: 3 }, 1]);
  connection.open({ op: "sync" });
  assert.equal((await nextFrame(guest, frameType.open)).stream, 2);
});

test("one that a guest of no use was asked for is asked for again, and one that waits for its files is not asked for early", async () => {
  await using useless = await scriptedGuest();
  await using guest = await scriptedGuest();
  await using unasked = await scriptedGuest();
  const [first, last] = [await connected(useless), await connected(guest)];
  const running = run(first, last);
  await nextFrame(useless, frameType.open);
  first.close();
  const [result] = await Promise.all([running, answer(guest, 4)]);
  assert.deepEqual(result, { exit: 4 });
  const third = await connected(unasked);
  const [later] = await Promise.all([run(third, last, true), answer(guest, 5)]);
  assert.deepEqual(later, { exit: 5 });
  third.open({ op: "sync" });
  assert.deepEqual(decodeJson((await nextFrame(unasked, frameType.open)).payload), { op: "sync" });
});
