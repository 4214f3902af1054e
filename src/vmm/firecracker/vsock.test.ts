/** What a hostile guest can do at the host's end of its vsock: knock without end, say what nobody asked for, answer with anything. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AGENT_PORT, connectToAgent, listenForKnocks } from "./vsock.ts";

const inFolder = async (use: (path: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), "vsock-"));
  try {
    await use(join(folder, "v"));
  } finally {
    await rm(folder, { recursive: true });
  }
};

const descriptors = async (): Promise<number> => (await readdir("/proc/self/fd")).length;
const closes = (socket: Socket) => new Promise<void>((resolve) => socket.once("close", () => resolve()));

test("a guest that knocks a thousand times and talks on is heard and holds nothing", () =>
  inFolder(async (path) => {
    const knocks = await listenForKnocks(path);
    const heard = knocks.after(0);
    const before = await descriptors();
    for (let round = 0; round < 20; round++)
      await Promise.all(
        Array.from({ length: 50 }, async () => {
          const socket = connect(`${path}_${AGENT_PORT}`);
          socket.on("error", () => undefined);
          const closed = closes(socket);
          socket.write(Buffer.alloc(100_000));
          await closed;
        }),
      );
    await heard;
    assert.equal(knocks.count, 1000);
    assert.ok((await descriptors()) <= before + 5);
    await knocks.close();
  }));

/** Firecracker's end of the socket, as a guest that is not the agent makes it answer. */
const answering = async (path: string, answer: (socket: Socket) => void, use: () => Promise<void>): Promise<void> => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("data", () => answer(socket));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    await use();
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
};

test("an answer without an end, of another kind, or none, is no connection", () =>
  inFolder(async (path) => {
    const answers: ((socket: Socket) => void)[] = [
      (socket) => {
        const flood = () => {
          while (socket.write("OK OK OK "));
          socket.once("drain", flood);
        };
        flood();
      },
      (socket) => socket.write("NO 1\n"),
      (socket) => socket.write("OK 1 2\n"),
      (socket) => socket.end(),
      (socket) => socket.destroy(),
    ];
    for (const answer of answers)
      await answering(path, answer, async () => assert.equal(await connectToAgent(path), undefined));
  }));

test("what follows the answer at once is not lost", () =>
  inFolder((path) =>
    answering(
      path,
      (socket) => socket.write("OK 1073741824\nfirst"),
      async () => {
        const socket = await connectToAgent(path);
        assert.ok(socket);
        for await (const first of socket) {
          assert.equal(String(first), "first");
          break;
        }
      },
    ),
  ));
