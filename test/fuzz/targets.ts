/**
 * What reads bytes that somebody else wrote, each as a function that is fed chunks and fails when a law of it is broken: nothing is thrown
 * outside, everything settles once the bytes end, and what waits in memory is bounded.
 */
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { openFrameStream } from "../../src/client/frame-stream.ts";
import {
  encodeFrame,
  encodeJson,
  frameType,
  HEADER_BYTES,
  INITIAL_CREDIT,
  MAX_FRAME,
} from "../../src/contract/frames.ts";
import { silentProgress } from "../../src/contract/progress.ts";
import { clientStream } from "../../src/daemon/api/client-stream.ts";
import { connectGuest, type GuestConnection } from "../../src/guest/connection.ts";
import { NONCE_BYTES } from "../../src/guest/handshake.ts";
import type { GuestStream } from "../../src/guest/stream.ts";
import { helloBytes } from "../support/scripted-guest.ts";
import { proxy } from "./proxy-target.ts";

export const EPOCH = 7;

export type Target = {
  /** What the other side says in a conversation that goes well. */
  conversations: readonly Uint8Array[];
  feed(chunks: readonly Uint8Array[]): Promise<void>;
};

/** How long what is left may take to settle once the bytes have ended, in ms. */
const SETTLE_LIMIT = 5000;

const settles = async (what: string, work: Promise<unknown>): Promise<void> => {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${what} does not settle`)), SETTLE_LIMIT);
  try {
    await Promise.race([Promise.allSettled([work]), late.promise]);
  } finally {
    clearTimeout(timer);
  }
};

/** Bytes on their way between two stages of Node's streams, above what the protocol lets wait. */
const SLACK = 2 * MAX_FRAME;

/** Streams as a daemon has them open, and the checks that go with them. */
export const openStreams = (connection: GuestConnection) => {
  const command = connection.open({ op: "exec", argv: ["cat"] });
  const unread = connection.open({ op: "read", path: "/x" });
  const upload = connection.open({ op: "write", path: "/y" });
  command.output.resume();
  command.errors.resume();
  command.input.write(Buffer.alloc(100_000));
  upload.input.write(Buffer.alloc(INITIAL_CREDIT * 2), () => undefined);
  upload.output.resume();
  const streams: GuestStream[] = [command, unread, upload];
  return {
    bounded: () => {
      for (const { output, errors } of streams) {
        const held = output.readableLength + errors.readableLength;
        assert.ok(held <= INITIAL_CREDIT, `${held} bytes wait for a reader`);
      }
    },
    settle: async () => {
      await settles("the connection", connection.closed);
      for (const { opened, result } of streams) await settles("a stream", Promise.allSettled([opened, result]));
      for (const { output, errors } of streams) {
        for (const side of [output, errors]) {
          side.resume();
          if (!side.readableEnded && !side.destroyed)
            await settles("an output", new Promise((resolve) => side.once("end", resolve).once("close", resolve)));
        }
      }
    },
  };
};

/** A channel whose far end is fed by `push`; what is written to it is taken at once and handed to `written`. */
const memoryChannel = (written: (chunk: Buffer) => void = () => undefined, allowHalfOpen = false): Duplex =>
  new Duplex({
    // As sockets of a client; those of a server stay open at our end.
    allowHalfOpen,
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      written(chunk);
      done();
    },
  });

const pushAll = async (channel: Duplex, chunks: readonly Uint8Array[], check: () => void): Promise<void> => {
  for (const chunk of chunks) {
    if (channel.destroyed) break;
    // Chunks of a socket are only valid as long as they are handed on, so each has a buffer of its own.
    channel.push(Buffer.from(chunk));
    await new Promise(setImmediate);
    check();
  }
  if (!channel.destroyed) channel.push(null);
};

const guestFrame = (
  type: Parameters<typeof encodeFrame>[0],
  stream: number,
  payload: Uint8Array | string,
  channel = 0,
) => encodeFrame(type, stream, typeof payload === "string" ? Buffer.from(payload) : payload, channel, EPOCH);
const credit = (bytes: number) => {
  const payload = Buffer.alloc(4);
  payload.writeUInt32LE(bytes);
  return payload;
};

/** Host's end of a guest's channel, after a greeting that went well. */
const guest: Target = {
  conversations: [
    Buffer.concat([
      guestFrame(frameType.opened, 1, '{"pid":214}'),
      guestFrame(frameType.data, 1, "Linux box 6.1.0 x86_64 GNU/Linux\n"),
      guestFrame(frameType.credit, 1, credit(65_536)),
      guestFrame(frameType.data, 1, "warning: \x1b[1mbold\x1b[0m\n", 1),
      guestFrame(frameType.end, 1, "", 1),
      guestFrame(frameType.end, 1, ""),
      guestFrame(frameType.close, 1, '{"exit":3}'),
    ]),
    Buffer.concat([
      guestFrame(frameType.event, 0, '{"event":"init","state":"ready"}'),
      guestFrame(frameType.data, 2, Buffer.alloc(20_000, "x")),
      guestFrame(frameType.credit, 3, credit(262_144)),
      guestFrame(frameType.data, 2, Buffer.alloc(1)),
      guestFrame(frameType.close, 2, '{"error":{"code":"EIO","message":"read: I/O error"}}'),
      guestFrame(frameType.close, 3, '{"ok":{"size":524288}}'),
      guestFrame(frameType.event, 0, '{"event":"shutdown"}'),
    ]),
    Buffer.concat([
      helloBytes(Buffer.alloc(NONCE_BYTES), EPOCH),
      guestFrame(frameType.event, 0, '{"event":"protocol_error","message":"not a frame"}'),
      Buffer.alloc(40),
      guestFrame(frameType.close, 1, '{"signal":9}'),
    ]),
  ],
  feed: async (chunks) => {
    const greeted = Promise.withResolvers<Buffer>();
    let seen = Buffer.alloc(0);
    const channel = memoryChannel((chunk) => {
      if (seen.length >= MAX_FRAME + HEADER_BYTES + NONCE_BYTES) return;
      seen = Buffer.concat([seen, chunk]);
      if (seen.length >= MAX_FRAME + HEADER_BYTES + NONCE_BYTES) greeted.resolve(seen);
    });
    const connecting = connectGuest({ channel, epoch: EPOCH, onEvent: () => undefined }, silentProgress());
    const sync = (await greeted.promise).subarray(MAX_FRAME + HEADER_BYTES, MAX_FRAME + HEADER_BYTES + NONCE_BYTES);
    channel.push(helloBytes(sync, EPOCH));
    const connection = await connecting;
    const streams = openStreams(connection);
    await pushAll(channel, chunks, () => {
      streams.bounded();
      assert.ok(channel.writableLength <= SLACK * 4, `${channel.writableLength} bytes wait for the guest`);
    });
    await streams.settle();
  },
};

const frame = (type: Parameters<typeof encodeFrame>[0], payload: Uint8Array | string, channel = 0) =>
  encodeFrame(type, 1, typeof payload === "string" ? Buffer.from(payload) : payload, channel);

/** The client's end of an upgraded connection. */
const client: Target = {
  conversations: [
    Buffer.concat([
      frame(frameType.event, '{"progress":{"stage":"boot","message":"kernel"}}'),
      frame(frameType.event, '{"vm":{"name":"box","state":"running","notes":[]}}'),
      frame(frameType.opened, '{"pid":7}'),
      frame(frameType.data, Buffer.alloc(5000, "y")),
      frame(frameType.data, "oops\n", 1),
      frame(frameType.end, "", 1),
      frame(frameType.end, ""),
      frame(frameType.close, '{"exit":0}'),
    ]),
    frame(frameType.close, '{"error":{"code":"VM_NOT_FOUND","message":"there is no VM \\"x\\"","hint":"look"}}'),
  ],
  feed: async (chunks) => {
    const channel = memoryChannel();
    // All that is used of a socket is what it has as a stream.
    const stream = openFrameStream(channel as unknown as Socket, Buffer.alloc(0), { argv: ["true"] });
    stream.stdout.resume();
    stream.stdin.write("input");
    await pushAll(channel, chunks, () => {
      const held = stream.stdout.readableLength + stream.stderr.readableLength;
      assert.ok(held <= INITIAL_CREDIT + SLACK, `${held} bytes wait for a reader`);
    });
    stream.stderr.resume();
    await settles("the stream", Promise.allSettled([stream.opened, stream.closed]));
    for (const side of [stream.stdout, stream.stderr])
      if (!side.readableEnded) await settles("an output", new Promise((resolve) => side.once("end", resolve)));
  },
};

/** The daemon's end of an upgraded connection. */
const daemon: Target = {
  conversations: [
    Buffer.concat([
      encodeFrame(frameType.open, 1, Buffer.from('{"argv":["sh",'), 1),
      encodeFrame(frameType.open, 1, Buffer.from('"-c","cat"]}'), 0),
      frame(frameType.data, Buffer.alloc(3000, "z")),
      frame(frameType.control, '{"resize":{"cols":80,"rows":24}}'),
      frame(frameType.control, '{"signal":2}'),
      frame(frameType.data, "end\n"),
      frame(frameType.end, ""),
    ]),
    Buffer.concat([frame(frameType.open, encodeJson({ op: "dial", port: 22 })), frame(frameType.close, "")]),
  ],
  feed: async (chunks) => {
    const channel = memoryChannel(undefined, true);
    const stream = clientStream(channel, Buffer.alloc(0));
    stream.onControl((message) => assert.equal(typeof message, "object"));
    stream.input.resume();
    stream.output.write(Buffer.alloc(100_000));
    await pushAll(channel, chunks, () => assert.ok(stream.input.readableLength <= INITIAL_CREDIT + SLACK));
    await settles("the request", stream.request);
    if (!stream.gone.aborted)
      await settles("the leaving", new Promise((resolve) => stream.gone.addEventListener("abort", resolve)));
    assert.ok(stream.gone.aborted);
    stream.closeWithError(new Error("x".repeat(100_000)));
  },
};

export const targets = { guest, client, daemon, proxy } as const satisfies Record<string, Target>;
export type TargetName = keyof typeof targets;
