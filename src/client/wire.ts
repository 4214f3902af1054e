/**
 * The daemon's HTTP as written on a plain socket: heads are a few lines and bodies end with the connection, and loading Node's HTTP client
 * would cost every command 7 ms.
 */
import type { Socket } from "node:net";
import { BangerError } from "../contract/errors.ts";
import { BUILD_HEADER, type Route } from "../contract/routes.ts";
import { buildId } from "../contract/version.ts";
import { lostDaemon, noDaemon } from "./errors.ts";

/** Most bytes of an answer's head. */
const MAX_HEAD = 64 * 1024;

export type Head = {
  status: number;
  /** By lower-case name. */
  headers: Map<string, string>;
  /** Build of the daemon. */
  build: string | undefined;
  /** What came of the body with the head. */
  rest: Buffer;
};

/**
 * @param signal ends the connection, whenever it comes
 * @throws DAEMON_UNREACHABLE
 */
export const connectSocket = (socketPath: string, signal?: AbortSignal): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = process.getBuiltinModule("node:net").connect({ path: socketPath, ...(signal && { signal }) });
    const onError = (error: Error) => reject(noDaemon(socketPath, error));
    socket.once("error", onError);
    socket.once("connect", () => {
      socket.off("error", onError);
      resolve(socket);
    });
  });

const parseHead = (bytes: Buffer, end: number): Head => {
  const [first = "", ...lines] = bytes.subarray(0, end).toString("latin1").split("\r\n");
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(first)?.[1]);
  if (!status) throw new BangerError("INTERNAL", "what listens on the daemon's socket does not speak HTTP");
  const headers = new Map(
    lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const;
    }),
  );
  return { status, headers, build: headers.get(BUILD_HEADER), rest: bytes.subarray(end + 4) };
};

/** Reads up to the end of the head; the socket is paused then. */
const readHead = (socket: Socket): Promise<Head> =>
  new Promise((resolve, reject) => {
    let bytes: Buffer = Buffer.alloc(0);
    const settle = (run: () => void) => {
      socket.off("data", onData).off("error", onError).off("close", onClose);
      socket.pause();
      run();
    };
    const onError = (error: Error) => settle(() => reject(lostDaemon(error)));
    const onClose = () => settle(() => reject(lostDaemon()));
    const onData = (chunk: Buffer) => {
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
      const end = bytes.indexOf("\r\n\r\n");
      if (end < 0) {
        if (bytes.length > MAX_HEAD) settle(() => reject(lostDaemon()));
        return;
      }
      try {
        const head = parseHead(bytes, end);
        settle(() => resolve(head));
      } catch (error) {
        settle(() => reject(error));
      }
    };
    socket.on("data", onData).on("error", onError).on("close", onClose);
  });

/**
 * Connects, asks, and reads the answer's head.
 * @param version 1.0: the body ends with the connection, whatever its length; 1.1: an upgrade
 * @returns the socket too, paused
 * @throws DAEMON_UNREACHABLE
 */
export const ask = async (
  socketPath: string,
  request: { method: Route["method"]; path: string; body?: unknown },
  version: "1.0" | "1.1",
  { headers, signal }: { headers?: Record<string, string>; signal?: AbortSignal | undefined } = {},
): Promise<{ socket: Socket; head: Head }> => {
  const socket = await connectSocket(socketPath, signal);
  const body = request.body === undefined ? "" : JSON.stringify(request.body);
  const lines = Object.entries({
    Host: "banger",
    [BUILD_HEADER]: buildId(),
    ...(body === "" ? {} : { "Content-Type": "application/json", "Content-Length": String(Buffer.byteLength(body)) }),
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`${request.method} ${request.path} HTTP/${version}\r\n${lines.join("")}\r\n${body}`);
  try {
    return { socket, head: await readHead(socket) };
  } catch (error) {
    socket.destroy();
    throw error;
  }
};
