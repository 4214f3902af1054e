/**
 * The agent's channel over Firecracker's vsock. Firecracker listens on a unix socket: `CONNECT port`, answered by `OK n`, is a connection to that
 * port of the guest. It dials `SOCKET_PORT` for a guest that connects outwards, which is how the agent tells that it listens: it knocks there, once,
 * when it has booted (agent/src/channel.rs).
 */
import { rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { closeServer, connectTo, listenAt } from "../../host/sockets.ts";

/** The agent's port, in the guest to serve and on the host to knock at. */
export const AGENT_PORT = 1024;
/** Longest answer to CONNECT: `OK` and a port number. */
const MAX_ANSWER = 32;

export type Knocks = {
  /** Guests that have knocked so far. */
  readonly count: number;
  /** Resolves at the first knock after the `seen`th. */
  after(seen: number): Promise<void>;
  close(): Promise<void>;
};

/** Listens for the guest. @param path Firecracker's socket */
export const listenForKnocks = async (path: string): Promise<Knocks> => {
  let count = 0;
  let waiting: (() => void)[] = [];
  // It says nothing, and nothing of what it might say is read.
  const server: Server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.destroy();
    count++;
    for (const resolve of waiting.splice(0)) resolve();
  });
  const own = `${path}_${AGENT_PORT}`;
  await rm(own, { force: true });
  await listenAt(server, own);
  return {
    get count() {
      return count;
    },
    after: (seen) =>
      count > seen
        ? Promise.resolve()
        : new Promise<void>((resolve) => {
            waiting = [...waiting, resolve];
          }),
    close: async () => {
      await closeServer(server);
      await rm(own, { force: true });
    },
  };
};

/**
 * Connects to the agent.
 * @returns undefined when nobody listens there (yet)
 */
export const connectToAgent = async (path: string): Promise<Socket | undefined> => {
  let socket: Socket;
  try {
    socket = await connectTo(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ECONNREFUSED") throw error;
    throw new BangerError("GUEST_AGENT_LOST", `Firecracker's vsock socket ${path} does not answer`, {
      hint: "stop the VM and start it again, or set XDG_RUNTIME_DIR as it was when the VM was started",
      cause: error,
    });
  }
  // In one write: Firecracker reads the line only once.
  socket.write(`CONNECT ${AGENT_PORT}\n`);
  return await new Promise((resolve) => {
    let received = Buffer.alloc(0);
    const settle = (connected: boolean) => {
      socket.off("data", onData).off("close", onClose);
      if (!connected) socket.destroy();
      resolve(connected ? socket : undefined);
    };
    const onClose = () => settle(false);
    const onData = (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      const end = received.indexOf("\n");
      if (end < 0 && received.length < MAX_ANSWER) return;
      socket.pause();
      const rest = received.subarray(end + 1);
      if (end >= 0 && rest.length > 0) socket.unshift(rest);
      settle(end >= 0 && /^OK \d+$/.test(received.subarray(0, end).toString("latin1")));
    };
    socket.on("data", onData).once("close", onClose);
  });
};
