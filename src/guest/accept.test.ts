import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { agentGuest } from "../../test/support/agent-guest.ts";
import { silentProgress } from "../contract/progress.ts";
import { acceptFromGuest } from "./accept.ts";
import { callGuest } from "./call.ts";

/** A port of this machine's loopback that nobody has. */
const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
};

const program = (port: number): Socket => {
  const socket = connect({ host: "127.0.0.1", port, allowHalfOpen: true });
  socket.on("error", () => undefined);
  return socket;
};

/** What the agent was asked before has been done when this is. */
const settled = (guest: Parameters<typeof callGuest>[0]) => callGuest(guest, { op: "metrics" }, silentProgress());

test("what a program of the guest sends arrives, and each side's end is passed on by itself", async () => {
  await using agent = await agentGuest();
  const port = await freePort();
  const served: Promise<string>[] = [];
  const peers = new Set<number | undefined>();
  const serve = (connection: Duplex, peer: number | undefined) => {
    served.push(text(connection));
    peers.add(peer);
    connection.once("end", () => connection.end("the answer"));
  };
  const accepting = acceptFromGuest(agent.guest, { port, most: 64, serve });
  await settled(agent.guest);
  const own = new Set<number | undefined>();
  const programs = Array.from({ length: 100 }, (_, index) => {
    const socket = program(port);
    socket.once("connect", () => own.add(socket.localPort));
    socket.end(`question ${index}`);
    return text(socket);
  });
  assert.deepEqual(new Set(await Promise.all(programs)), new Set(["the answer"]));
  assert.deepEqual(
    (await Promise.all(served)).toSorted(),
    Array.from({ length: 100 }, (_, index) => `question ${index}`).toSorted(),
  );
  // By its own port the guest knows whose a connection is.
  assert.deepEqual(peers, own);
  accepting.close();
});

test("more than may be open at once wait in the guest, and nobody is lost", async () => {
  await using agent = await agentGuest();
  const port = await freePort();
  const open: Duplex[] = [];
  let came = Promise.withResolvers<void>();
  const serve = (connection: Duplex) => {
    open.push(connection);
    connection.on("error", () => undefined).resume();
    came.resolve();
  };
  const accepting = acceptFromGuest(agent.guest, { port, most: 2, serve });
  await settled(agent.guest);
  const answers = Array.from({ length: 6 }, () => text(program(port)));
  for (let answered = 0; answered < 6; ) {
    while (open.length === 0) {
      await came.promise;
      came = Promise.withResolvers();
    }
    await settled(agent.guest);
    assert.ok(open.length <= 2, `${open.length} are open at once`);
    for (const connection of open.splice(0)) {
      connection.end("done");
      answered++;
    }
  }
  assert.deepEqual(
    await Promise.all(answers),
    Array.from({ length: 6 }, () => "done"),
  );
  accepting.close();
});

test("a megabyte goes each way at the pace of who reads it", async () => {
  await using agent = await agentGuest();
  const port = await freePort();
  const accepting = acceptFromGuest(agent.guest, { port, most: 8, serve: (connection) => connection.pipe(connection) });
  await settled(agent.guest);
  const socket = program(port);
  const sent = Buffer.alloc(1024 * 1024, "0123456789abcdef");
  socket.end(sent);
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  assert.ok(Buffer.concat(chunks).equals(sent));
  accepting.close();
});

test("one that is destroyed is reset in the guest", async () => {
  await using agent = await agentGuest();
  const port = await freePort();
  const accepting = acceptFromGuest(agent.guest, { port, most: 8, serve: (connection) => void connection.destroy() });
  await settled(agent.guest);
  const [error] = await once(connect(port, "127.0.0.1").resume(), "error");
  assert.equal(error.code, "ECONNRESET");
  accepting.close();
});

test("a port that is closed refuses at once, and can be had again", async () => {
  await using agent = await agentGuest();
  const port = await freePort();
  for (const answer of ["first", "second"]) {
    const accepting = acceptFromGuest(agent.guest, {
      port,
      most: 8,
      serve: (connection) => void connection.end(answer),
    });
    await settled(agent.guest);
    const socket = program(port);
    socket.end();
    assert.equal(await text(socket), answer);
    accepting.close();
    await settled(agent.guest);
    const [error] = await once(connect(port, "127.0.0.1"), "error");
    assert.equal(error.code, "ECONNREFUSED");
  }
});

test("a port that somebody has is told", async () => {
  await using agent = await agentGuest();
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as { port: number };
  const accepting = acceptFromGuest(agent.guest, { port, most: 8, serve: () => undefined });
  await assert.rejects(accepting.ended, /EADDRINUSE|address|in use/i);
  taken.close();
});
