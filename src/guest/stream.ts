/** One stream to the guest: Node streams on the outside, frames and credit on the inside. */
import { Readable, Writable } from "node:stream";
import { BangerError } from "../contract/errors.ts";
import {
  decodeCredit,
  decodeJson,
  encodeCredit,
  encodeJson,
  type Frame,
  type FrameType,
  frameType,
  INITIAL_CREDIT,
  MAX_PAYLOAD,
} from "../contract/frames.ts";

const nothing = new Uint8Array(0);

/** The guest's last word on a stream. */
export type StreamResult = { ok: unknown } | { exit: number } | { signal: number };

export type GuestStream = {
  /** Bytes to the guest; ending it sends END. */
  readonly input: Writable;
  /** Channel 0. Both outputs must be read, or the stream stands still. */
  readonly output: Readable;
  /** Channel 1. */
  readonly errors: Readable;
  /** The guest's OPENED; rejects with the result's error when there is none. */
  readonly opened: Promise<unknown>;
  /** The guest's CLOSE. Rejects with GUEST_ERROR (details.code is an errno name), GUEST_PROTOCOL or GUEST_AGENT_LOST. */
  readonly result: Promise<StreamResult>;
  control(message: Record<string, unknown>): void;
  /** Tells the guest to end the work; `result` still tells how it ended. */
  abort(): void;
};

/** What the connection needs of a stream. */
export type StreamPort = {
  receive(frame: Frame): void;
  fail(error: BangerError): void;
};

type Wire = {
  /** @returns false when the channel is full: wait for `onceDrained` */
  send(type: FrameType, payload: Uint8Array, channel?: number): boolean;
  /** The channel has as much waiting as it should: the guest does not read. */
  isFull(): boolean;
  onceDrained(wake: () => void): void;
};

/** @param window DATA bytes that each side may send before the first grant */
export const guestStream = (wire: Wire, window = INITIAL_CREDIT): { stream: GuestStream; port: StreamPort } => {
  let credit = window;
  let ended = false;
  let wakeWriter: (() => void) | undefined;

  /** Sends all of `chunk`, a frame at a time, as credit and channel allow. */
  const pump = (chunk: Uint8Array, done: (error?: Error | null) => void) => {
    let at = 0;
    // In parts of one size: what is read from a socket at once is a few bytes more than two whole frames, and those would be a frame of their own.
    const size = Math.ceil(chunk.length / Math.ceil(chunk.length / MAX_PAYLOAD));
    const step = () => {
      wakeWriter = undefined;
      while (at < chunk.length && !ended) {
        if (credit === 0) {
          wakeWriter = step;
          return;
        }
        const part = chunk.subarray(at, at + Math.min(size, credit));
        at += part.length;
        credit -= part.length;
        // Also after the last part: a guest may grant any credit and read nothing, and what waits for it lies in our memory.
        if (!wire.send(frameType.data, part)) {
          wire.onceDrained(step);
          return;
        }
      }
      done();
    };
    step();
  };

  const input = new Writable({
    highWaterMark: window,
    write: (chunk: Buffer, _encoding, done) => pump(chunk, done),
    final: (done) => {
      if (!ended) wire.send(frameType.end, nothing);
      done();
    },
  });

  let ungranted = 0;
  let outstanding = window;
  const grant = () => {
    if (ended || ungranted < window / 4) return;
    // A guest that sends without reading must not pile up grants here; it runs out of credit instead.
    if (wire.isFull()) return wire.onceDrained(grant);
    wire.send(frameType.credit, encodeCredit(ungranted));
    outstanding += ungranted;
    ungranted = 0;
  };
  // The window is the buffer: with the least mark, `read` is called only once the consumer has taken what there was.
  const receiver = () => new Readable({ highWaterMark: 1, read: grant });
  const output = receiver();
  const errors = receiver();
  // A reader that went away is seen by whoever owns it; the stream itself goes on to its result.
  for (const end of [input, output, errors]) end.on("error", () => undefined);

  const opened = Promise.withResolvers<unknown>();
  const result = Promise.withResolvers<StreamResult>();
  opened.promise.catch(() => undefined);
  result.promise.catch(() => undefined);

  const finish = (outcome: StreamResult | BangerError) => {
    if (ended) return;
    ended = true;
    wakeWriter?.();
    for (const end of [output, errors]) if (!end.readableEnded) end.push(null);
    if (outcome instanceof BangerError) {
      opened.reject(outcome);
      result.reject(outcome);
    } else {
      opened.resolve(outcome);
      result.resolve(outcome);
    }
  };

  const receiveData = ({ channel, payload }: Frame) => {
    outstanding -= payload.length;
    if (outstanding < 0) throw new Error("more DATA than was granted");
    const target = channel === 1 ? errors : output;
    if (target.readableEnded || target.destroyed) {
      ungranted += payload.length;
      return grant();
    }
    ungranted += payload.length;
    if (target.push(payload)) grant();
  };

  const endedChannels = new Set<number>();
  const receive = (frame: Frame) => {
    if (ended) return;
    if (frame.type === frameType.data) {
      if (endedChannels.has(frame.channel)) throw new Error("DATA after END");
      receiveData(frame);
    } else if (frame.type === frameType.end) {
      if (endedChannels.has(frame.channel)) return;
      endedChannels.add(frame.channel);
      (frame.channel === 1 ? errors : output).push(null);
    } else if (frame.type === frameType.credit) {
      credit = Math.min(credit + decodeCredit(frame.payload), Number.MAX_SAFE_INTEGER);
      wakeWriter?.();
    } else if (frame.type === frameType.opened) opened.resolve(decodeJson(frame.payload));
    else if (frame.type === frameType.close) finish(parseResult(decodeJson(frame.payload)));
  };

  return {
    stream: {
      input,
      output,
      errors,
      opened: opened.promise,
      result: result.promise,
      control: (message) => {
        const body = encodeJson(message);
        // What a client sent in one frame may be longer when it is written anew; no message of the protocol is.
        if (!ended && body.length <= MAX_PAYLOAD) wire.send(frameType.control, body);
      },
      abort: () => void (ended || wire.send(frameType.close, nothing)),
    },
    port: { receive, fail: finish },
  };
};

const parseResult = (value: unknown): StreamResult | BangerError => {
  if (typeof value === "object" && value !== null) {
    if ("exit" in value && Number.isInteger(value.exit)) return { exit: Number(value.exit) & 0xff };
    if ("signal" in value && Number.isInteger(value.signal)) return { signal: Number(value.signal) & 0x7f };
    if ("ok" in value) return { ok: value.ok };
    if ("error" in value && typeof value.error === "object" && value.error !== null) {
      const { code, message } = value.error as Record<string, unknown>;
      const text = typeof message === "string" ? message.slice(0, 1000) : "the guest gave no reason";
      return new BangerError("GUEST_ERROR", text, {
        details: { code: typeof code === "string" ? code.slice(0, 32) : "EPROTO" },
      });
    }
  }
  return new BangerError("GUEST_PROTOCOL", "the guest's result is not understood");
};
