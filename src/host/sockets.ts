/** Unix sockets made so that they are ours alone and that a child can take them over. */
import { randomBytes } from "node:crypto";
import { chmod, rename, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { BangerError } from "../contract/errors.ts";

/** `sun_path` holds 108 bytes with its closing zero. */
export const MAX_SOCKET_PATH = 107;

const listening = (server: Server, path: string): Promise<void> => {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
    throw new BangerError("FILE_REFUSED", `the socket path ${path} is longer than ${MAX_SOCKET_PATH} bytes`, {
      hint: "set XDG_RUNTIME_DIR to a folder with a shorter path",
    });
  }
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
};

/**
 * Puts a listening socket at `path`, 0600 before anyone can find it there, replacing a dead one.
 *
 * The socket is bound under another name and renamed: closing the server (libuv unlinks the name it bound) then
 * leaves `path` alone, so that a child that was given the server goes on listening there.
 */
export const listenAt = async (server: Server, path: string): Promise<void> => {
  const staging = `${path}.${randomBytes(2).toString("hex")}`;
  await listening(server, staging);
  await chmod(staging, 0o600);
  await rename(staging, path);
};

/** A socket that listens at `path`, to be passed to a child in its stdio and then closed here. */
export const bindForChild = async (path: string): Promise<Server> => {
  const server = createServer();
  await listenAt(server, path);
  return server;
};

/**
 * The descriptor of a listening server, for a child's stdio. Node passes sockets to children by itself, servers only to other Node processes;
 * the descriptor stands on the handle, under a name that Node does not promise.
 */
export const descriptorOf = (server: Server): number => {
  const handle: unknown = Reflect.get(server, "_handle");
  const fd: unknown = typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : undefined;
  if (typeof fd === "number" && fd >= 0) return fd;
  throw new BangerError("INTERNAL", "this Node.js does not tell the descriptor of a listening socket");
};

export const closeServer = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()));

/**
 * Connects to a unix socket.
 * @throws the system's error (ENOENT, ECONNREFUSED) when nothing listens there
 */
export const connectTo = (path: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ path });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      // Until its user listens, and for one that does not care: an error that nobody hears would end the daemon. 'close' follows it.
      socket.on("error", () => socket.destroy());
      resolve(socket);
    });
  });

/** Two connected sockets, to be given to two children. `folder` is where they meet for a moment. */
export const socketPair = async (folder: string): Promise<[Socket, Socket]> => {
  const server = createServer({ pauseOnConnect: true });
  const path = join(folder, `pair.${randomBytes(3).toString("hex")}`);
  await listening(server, path);
  try {
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    const [near, far] = await Promise.all([connectTo(path), accepted]);
    near.pause();
    return [near, far];
  } finally {
    await rm(path, { force: true });
    server.close();
  }
};
