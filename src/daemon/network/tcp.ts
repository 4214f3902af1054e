/** A TCP port of the host that leads into a guest. */
import { createServer, type Socket } from "node:net";
import { BangerError } from "../../contract/errors.ts";
import type { GuestStream } from "../../guest/stream.ts";

/** What waits on a port of the host. */
export type Listening = {
  /** Its number, where any free one was asked for. */
  port: number;
  /** Nothing waits there any more when this returns; what had come through it is cut off. */
  close(): void;
};

/**
 * @param serve what is done with each connection, which it owns; it is paused
 * @throws the system's error: EADDRINUSE, EACCES, EADDRNOTAVAIL
 */
export const listenTcp = async (address: string, port: number, serve: (socket: Socket) => void): Promise<Listening> => {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    // Until it is joined to the guest; 'close' follows it.
    socket.on("error", () => socket.destroy());
    serve(socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: address, port, exclusive: true, backlog: 1024 }, resolve);
  });
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : port,
    close: () => {
      server.close();
      for (const socket of sockets) socket.resetAndDestroy();
    },
  };
};

/**
 * Joins a connection to a stream of the guest. Each side's end is passed on by itself, what cannot be passed on holds the other side
 * back, and a reset or a lost guest resets the other side.
 * @returns when both sides are over
 */
export const joinTcp = async (socket: Socket, stream: GuestStream): Promise<void> => {
  let failure: BangerError | undefined;
  let outputEnded = false;
  const closed = new Promise<void>((resolve) => {
    if (socket.destroyed) resolve();
    else socket.once("close", () => resolve());
  });
  const settled = stream.result.then(
    () => undefined,
    (error: unknown) => {
      failure = error instanceof BangerError ? error : new BangerError("INTERNAL", String(error));
      // A guest that is gone has nothing more to say; one whose server gave up may have said something before.
      if (failure.code !== "GUEST_ERROR") socket.resetAndDestroy();
    },
  );
  stream.output.once("end", () => {
    outputEnded = true;
    // After a failure of the stream its outputs end too, and its result is known one microtask later.
    queueMicrotask(() => {
      if (failure === undefined) socket.end();
      else socket.write("", () => socket.resetAndDestroy());
    });
  });
  void closed.then(() => {
    if (!socket.readableEnded || !outputEnded) stream.abort();
    // What the guest still sends is nobody's.
    stream.output.resume();
  });
  stream.output.pipe(socket, { end: false });
  socket.pipe(stream.input);
  await Promise.all([settled, closed]);
};
