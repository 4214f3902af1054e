/** The guest's end of a channel, byte by byte in a test's hand: for what a real agent would never send. */
import { mkdtemp, rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeFrame, type Frame, frameDecoder, frameType } from "../../src/contract/frames.ts";
import { socketPair } from "../../src/host/sockets.ts";

export type ScriptedGuest = AsyncDisposable & {
  /** The host's end, to be given to `connectGuest`. */
  channel: Socket;
  /** The guest's end. */
  socket: Socket;
  /** Frames from the host, SYNC included. */
  frames: AsyncGenerator<Frame, void>;
  /** Answers the SYNC of this frame. */
  hello(sync: Frame, extra?: Record<string, unknown>): Uint8Array;
};

export const helloBytes = (nonce: Uint8Array, epoch: number, extra: Record<string, unknown> = {}): Uint8Array => {
  const body = { version: 1, agent: "test", boot_id: "b", kernel: "k", phase: "running", init: null, ...extra };
  return encodeFrame(frameType.hello, 0, Buffer.concat([nonce, Buffer.from(JSON.stringify(body))]), 0, epoch);
};

export const scriptedGuest = async (): Promise<ScriptedGuest> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-guest-"));
  const [channel, socket] = await socketPair(folder);
  await rm(folder, { recursive: true });
  socket.on("error", () => socket.destroy());
  const read = async function* (): AsyncGenerator<Frame, void> {
    const queue: Frame[] = [];
    const decode = frameDecoder((frame) => queue.push({ ...frame, payload: new Uint8Array(frame.payload) }));
    for await (const chunk of socket) {
      decode(chunk as Buffer);
      yield* queue.splice(0);
    }
  };
  return {
    channel,
    socket,
    frames: read(),
    hello: (sync, extra) => helloBytes(sync.payload, sync.epoch, extra),
    [Symbol.asyncDispose]: async () => {
      channel.destroy();
      socket.destroy();
    },
  };
};

/** The next frame from the host of this type. */
export const nextFrame = async (guest: ScriptedGuest, type: Frame["type"]): Promise<Frame> => {
  for (;;) {
    const { value, done } = await guest.frames.next();
    if (done || !value) throw new Error("the host closed the channel");
    if (value.type === type) return value;
  }
};
