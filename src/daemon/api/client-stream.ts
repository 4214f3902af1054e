/** The daemon's end of one upgraded connection: frames to and from a client (contract/frames.ts, stream 1, no credit: the socket's back-pressure serves). */
import { Readable, Writable } from "node:stream";
import type { Duplex } from "node:stream";
import { BangerError, type ErrorBody, toErrorBody } from "../../contract/errors.ts";
import {
  decodeJson,
  encodeHeader,
  encodeJson,
  type Frame,
  frameDecoder,
  type FrameType,
  frameType,
  MAX_PAYLOAD,
  MAX_REQUEST,
} from "../../contract/frames.ts";

const STREAM = 1;
const WINDOW = 256 * 1024;

export type ClientStream = {
  /** The client's OPEN. */
  readonly request: Promise<unknown>;
  /** The client's DATA; ends with its END. */
  readonly input: Readable;
  /** Channel 0 to the client. */
  readonly output: Writable;
  /** Channel 1. */
  readonly errors: Writable;
  onControl(listener: (message: Record<string, unknown>) => void): void;
  /** Aborted when the client gives up: its CLOSE, or the end of its connection. */
  readonly gone: AbortSignal;
  event(message: Record<string, unknown>): void;
  opened(message: unknown): void;
  /** The last word. Waits until what was written before is on its way. */
  close(result: Record<string, unknown>): void;
  closeWithError(error: unknown): void;
};

export const clientStream = (socket: Duplex, head: Buffer): ClientStream => {
  const request = Promise.withResolvers<unknown>();
  request.promise.catch(() => undefined);
  const gone = new AbortController();
  const controls = new Set<(message: Record<string, unknown>) => void>();
  const requestParts: Uint8Array[] = [];
  let closed = false;

  const leave = (why: string) => {
    const error = new BangerError("CANCELLED", why);
    request.reject(error);
    if (!gone.signal.aborted) gone.abort(error);
    if (!input.readableEnded) input.destroy();
  };

  const input = new Readable({ highWaterMark: WINDOW, read: () => socket.resume() });
  input.on("error", () => undefined);

  const onFrame = ({ type, channel, payload }: Frame) => {
    if (type === frameType.data) {
      if (!input.destroyed && !input.push(payload)) socket.pause();
    } else if (type === frameType.end) input.push(null);
    else if (type === frameType.control) {
      const message = decodeJson(payload);
      if (typeof message === "object" && message !== null)
        for (const listener of controls) listener(message as Record<string, unknown>);
    } else if (type === frameType.open) {
      requestParts.push(new Uint8Array(payload));
      if (requestParts.reduce((sum, part) => sum + part.length, 0) > MAX_REQUEST) throw new Error("request over 4 MiB");
      if (channel === 0) request.resolve(decodeJson(Buffer.concat(requestParts)));
    } else if (type === frameType.close) leave("the client gave up");
  };

  const decode = frameDecoder(onFrame);
  const take = (chunk: Buffer) => {
    try {
      decode(chunk);
    } catch (error) {
      leave(`the client broke the protocol: ${error instanceof Error ? error.message : String(error)}`);
      socket.destroy();
    }
  };
  socket.on("data", take);
  socket.once("close", () => leave("the client went away"));
  socket.once("end", () => leave("the client went away"));
  socket.on("error", () => leave("the client went away"));
  if (head.length) take(head);

  const send = (type: FrameType, payload: Uint8Array, channel = 0): boolean => {
    if (closed || socket.destroyed) return true;
    socket.cork();
    socket.write(encodeHeader(type, STREAM, payload.length, channel));
    const free = socket.write(payload);
    socket.uncork();
    return free;
  };

  const sender = (channel: number) =>
    new Writable({
      highWaterMark: WINDOW,
      write: (chunk: Buffer, _encoding, done) => {
        let free = true;
        for (let at = 0; at < chunk.length; at += MAX_PAYLOAD)
          free = send(frameType.data, chunk.subarray(at, at + MAX_PAYLOAD), channel);
        if (free || socket.destroyed) return done();
        const go = () => {
          socket.off("drain", go);
          socket.off("close", go);
          done();
        };
        socket.on("drain", go);
        socket.on("close", go);
      },
      final: (done) => {
        send(frameType.end, new Uint8Array(0), channel);
        done();
      },
    });

  /** Messages of one frame each; what a guest answered may be longer when it is written anew. */
  const sendJson = (type: FrameType, message: unknown) => {
    const body = encodeJson(message);
    if (body.length <= MAX_PAYLOAD) send(type, body);
    else if (type === frameType.close) send(type, encodeJson(shortened(message)));
  };

  const close = (result: Record<string, unknown>) => {
    sendJson(frameType.close, result);
    closed = true;
    socket.end();
  };
  return {
    request: request.promise,
    input,
    output: sender(0),
    errors: sender(1),
    onControl: (listener) => void controls.add(listener),
    gone: gone.signal,
    event: (message) => sendJson(frameType.event, message),
    opened: (message) => sendJson(frameType.opened, message ?? {}),
    close,
    closeWithError: (error) => close({ error: toErrorBody(error) }),
  };
};

/** Characters of a message that fit a frame whatever they are: none takes more than six bytes in JSON. */
const SHORT = 4000;

/** A last word that fits a frame: of an error its beginning and its end, where the cause often stands. */
const shortened = (message: unknown): Record<string, unknown> => {
  const { error } = message as { error?: ErrorBody };
  if (!error) return { error: toErrorBody(new BangerError("GUEST_PROTOCOL", "the guest's result is too long")) };
  const cut = error.message.length > SHORT;
  const text = cut ? `${error.message.slice(0, SHORT / 2)}\n…\n${error.message.slice(-SHORT / 2)}` : error.message;
  return { error: { code: error.code, message: text, ...(error.hint ? { hint: error.hint.slice(0, 1000) } : {}) } };
};
