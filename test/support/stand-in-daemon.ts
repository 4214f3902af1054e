/** A daemon's front without a daemon behind it: a real server on a real unix socket, with answers given by the test. */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  decodeJson,
  encodeFrame,
  encodeJson,
  type Frame,
  type FrameType,
  frameDecoder,
  frameType,
} from "../../src/contract/frames.ts";
import { BUILD_HEADER, STREAM_PROTOCOL } from "../../src/contract/routes.ts";
import { buildId } from "../../src/contract/version.ts";

export type StandInStream = {
  socket: Socket;
  path: string;
  /** What OPEN carried. */
  request: Record<string, unknown>;
  send(type: FrameType, payload?: Uint8Array | string, channel?: number): boolean;
  close(result: unknown): void;
  /** Called for each frame after OPEN. */
  onFrame: (frame: Frame) => void;
};

export type StandIn = AsyncDisposable & {
  socketPath: string;
  /** Answers that are no upgrade. */
  onRequest: (request: IncomingMessage, response: ServerResponse, body: string) => void;
  onStream: (stream: StandInStream) => void;
};

export const standInDaemon = async (socketPath?: string, build = buildId()): Promise<StandIn> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-client-"));
  const sockets = new Set<Socket>();
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    response.setHeader(BUILD_HEADER, build);
    standIn.onRequest(request, response, Buffer.concat(chunks).toString("utf8"));
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined).on("close", () => sockets.delete(socket));
  });
  server.on("upgrade", (request: IncomingMessage, socket: Socket) => {
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${STREAM_PROTOCOL}\r\n${BUILD_HEADER}: ${build}\r\n\r\n`,
    );
    const parts: Uint8Array[] = [];
    const stream: StandInStream = {
      socket,
      path: request.url ?? "",
      request: {},
      send: (type, payload = "", channel = 0) =>
        socket.write(encodeFrame(type, 1, typeof payload === "string" ? Buffer.from(payload) : payload, channel)),
      close: (result) => {
        stream.send(frameType.close, encodeJson(result));
        socket.end();
      },
      onFrame: () => undefined,
    };
    const decode = frameDecoder((frame) => {
      if (frame.type !== frameType.open) return stream.onFrame(frame);
      parts.push(frame.payload.slice());
      if (frame.channel === 1) return;
      stream.request = decodeJson(Buffer.concat(parts)) as Record<string, unknown>;
      standIn.onStream(stream);
    });
    socket.on("data", decode);
  });
  const standIn: StandIn = {
    socketPath: socketPath ?? join(folder, "d.sock"),
    onRequest: (_request, response) => void response.writeHead(404).end("{}"),
    onStream: (stream) => stream.close({ exit: 0 }),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true });
    },
  };
  await new Promise<void>((resolve) => server.listen(standIn.socketPath, resolve));
  return standIn;
};
