import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { type ScriptedGuest, helloBytes, nextFrame, scriptedGuest } from "../../test/support/scripted-guest.ts";
import { BangerError } from "../contract/errors.ts";
import {
  decodeJson,
  encodeCredit,
  encodeFrame,
  encodeJson,
  frameType,
  INITIAL_CREDIT,
  MAX_PAYLOAD,
} from "../contract/frames.ts";
import { silentProgress } from "../contract/progress.ts";
import { connectGuest, type GuestConnection, type GuestEvent } from "./connection.ts";

const EPOCH = 7;

const connected = async (guest: ScriptedGuest, events: GuestEvent[] = []): Promise<GuestConnection> => {
  const connecting = connectGuest(
    { channel: guest.channel, epoch: EPOCH, onEvent: (event) => events.push(event) },
    silentProgress(),
  );
  const sync = await nextFrame(guest, frameType.sync);
  guest.socket.write(guest.hello(sync));
  return connecting;
};

const send = (
  guest: ScriptedGuest,
  type: Parameters<typeof encodeFrame>[0],
  stream: number,
  payload: Uint8Array,
  channel = 0,
  epoch = EPOCH,
) => guest.socket.write(encodeFrame(type, stream, payload, channel, epoch));

const hasCode = (code: string) => (error: unknown) => error instanceof BangerError && error.code === code;

test("leftovers of an older connection are passed over until the HELLO with our nonce", async () => {
  await using guest = await scriptedGuest();
  const connecting = connectGuest({ channel: guest.channel, epoch: EPOCH, onEvent: () => undefined }, silentProgress());
  const sync = await nextFrame(guest, frameType.sync);
  guest.socket.write(randomBytes(50_000));
  guest.socket.write(helloBytes(randomBytes(16), EPOCH, { agent: "stale" }));
  guest.socket.write(sync.payload);
  const hello = guest.hello(sync, { agent: "fresh" });
  guest.socket.write(hello.subarray(0, 5));
  guest.socket.write(hello.subarray(5, 20));
  guest.socket.write(hello.subarray(20));
  assert.equal((await connecting).hello.agent, "fresh");
});

test("output, errors and the result arrive in full and apart", async () => {
  await using guest = await scriptedGuest();
  const connection = await connected(guest);
  const stream = connection.open({ op: "exec", argv: ["x"] });
  const open = await nextFrame(guest, frameType.open);
  assert.deepEqual(decodeJson(open.payload), { op: "exec", argv: ["x"] });
  send(guest, frameType.opened, open.stream, encodeJson({ pid: 5 }));
  send(guest, frameType.data, open.stream, Buffer.from("out"));
  send(guest, frameType.data, open.stream, Buffer.from("err"), 1);
  send(guest, frameType.close, open.stream, encodeJson({ exit: 3 }));
  assert.deepEqual(await Promise.all([text(stream.output), text(stream.errors), stream.result, stream.opened]), [
    "out",
    "err",
    { exit: 3 },
    { pid: 5 },
  ]);
});

test("what was read from a socket at once goes on in frames of one size, with no rest of a few bytes", async () => {
  await using guest = await scriptedGuest();
  const connection = await connected(guest);
  const stream = connection.open({ op: "dial", port: 80 });
  await nextFrame(guest, frameType.open);
  const read = randomBytes(64 * 1024);
  stream.input.write(read);
  const parts: Uint8Array[] = [];
  for (let came = 0; came < read.length; came += parts.at(-1)?.length ?? 0)
    parts.push((await nextFrame(guest, frameType.data)).payload);
  assert.ok(Buffer.concat(parts).equals(read));
  assert.deepEqual(
    parts.map(({ length }) => length),
    [21_846, 21_846, 21_844],
  );
});

test("a request over one frame is sent in parts", async () => {
  await using guest = await scriptedGuest();
  const connection = await connected(guest);
  const argument = "x".repeat(MAX_PAYLOAD * 2);
  connection.open({ op: "exec", argv: [argument] });
  const parts: Uint8Array[] = [];
  for (;;) {
    const frame = await nextFrame(guest, frameType.open);
    parts.push(frame.payload);
    if (frame.channel === 0) break;
  }
  assert.equal(parts.length, 3);
  assert.deepEqual(decodeJson(Buffer.concat(parts)), { op: "exec", argv: [argument] });
});

test("input stops at the granted credit and goes on with more", async () => {
  await using guest = await scriptedGuest();
  const connection = await connected(guest);
  const stream = connection.open({ op: "write", path: "/x" });
  stream.input.end(Buffer.alloc(INITIAL_CREDIT + 100, 1));
  let received = 0;
  while (received < INITIAL_CREDIT) received += (await nextFrame(guest, frameType.data)).payload.length;
  assert.equal(received, INITIAL_CREDIT);
  send(guest, frameType.credit, 1, encodeCredit(60));
  assert.equal((await nextFrame(guest, frameType.data)).payload.length, 60);
  send(guest, frameType.credit, 1, encodeCredit(1000));
  assert.equal((await nextFrame(guest, frameType.data)).payload.length, 40);
  await nextFrame(guest, frameType.end);
});

test("credit is granted as the reader takes bytes, not before", async () => {
  await using guest = await scriptedGuest();
  const connection = await connected(guest);
  const stream = connection.open({ op: "read", path: "/x" });
  await nextFrame(guest, frameType.open);
  const part = INITIAL_CREDIT / 16;
  for (let i = 0; i < 16; i++) send(guest, frameType.data, 1, new Uint8Array(part));
  send(guest, frameType.opened, 1, encodeJson({}));
  await stream.opened;
  stream.output.resume();
  assert.ok((await nextFrame(guest, frameType.credit)).payload.length === 4);
});

for (const [what, frames] of Object.entries({
  "more data than it was granted": Array.from({ length: 17 }, () =>
    encodeFrame(frameType.data, 1, new Uint8Array(INITIAL_CREDIT / 16), 0, EPOCH),
  ),
  "data after its end": [
    encodeFrame(frameType.end, 1, undefined, 0, EPOCH),
    encodeFrame(frameType.data, 1, Uint8Array.of(1), 0, EPOCH),
  ],
  "a credit that is no number": [encodeFrame(frameType.credit, 1, Uint8Array.of(1), 0, EPOCH)],
  "a result that is no JSON": [encodeFrame(frameType.close, 1, Buffer.from("{"), 0, EPOCH)],
  "an event that is no JSON": [encodeFrame(frameType.event, 0, Buffer.from("nope"), 0, EPOCH)],
  "an unknown frame type": [Uint8Array.of(99)],
})) {
  test(`a guest that sends ${what} loses its connection`, async () => {
    await using guest = await scriptedGuest();
    const connection = await connected(guest);
    const stream = connection.open({ op: "read", path: "/x" });
    await nextFrame(guest, frameType.open);
    for (const bytes of frames) guest.socket.write(bytes);
    assert.equal((await connection.closed).code, "GUEST_PROTOCOL");
    await assert.rejects(stream.result, hasCode("GUEST_PROTOCOL"));
    assert.throws(() => connection.open({ op: "sync" }), hasCode("GUEST_PROTOCOL"));
  });
}

test("a result that makes no sense fails its stream only", async () => {
  await using guest = await scriptedGuest();
  const connection = await connected(guest);
  const first = connection.open({ op: "sync" });
  send(guest, frameType.close, 1, encodeJson({ what: 1 }));
  await assert.rejects(first.result, hasCode("GUEST_PROTOCOL"));
  const second = connection.open({ op: "sync" });
  send(guest, frameType.close, 2, encodeJson({ ok: {} }));
  assert.deepEqual(await second.result, { ok: {} });
});

test("frames of another epoch and of unknown streams are dropped", async () => {
  await using guest = await scriptedGuest();
  const connection = await connected(guest);
  const stream = connection.open({ op: "sync" });
  send(guest, frameType.close, 1, encodeJson({ exit: 9 }), 0, EPOCH + 1);
  send(guest, frameType.close, 4711, encodeJson({ exit: 9 }));
  send(guest, frameType.close, 1, encodeJson({ ok: "mine" }));
  assert.deepEqual(await stream.result, { ok: "mine" });
});

test("the end of the channel fails every stream and says so", async () => {
  await using guest = await scriptedGuest();
  const connection = await connected(guest);
  const stream = connection.open({ op: "sync" });
  guest.socket.destroy();
  await assert.rejects(stream.result, hasCode("GUEST_AGENT_LOST"));
  assert.equal((await connection.closed).code, "GUEST_AGENT_LOST");
});

test("waiting for a guest that never answers ends with the signal", async () => {
  await using guest = await scriptedGuest();
  const controller = new AbortController();
  const connecting = connectGuest(
    { channel: guest.channel, epoch: EPOCH, onEvent: () => undefined },
    silentProgress(controller.signal),
  );
  await nextFrame(guest, frameType.sync);
  controller.abort(new BangerError("VM_BOOT_TIMEOUT", "too slow"));
  await assert.rejects(connecting, hasCode("VM_BOOT_TIMEOUT"));
  assert.ok(guest.channel.destroyed);
});

test("events reach the listener", async () => {
  await using guest = await scriptedGuest();
  const events: GuestEvent[] = [];
  const connection = await connected(guest, events);
  send(guest, frameType.event, 0, encodeJson({ event: "init", state: "ready" }));
  send(guest, frameType.event, 0, encodeJson([1, 2]));
  const stream = connection.open({ op: "sync" });
  send(guest, frameType.close, 1, encodeJson({ ok: {} }));
  await stream.result;
  assert.deepEqual(events, [{ event: "init", state: "ready" }, { event: "unknown" }]);
});

/** A channel whose far end answers the greeting and then reads nothing any more. */
const unreadChannel = () => {
  let nonce: Buffer | undefined;
  const channel = new Duplex({
    writableHighWaterMark: 1024,
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      if (nonce) return; // Never taken.
      nonce = chunk.subarray(-16);
      setImmediate(() => channel.push(helloBytes(nonce ?? Buffer.alloc(16), EPOCH)));
      done();
    },
  });
  return { channel };
};

test("a guest that grants all the credit there is and reads nothing holds up the sender, not the memory", async () => {
  const { channel } = unreadChannel();
  const connection = await connectGuest({ channel, epoch: EPOCH, onEvent: () => undefined }, silentProgress());
  const stream = connection.open({ op: "write", path: "/x" });
  channel.push(encodeFrame(frameType.credit, 1, encodeCredit(0xffff_ffff), 0, EPOCH));
  await new Promise(setImmediate);
  let accepted = 0;
  for (; accepted < 1000 && stream.input.write(randomBytes(16 * 1024)); accepted++) await new Promise(setImmediate);
  assert.ok(accepted < 100, `${accepted} writes were taken`);
  assert.ok(channel.writableLength < 256 * 1024, `${channel.writableLength} bytes wait in the channel`);
  connection.close();
  assert.equal((await stream.result.catch((error: BangerError) => error.code)) as string, "GUEST_AGENT_LOST");
});

test("a guest that sends without reading runs out of credit", async () => {
  const { channel } = unreadChannel();
  const connection = await connectGuest({ channel, epoch: EPOCH, onEvent: () => undefined }, silentProgress());
  const stream = connection.open({ op: "read", path: "/x" });
  stream.output.resume();
  const waiting: number[] = [];
  for (let sent = 0; !channel.destroyed && sent < 1000; sent++) {
    channel.push(encodeFrame(frameType.data, 1, randomBytes(MAX_PAYLOAD), 0, EPOCH));
    await new Promise(setImmediate);
    waiting.push(channel.writableLength);
  }
  await assert.rejects(stream.result, hasCode("GUEST_PROTOCOL"));
  assert.ok(Math.max(...waiting) < 64 * 1024);
});
