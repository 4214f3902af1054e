/**
 * Opens an upgraded connection. Written on a plain socket: the answer is one head of a few lines, and loading Node's HTTP client for it
 * would cost a command 7 ms.
 */
import type { Socket } from "node:net";
import { BangerError, fromErrorBody } from "../contract/errors.ts";
import { BUILD_HEADER, type Route, STREAM_PROTOCOL } from "../contract/routes.ts";
import { buildId } from "../contract/version.ts";
import { lostDaemon, noDaemon } from "./errors.ts";

/** Most bytes of an answer that is not an upgrade. */
const MAX_ANSWER = 1024 * 1024;

export type Upgraded = {
  /** Paused. */
  socket: Socket;
  /** What came after the answer's head. */
  head: Uint8Array;
  /** Build of the daemon. */
  build: string | undefined;
};

/** @throws DAEMON_UNREACHABLE (details.absent when nobody listens), FILE_REFUSED when the socket is not ours to use */
export const connectSocket = (socketPath: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = process.getBuiltinModule("node:net").connect({ path: socketPath });
    const onError = (error: Error) => reject(noDaemon(socketPath, error));
    socket.once("error", onError);
    socket.once("connect", () => {
      socket.off("error", onError);
      resolve(socket);
    });
  });

type Answer = { status: number; headers: Map<string, string>; rest: Buffer };

const parseHead = (bytes: Buffer, end: number): Answer => {
  const [first = "", ...lines] = bytes.subarray(0, end).toString("latin1").split("\r\n");
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(first)?.[1]);
  if (!status) throw new BangerError("INTERNAL", "what listens on the daemon's socket does not speak HTTP");
  const headers = new Map(
    lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const;
    }),
  );
  return { status, headers, rest: bytes.subarray(end + 4) };
};

/** Reads up to the end of the head, or (`whole`) of the body. */
const readAnswer = (socket: Socket): Promise<Answer> =>
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
        if (bytes.length > MAX_ANSWER) settle(() => reject(lostDaemon()));
        return;
      }
      try {
        const answer = parseHead(bytes, end);
        const length = Number(answer.headers.get("content-length") ?? 0);
        if (answer.status !== 101 && answer.rest.length < Math.min(length, MAX_ANSWER)) return;
        settle(() => resolve(answer));
      } catch (error) {
        settle(() => reject(error));
      }
    };
    socket.on("data", onData).on("error", onError).on("close", onClose);
  });

/**
 * @param path of the endpoint, parameters filled in
 * @throws the daemon's error, or DAEMON_UNREACHABLE
 */
export const upgrade = async (socketPath: string, method: Route["method"], path: string): Promise<Upgraded> => {
  const socket = await connectSocket(socketPath);
  socket.write(
    `${method} ${path} HTTP/1.1\r\nHost: banger\r\nConnection: Upgrade\r\nUpgrade: ${STREAM_PROTOCOL}\r\n${BUILD_HEADER}: ${buildId()}\r\n\r\n`,
  );
  try {
    const answer = await readAnswer(socket);
    const build = answer.headers.get(BUILD_HEADER);
    if (answer.status === 101) return { socket, head: answer.rest, build };
    throw errorOfAnswer(answer.rest.toString("utf8"), answer.status);
  } catch (error) {
    socket.destroy();
    throw error;
  }
};

/** The error in the body of an answer with a status of 400 or more. */
export const errorOfAnswer = (body: string, status: number): BangerError => {
  try {
    return fromErrorBody(JSON.parse(body));
  } catch (error) {
    return new BangerError(
      "INTERNAL",
      `the daemon answered with status ${status}: ${body.slice(0, 200) || "(nothing)"}`,
      { cause: error },
    );
  }
};
