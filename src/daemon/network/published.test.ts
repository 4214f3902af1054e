/** Published ports over the real agent, on this machine's own loopback: 127.0.0.1 is the guest's, 127.64.0.x the VM's on the host. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createSocket, type Socket as Datagrams } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { type AgentGuest, agentGuest } from "../../../test/support/agent-guest.ts";
import { vmRow } from "../../../test/support/vm-row.ts";
import type { Publish } from "../../contract/published.ts";
import type { VmRow } from "../store/vms.ts";
import type { VmActor } from "../vms/actor.ts";
import { exposureNotes, type PublishedPorts, publishedPorts } from "./published.ts";

const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  close: async () => undefined,
};

let agent: AgentGuest;
let row: VmRow;
let ports: PublishedPorts;
let number = 0;
const cleanups: (() => void)[] = [];

before(async () => {
  agent = await agentGuest();
});
after(() => agent[Symbol.asyncDispose]());

/** A VM of its own for each test. */
beforeEach(() => {
  number++;
  row = vmRow({ name: `box${number}`, address: `127.64.${process.pid % 256}.${number}` });
  let changed = (): void => undefined;
  const actor = {
    row: () => row,
    guest: async () => agent.guest,
    use: () => ({ [Symbol.dispose]: () => undefined }),
    record: (change: Partial<VmRow>) => {
      row = { ...row, ...change };
      changed();
    },
    announce: () => undefined,
  } as unknown as VmActor;
  ports = publishedPorts({ actor, log, guestAddress: async () => undefined, ownerOf: () => undefined });
  changed = ports.changed;
});

const closing = async (work: () => Promise<void>): Promise<void> => {
  try {
    await work();
  } finally {
    ports.close();
    for (const clean of cleanups.splice(0)) clean();
  }
};

/** A server in the "guest". */
const serve = async (onSocket: (socket: Socket) => void, host = "127.0.0.1", port = 0): Promise<number> => {
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined);
    onSocket(socket);
  });
  server.listen(port, host);
  await once(server, "listening");
  cleanups.push(() => server.close());
  return (server.address() as AddressInfo).port;
};

const echo = (socket: Socket): void => void socket.pipe(socket);

const publish = (...requests: Publish[]) => ports.publish(requests);
const tcp = (guest: number): Publish => ({ proto: "tcp", guest, host: 0 });

const open = async (port: number): Promise<Socket> => {
  const socket = connect({ host: row.address, port, allowHalfOpen: true });
  cleanups.push(() => socket.destroy());
  await once(socket, "connect");
  return socket;
};

const publishedServer = async (onSocket: (socket: Socket) => void, host?: string): Promise<number> => {
  const [published] = await publish(tcp(await serve(onSocket, host)));
  assert.ok(published);
  assert.equal(published.address, row.address);
  return published.host;
};

/** Up to the other side's end; this side stays as it is. */
const readAll = async (socket: Socket): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.resume();
  await once(socket, "end");
  return Buffer.concat(chunks);
};

const resetOf = async (socket: Socket): Promise<string | undefined> => {
  const [error] = (await once(socket, "error").catch((thrown: unknown) => [thrown])) as [NodeJS.ErrnoException];
  return error.code;
};

test("bytes go both ways unchanged, and each side ends by itself", () =>
  closing(async () => {
    const port = await publishedServer(echo);
    const sent = randomBytes(3_000_000);
    const client = await open(port);
    client.end(sent);
    assert.ok((await readAll(client)).equals(sent));
  }));

test("a server that ends first goes on reading until its client ends", () =>
  closing(async () => {
    const received = Promise.withResolvers<string>();
    const port = await publishedServer((socket) => {
      socket.end("bye");
      void readAll(socket).then((bytes) => received.resolve(createHash("sha256").update(bytes).digest("hex")));
    });
    const client = await open(port);
    assert.equal(String(await readAll(client)), "bye");
    const sent = randomBytes(2_000_000);
    client.end(sent);
    assert.equal(await received.promise, createHash("sha256").update(sent).digest("hex"));
  }));

test("what the guest does not read stays with the client, and nothing of it is lost", () =>
  closing(async () => {
    const accepted = Promise.withResolvers<Socket>();
    const quiet = await publishedServer((socket) => {
      socket.pause();
      accepted.resolve(socket);
    });
    const lively = await publishedServer(echo);
    const sent = randomBytes(64 * 2 ** 20);
    const client = await open(quiet);
    client.end(sent);
    const server = await accepted.promise;
    const other = await open(lively);
    // Once nothing more of it moves while others' bytes do, it stands still.
    let before: number;
    do {
      before = client.writableLength;
      for (let i = 0; i < 20; i++) {
        other.write("ping");
        await once(other, "data");
      }
    } while (client.writableLength !== before);
    assert.ok(client.writableLength > sent.length / 2, `${client.writableLength} bytes wait`);
    assert.ok((await readAll(server)).equals(sent));
  }));

test("a reset on one side is a reset on the other", () =>
  closing(async () => {
    const accepted = Promise.withResolvers<Socket>();
    const port = await publishedServer((socket) => accepted.resolve(socket));
    const client = await open(port);
    client.write("hello");
    const server = await accepted.promise;
    await once(server, "data");
    client.resetAndDestroy();
    assert.equal(await resetOf(server), "ECONNRESET");

    const second = await publishedServer((socket) => socket.once("data", () => socket.resetAndDestroy()));
    const again = await open(second);
    again.write("hello");
    assert.equal(await resetOf(again), "ECONNRESET");
  }));

test("an answer of a server that takes no more arrives before the reset", () =>
  closing(async () => {
    // Destroyed with bytes unread: its kernel resets the connection after the answer.
    const port = await publishedServer((socket) => {
      socket.once("readable", () => {
        socket.read(1);
        socket.pause();
        socket.write("too much", () => socket.destroy());
      });
    });
    const client = await open(port);
    client.on("error", () => undefined);
    client.write(randomBytes(100_000));
    const [answer] = (await once(client, "data")) as [Buffer];
    assert.equal(String(answer), "too much");
  }));

test("where nothing listens a connection is reset; a server on ::1 is found", () =>
  closing(async () => {
    const guest = await serve(echo, "::1");
    const [published] = await publish(tcp(guest));
    const client = await open(published?.host ?? 0);
    client.end("six");
    assert.equal(String(await readAll(client)), "six");
    for (const clean of cleanups.splice(0)) clean();
    const refused = await open(published?.host ?? 0);
    assert.equal(await resetOf(refused), "ECONNRESET");
  }));

test("two thousand connections are served at once", () =>
  closing(async () => {
    const port = await publishedServer(echo);
    const clients = await Promise.all(Array.from({ length: 2000 }, () => open(port)));
    const answers = clients.map(async (client, index) => {
      client.write(`${index}\n`);
      const [answer] = (await once(client, "data")) as [Buffer];
      return String(answer);
    });
    // All are open while each is answered.
    assert.deepEqual(
      await Promise.all(answers),
      clients.map((_, index) => `${index}\n`),
    );
    await Promise.all(
      clients.map(async (client) => {
        client.end();
        await readAll(client);
      }),
    );
  }));

test("a port in use says by whom and what to do, and nothing of that request is published", () =>
  closing(async () => {
    const taken = await serve(echo, row.address);
    await assert.rejects(
      publish(tcp(1), { proto: "tcp", guest: 80, host: taken }),
      (error: Error & { hint?: string }) => {
        assert.match(error.message, new RegExp(`${row.address}:${taken} is in use by`));
        assert.match(error.hint ?? "", new RegExp(`banger vm publish ${row.name} 0:80`));
        return true;
      },
    );
    assert.deepEqual(ports.list(), []);
    await assert.rejects(publish({ proto: "tcp", guest: 80, host: 0, address: "192.0.2.77" }), {
      code: "PORT_REFUSED",
      message: /192\.0\.2\.77 is no address of this machine/,
    });
    await assert.rejects(publish({ proto: "tcp", guest: 80, address: "1.2.3" }), { code: "USAGE" });
  }));

test("what is published is recorded, opened again, and cut off when it is taken back", () =>
  closing(async () => {
    const port = await publishedServer(echo);
    assert.deepEqual(row.published, [{ proto: "tcp", guest: ports.list()[0]?.guest, host: port }]);
    const guest = row.published[0]?.guest ?? 0;
    // The same again is no error and changes nothing.
    assert.equal((await publish({ proto: "tcp", guest, host: port }))[0]?.host, port);
    assert.equal(row.published.length, 1);
    row = { ...row, state: "stopped" };
    ports.changed();
    const refused = connect({ host: row.address, port });
    assert.equal(await resetOf(refused), "ECONNREFUSED");
    row = { ...row, state: "running" };
    assert.deepEqual(await ports.settle(), []);
    const client = await open(port);
    client.write("x");
    await once(client, "data");
    assert.throws(() => ports.unpublish([{ proto: "tcp", guest: 9 }], {}), { code: "PORT_NOT_FOUND" });
    ports.unpublish([{ proto: "tcp", guest }], {});
    assert.equal(await resetOf(client), "ECONNRESET");
    assert.deepEqual([ports.list(), row.published], [[], []]);
  }));

test("a port that somebody took while the VM was stopped is told, and the VM starts", () =>
  closing(async () => {
    const port = await publishedServer(echo);
    row = { ...row, state: "stopped" };
    ports.changed();
    await serve(echo, row.address, port);
    row = { ...row, state: "running" };
    const [problem] = await ports.settle();
    assert.match(problem ?? "", /is not published: .* is in use by/);
    assert.match(ports.list()[0]?.problem ?? "", /is in use/);
  }));

const datagramServer = async (host: string): Promise<Datagrams> => {
  const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
  socket.on("message", (message, from) => socket.send(message, from.port, from.address));
  socket.bind(0, host);
  await once(socket, "listening");
  cleanups.push(() => socket.close());
  return socket;
};

const datagramClient = (): Datagrams => {
  const socket = createSocket("udp4");
  cleanups.push(() => socket.close());
  return socket;
};

test("datagrams keep their bounds, and each peer gets its own answers", () =>
  closing(async () => {
    const server = await datagramServer("127.0.0.1");
    const [published] = await publish({ proto: "udp", guest: server.address().port, host: 0 });
    const clients = [datagramClient(), datagramClient()];
    for (const [index, client] of clients.entries()) {
      for (const length of [1, 0, 1400, 33_000, 65_507]) {
        const sent = randomBytes(length);
        const answered = once(client, "message");
        client.send(sent, published?.host ?? 0, row.address);
        const [answer] = (await answered) as [Buffer];
        assert.ok(answer.equals(sent), `${length} bytes of client ${index}`);
      }
    }
  }));

test("a UDP server on ::1 is found after a datagram that nobody took", () =>
  closing(async () => {
    const server = await datagramServer("::1");
    const [published] = await publish({ proto: "udp", guest: server.address().port, host: 0 });
    const client = datagramClient();
    const answered = once(client, "message");
    let over = false;
    void answered.then(() => {
      over = true;
    });
    // As resolvers and other clients of UDP do: asked again until there is an answer.
    while (!over) {
      client.send("anybody?", published?.host ?? 0, row.address);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.equal(String(((await answered) as [Buffer])[0]), "anybody?");
  }));

test("an address that others reach is warned of", () => {
  const port = { proto: "tcp", guest: 80, host: 8080 } as const;
  assert.deepEqual(exposureNotes([{ ...port, address: "127.64.0.9" }], "box"), []);
  assert.deepEqual(exposureNotes([{ ...port, address: "0.0.0.0" }], "box"), [
    "whoever can reach this machine by 0.0.0.0:8080 reaches port 80 of VM box",
  ]);
});
