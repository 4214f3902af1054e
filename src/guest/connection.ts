/**
 * The host's end of the channel to one guest: many streams over one byte stream, with credit per stream.
 * Every byte from the guest is hostile: whatever it sends can end its own streams or this connection, never more.
 */
import type { Duplex } from "node:stream";
import { BangerError } from "../contract/errors.ts";
import {
  decodeJson,
  encodeFrame,
  encodeHeader,
  encodeJson,
  type Frame,
  frameDecoder,
  frameType,
  MAX_PAYLOAD,
  MAX_REQUEST,
} from "../contract/frames.ts";
import { abortable, type Progress } from "../contract/progress.ts";
import { greeting, type Hello, helloFinder, parseHello } from "./handshake.ts";
import { type GuestStream, guestStream, type StreamPort } from "./stream.ts";

export type GuestConnection = {
  readonly hello: Hello;
  /**
   * Opens a stream with a request of docs/guest-protocol.md. Throws GUEST_AGENT_LOST when the connection is gone.
   * @param window of a `dial`: bytes on the way at once each way, where that is to be less than usual and the agent knows how
   */
  open(request: Record<string, unknown>, window?: number): GuestStream;
  /** Resolves with the cause when the connection has ended. */
  readonly closed: Promise<BangerError>;
  /** Ends the connection; `reason` is what its streams fail with. */
  close(reason?: BangerError): void;
};

export type GuestEvent = { event: string; state?: string };

export type ConnectOptions = {
  channel: Duplex;
  /** 1 to 65535; must differ from that of the connection before. */
  epoch: number;
  onEvent(event: GuestEvent): void;
};

/** Bytes of a payload that is copied behind its header: a write of two pieces costs more than that. */
const SMALL = 4096;
/** Streams at once on one connection; more is a fault of the caller. */
const MAX_STREAMS = 4096;

/**
 * Greets the guest and waits for its agent.
 * @throws GUEST_AGENT_LOST when the channel ends first, GUEST_PROTOCOL on a wrong greeting, or the signal's error
 */
export const connectGuest = async (options: ConnectOptions, progress: Progress): Promise<GuestConnection> => {
  const { channel, epoch } = options;
  const streams = new Map<number, StreamPort>();
  const drained = new Set<() => void>();
  let lastStream = 0;
  let lost: BangerError | undefined;
  /** Of the agent, beyond the first of its version. */
  let features: readonly string[] = [];

  const closed = Promise.withResolvers<BangerError>();
  const greeted = Promise.withResolvers<Hello>();
  // Whoever waits for the greeting gets its failure through `abortable` below.
  greeted.promise.catch(() => undefined);

  const fail = (error: BangerError) => {
    if (lost) return;
    lost = error;
    channel.destroy();
    greeted.reject(error);
    for (const stream of streams.values()) stream.fail(error);
    streams.clear();
    for (const wake of drained) wake();
    drained.clear();
    closed.resolve(error);
  };

  const send = (type: Frame["type"], stream: number, payload: Uint8Array, channelNumber = 0): boolean => {
    if (lost) return true;
    if (payload.length <= SMALL) return channel.write(encodeFrame(type, stream, payload, channelNumber, epoch));
    channel.cork();
    channel.write(encodeHeader(type, stream, payload.length, channelNumber, epoch));
    const free = channel.write(payload);
    channel.uncork();
    return free;
  };

  const onEvent = (event: GuestEvent) => {
    // The agent has dropped all streams and hears nothing more before a new greeting.
    if (event.event === "protocol_error") throw new Error("it could not read what the host sent");
    options.onEvent(event);
  };

  const onFrame = (frame: Frame) => {
    if (frame.epoch !== epoch) return;
    if (frame.stream === 0) {
      if (frame.type === frameType.hello) greeted.resolve(parseHello(frame.payload));
      else if (frame.type === frameType.event) onEvent(parseEvent(frame.payload));
      return;
    }
    const stream = streams.get(frame.stream);
    if (!stream) return;
    stream.receive(frame);
    if (frame.type === frameType.close) streams.delete(frame.stream);
  };

  const { nonce, bytes } = greeting(epoch);
  const find = helloFinder(nonce, epoch);
  const decode = frameDecoder(onFrame);
  let inSync = false;
  channel.on("data", (chunk: Buffer) => {
    try {
      const rest = inSync ? chunk : find(chunk);
      if (!rest) return;
      inSync = true;
      decode(rest);
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      fail(new BangerError("GUEST_PROTOCOL", `the guest broke the protocol: ${what}`, { cause: error }));
    }
  });
  channel.on("drain", () => {
    const waiting = [...drained];
    drained.clear();
    for (const wake of waiting) wake();
  });
  const onEnd = (cause?: unknown) =>
    fail(new BangerError("GUEST_AGENT_LOST", "the connection to the guest agent is gone", { cause }));
  channel.once("end", () => onEnd());
  channel.once("close", () => onEnd());
  channel.once("error", onEnd);

  const open = (asked: Record<string, unknown>, wanted?: number): GuestStream => {
    if (lost) throw lost;
    const window = wanted !== undefined && features.includes("dial_window") ? wanted : undefined;
    const request = window === undefined ? asked : { ...asked, window };
    if (streams.size >= MAX_STREAMS)
      throw new BangerError("GUEST_ERROR", `more than ${MAX_STREAMS} streams to one guest`);
    const body = encodeJson(request);
    if (body.length > MAX_REQUEST) {
      throw new BangerError("USAGE", `the request is ${body.length} bytes long; the limit is ${MAX_REQUEST}`, {
        hint: "pass long input through a file or stdin",
      });
    }
    const id = ++lastStream;
    const wire = {
      send: (type: Frame["type"], payload: Uint8Array, channelNumber?: number) =>
        send(type, id, payload, channelNumber),
      isFull: () => lost === undefined && channel.writableNeedDrain,
      onceDrained: (wake: () => void) => void drained.add(wake),
    };
    const { stream, port } = guestStream(wire, window);
    streams.set(id, port);
    for (let at = 0; at === 0 || at < body.length; at += MAX_PAYLOAD) {
      send(frameType.open, id, body.subarray(at, at + MAX_PAYLOAD), at + MAX_PAYLOAD < body.length ? 1 : 0);
    }
    return stream;
  };

  try {
    channel.resume();
    channel.write(bytes);
    const hello = await abortable(greeted.promise, progress.signal);
    features = hello.features ?? [];
    return {
      hello,
      open,
      closed: closed.promise,
      close: (reason) => fail(reason ?? new BangerError("GUEST_AGENT_LOST", "the connection was closed")),
    };
  } catch (error) {
    channel.destroy();
    throw error;
  }
};

const parseEvent = (payload: Uint8Array): GuestEvent => {
  const value = decodeJson(payload);
  if (typeof value !== "object" || value === null || !("event" in value) || typeof value.event !== "string")
    return { event: "unknown" };
  const state = "state" in value && typeof value.state === "string" ? value.state : undefined;
  return state === undefined ? { event: value.event } : { event: value.event, state };
};
