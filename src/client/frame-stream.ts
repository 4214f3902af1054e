/** One upgraded stream: frames on a socket, Node streams to the caller. The socket's own back-pressure is the only one on this hop. */
import type { Socket } from "node:net";
import { Readable, Writable } from "node:stream";
import { BangerError, fromErrorBody } from "../contract/errors.ts";
import {
  decodeJson,
  encodeFrame,
  encodeHeader,
  encodeJson,
  type Frame,
  FrameError,
  frameDecoder,
  frameType,
  MAX_PAYLOAD,
  MAX_REQUEST,
} from "../contract/frames.ts";
import type { OperationInfo } from "../contract/api.ts";
import type { ProgressEvent } from "../contract/progress.ts";
import type { ExecResult, Vm, Workspace } from "../contract/vms.ts";
import { lostDaemon } from "./errors.ts";

/** The only stream of an upgraded connection. */
const STREAM = 1;
/** Below this a payload is copied next to its header; above it the two are written as they are. */
const COPY_BELOW = 4096;
/** Bytes a side of the caller may be ahead of the socket. */
const WINDOW = 256 * 1024;

type Events = {
  operation: OperationInfo;
  progress: ProgressEvent;
  vm: Vm;
  prepare: true;
  /** The repository in the VM that the command runs in. */
  workspace: Workspace;
};
/** One of them. */
export type StreamEvent = {
  [Name in keyof Events]: Pick<Events, Name> & { [Other in Exclude<keyof Events, Name>]?: undefined };
}[keyof Events];
/** How a stream ended. `ok` is the result of what is not a command. */
export type StreamEnd = ExecResult | { ok: unknown; exit?: undefined; signal?: undefined };

export type FrameStream<End extends StreamEnd = StreamEnd> = {
  /** Resolves when the daemon has begun the work; rejects as `closed` does. */
  readonly opened: Promise<unknown>;
  readonly stdin: Writable;
  /** Holds back the whole stream while it is not read. */
  readonly stdout: Readable;
  /** Holds back the whole stream while it is not read. */
  readonly stderr: Readable;
  /**
   * The end of the work; what was received before it may still stand in `stdout` and `stderr`, which end in every case.
   * Rejects with the daemon's error, or DAEMON_UNREACHABLE when the connection broke.
   */
  readonly closed: Promise<End>;
  resize(cols: number, rows: number): void;
  /** @param number of the signal, as Linux counts them */
  signal(number: number): void;
  /** Says that what the daemon asked for by the event `{prepare}` is done. */
  prepared(): void;
  /** Asks the daemon to end the work and undo it. Output is dropped from here on; `closed` settles when it is done. */
  abort(): void;
  /** Drops the connection. The daemon sees a client that went away. */
  destroy(): void;
};

export type FrameStreamOptions = {
  onEvent?: ((event: StreamEvent) => void) | undefined;
  /** Aborts the stream. */
  signal?: AbortSignal | undefined;
};

/**
 * @param socket an upgraded connection, paused
 * @param head bytes that came with the answer to the upgrade
 * @param request sent as OPEN
 * @throws INVALID_REQUEST when the request is over MAX_REQUEST bytes
 */
export const openFrameStream = <End extends StreamEnd>(
  socket: Socket,
  head: Uint8Array,
  request: unknown,
  options: FrameStreamOptions = {},
): FrameStream<End> => {
  const { onEvent = () => undefined } = options;
  const opened = Promise.withResolvers<unknown>();
  const closed = Promise.withResolvers<End>();
  // Both carry the same error: whoever waits for one of them need not wait for the other.
  opened.promise.catch(() => undefined);
  closed.promise.catch(() => undefined);
  let over = false;
  let aborted = false;

  const full = [false, false];
  const ended = [false, false];
  const release = (channel: 0 | 1): void => {
    full[channel] = false;
    if (!full.includes(true)) socket.resume();
  };
  const output = (channel: 0 | 1): Readable =>
    new Readable({
      highWaterMark: WINDOW,
      read: () => release(channel),
      // Who stops reading holds nothing back any more: the rest is dropped, and the end still arrives.
      destroy: (error, done) => {
        release(channel);
        done(error);
      },
    });
  const outputs = [output(0), output(1)] as const;
  const stdin = new Writable({
    highWaterMark: WINDOW,
    decodeStrings: true,
    write: (chunk: Buffer, _encoding, done) => sendData([chunk], done),
    writev: (chunks, done) =>
      sendData(
        chunks.map(({ chunk }) => chunk as Buffer),
        done,
      ),
    final: (done) => {
      if (!over && !aborted) socket.write(encodeFrame(frameType.end, STREAM));
      done();
    },
  });
  // A broken stream is the rejection of `closed`; nobody has to listen in three more places.
  for (const side of [stdin, ...outputs]) side.on("error", () => undefined);

  const sendData = (chunks: Buffer[], done: (error?: Error | null) => void): void => {
    if (over || aborted) return done();
    socket.cork();
    let left = chunks.length;
    for (const chunk of chunks) {
      left--;
      let at = 0;
      do {
        const piece = chunk.subarray(at, at + MAX_PAYLOAD);
        at += piece.length;
        const last = left === 0 && at >= chunk.length ? () => done() : undefined;
        if (piece.length < COPY_BELOW) {
          socket.write(encodeFrame(frameType.data, STREAM, piece), last);
        } else {
          socket.write(encodeHeader(frameType.data, STREAM, piece.length));
          socket.write(piece, last);
        }
      } while (at < chunk.length);
    }
    socket.uncork();
  };

  const finish = (error: Error | undefined, end?: End): void => {
    if (over) return;
    over = true;
    options.signal?.removeEventListener("abort", abort);
    if (error) {
      opened.reject(error);
      closed.reject(error);
    } else {
      opened.resolve({});
      closed.resolve(end as End);
    }
    for (const side of outputs) side.push(null);
    stdin.destroy();
    socket.destroy();
  };

  const onClose = (payload: Uint8Array): void => {
    const body = decodeJson(payload);
    if (typeof body !== "object" || body === null) throw new FrameError("CLOSE without a result");
    if ("error" in body) return finish(fromErrorBody(body.error));
    if (!("exit" in body || "signal" in body || "ok" in body)) throw new FrameError("CLOSE without a result");
    finish(undefined, body as End);
  };

  const onData = (side: Readable, channel: number, payload: Uint8Array | null): void => {
    if (payload === null) ended[channel] = true;
    if (aborted || side.destroyed || payload?.length === 0) return;
    if (side.push(payload) || payload === null) return;
    full[channel] = true;
    socket.pause();
  };

  const onFrame = ({ type, channel, stream, payload }: Frame): void => {
    if (over) return;
    if (stream !== STREAM) throw new FrameError(`frame of stream ${stream}`);
    if (type === frameType.data || type === frameType.end) {
      const side = outputs[channel];
      if (!side || ended[channel]) throw new FrameError(side ? "data after its end" : `data on channel ${channel}`);
      onData(side, channel, type === frameType.end ? null : payload);
    } else if (type === frameType.opened) opened.resolve(decodeJson(payload));
    else if (type === frameType.event) onEvent(decodeJson(payload) as StreamEvent);
    else if (type === frameType.close) onClose(payload);
    else throw new FrameError(`frame type ${type} from the daemon`);
  };

  const control = (value: unknown): void => {
    if (!over && !aborted) socket.write(encodeFrame(frameType.control, STREAM, encodeJson(value)));
  };

  const abort = (): void => {
    if (over || aborted) return;
    aborted = true;
    socket.write(encodeFrame(frameType.close, STREAM));
    for (const side of outputs) side.push(null);
    stdin.destroy();
    socket.resume();
  };

  const decode = frameDecoder(onFrame);
  const receive = (chunk: Uint8Array): void => {
    try {
      decode(chunk);
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      finish(new BangerError("INTERNAL", `the daemon's stream cannot be read: ${what}`, { cause: error }));
    }
  };
  socket.on("error", (error) => finish(lostDaemon(error)));
  socket.on("close", () => finish(lostDaemon()));
  socket.on("data", receive);

  sendOpen(socket, request);
  if (head.length > 0) receive(head);
  if (!full.includes(true)) socket.resume();
  if (options.signal?.aborted) abort();
  else options.signal?.addEventListener("abort", abort, { once: true });

  return {
    opened: opened.promise,
    stdin,
    stdout: outputs[0],
    stderr: outputs[1],
    closed: closed.promise,
    resize: (cols, rows) => control({ resize: { cols, rows } }),
    signal: (number) => control({ signal: number }),
    prepared: () => control({ prepared: true }),
    abort,
    destroy: () => finish(new BangerError("CANCELLED", "cancelled")),
  };
};

/** OPEN, in as many frames as the request needs: channel 1 says that more of it follows. */
const sendOpen = (socket: Socket, request: unknown): void => {
  const bytes = encodeJson(request);
  if (bytes.length > MAX_REQUEST) {
    socket.destroy();
    throw new BangerError(
      "INVALID_REQUEST",
      `the request of ${bytes.length} bytes is over the limit of ${MAX_REQUEST}`,
      {
        hint: "arguments and environment travel in the request: send large data through stdin or a file",
      },
    );
  }
  for (let at = 0; at === 0 || at < bytes.length; at += MAX_PAYLOAD) {
    const more = at + MAX_PAYLOAD < bytes.length;
    socket.write(encodeFrame(frameType.open, STREAM, bytes.subarray(at, at + MAX_PAYLOAD), more ? 1 : 0));
  }
};
