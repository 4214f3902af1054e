/** The DNS server with a resolver of others (c-ares, in Node.js), and with bytes that are no query. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { Resolver } from "node:dns/promises";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import { answerDns, listenDns } from "./dns.ts";
import { encodeName } from "./dns-message.ts";

const vms = new Map([["box", "127.64.1.2"]]);
const addressOf = (name: string) => vms.get(name);

const query = (
  labels: string[],
  type = 1,
  { flags = 0x0100, klass = 1, extra = Buffer.alloc(0), additional = 0 } = {},
) => {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(0x1234, 0);
  header.writeUInt16BE(flags, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(additional, 10);
  const question = Buffer.alloc(4);
  question.writeUInt16BE(type, 0);
  question.writeUInt16BE(klass, 2);
  return Buffer.concat([header, encodeName(labels), question, extra]);
};
const answer = (message: Uint8Array) => {
  const reply = answerDns(message, addressOf);
  return reply && Buffer.from(reply);
};
const codeOf = (message: Uint8Array) => (answer(message)?.readUInt16BE(2) ?? -1) & 0xf;

test("a resolver finds VMs while they are there", async () => {
  const server = await listenDns("127.0.0.1", 0, addressOf);
  try {
    const resolver = new Resolver({ timeout: 2000, tries: 1 });
    resolver.setServers([`127.0.0.1:${server.port}`]);
    assert.deepEqual(await resolver.resolve4("box.vm", { ttl: true }), [{ address: "127.64.1.2", ttl: 0 }]);
    assert.deepEqual(await resolver.resolve4("BOX.vm"), ["127.64.1.2"]);
    await assert.rejects(resolver.resolve6("box.vm"), { code: "ENODATA" });
    await assert.rejects(resolver.resolve4("fox.vm"), { code: "ENOTFOUND" });
    await assert.rejects(resolver.resolve4("www.box.vm"), { code: "ENOTFOUND" });
    await assert.rejects(resolver.resolve4("example.com"), { code: "EREFUSED" });
    assert.equal((await resolver.resolveSoa("vm")).nsname, "ns.vm");
    vms.set("fox", "127.64.1.3");
    assert.deepEqual(await resolver.resolve4("fox.vm"), ["127.64.1.3"]);
    vms.delete("fox");
    await assert.rejects(resolver.resolve4("fox.vm"), { code: "ENOTFOUND" });
  } finally {
    server.close();
  }
});

test("over TCP several queries are answered, in pieces too; what is no query ends the connection", async () => {
  const server = await listenDns("127.0.0.1", 0, addressOf);
  try {
    const one = query(["box", "vm"]);
    const framed = Buffer.concat([Buffer.of(0, one.length), one]);
    const socket = connect({ host: "127.0.0.1", port: server.port });
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    for (const byte of framed) {
      socket.write(Buffer.of(byte));
      await new Promise(setImmediate);
    }
    socket.write(Buffer.concat([framed, framed]));
    const expected = answer(one);
    assert.ok(expected);
    while (Buffer.concat(chunks).length < 3 * (2 + expected.length)) await once(socket, "data");
    const whole = Buffer.concat([Buffer.of(0, expected.length), expected]);
    assert.ok(Buffer.concat(chunks).equals(Buffer.concat([whole, whole, whole])));
    socket.write(Buffer.of(0, 3, 1, 2, 3));
    await once(socket, "close");
  } finally {
    server.close();
  }
});

test("a datagram that is no query gets no answer, and the next one gets its own", async () => {
  const server = await listenDns("127.0.0.1", 0, addressOf);
  const socket = createSocket("udp4");
  try {
    socket.send(Buffer.from("nonsense"), server.port, "127.0.0.1");
    socket.send(query(["box", "vm"], 1, { flags: 0x8000 }), server.port, "127.0.0.1");
    socket.send(query(["box", "vm"]), server.port, "127.0.0.1");
    const [reply] = (await once(socket, "message")) as [Buffer];
    assert.ok(answer(query(["box", "vm"]))?.equals(reply));
  } finally {
    socket.close();
    server.close();
  }
});

const opt = (version: number) => Buffer.of(0, 0, 41, 16, 0, 0, version, 0, 0, 0, 0);

test("EDNS is answered with EDNS, of a later version with BADVERS", () => {
  const reply = answer(query(["box", "vm"], 1, { extra: opt(0), additional: 1 }));
  assert.equal(reply?.readUInt16BE(10), 1);
  assert.deepEqual([...(reply?.subarray(-11) ?? [])], [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
  const later = answer(query(["box", "vm"], 1, { extra: opt(1), additional: 1 }));
  assert.deepEqual([later?.readUInt16BE(6), later?.at(-6)], [0, 1]);
  assert.equal(answer(query(["box", "vm"], 1, { extra: Buffer.concat([opt(0), opt(0)]), additional: 2 })), undefined);
});

test("other operations, classes and zones are refused", () => {
  // It answers the operation that it was asked for.
  assert.equal(answer(query(["box", "vm"], 1, { flags: 0x2800 }))?.readUInt16BE(2), 0xa804);
  assert.equal(codeOf(query(["box", "vm"], 1, { klass: 3 })), 5);
  assert.equal(codeOf(query([])), 5);
  assert.equal(codeOf(query(["vm"])), 0);
  assert.equal(codeOf(query(["box", "vm"], 16)), 0);
});

test("no bytes whatever break it: every answer is for the question that was asked", () => {
  const bytes = fc.uint8Array({ maxLength: 600 });
  const nearly = fc
    .tuple(
      fc.array(fc.constantFrom("box", "vm", "fox", "a".repeat(63))),
      fc.nat(300),
      fc.array(fc.tuple(fc.nat(40), fc.nat(255)), { maxLength: 3 }),
    )
    .map(([labels, type, changes]) => {
      const message = query([...labels, "vm"], type);
      for (const [at, value] of changes) if (at < message.length) message[at] = value;
      return new Uint8Array(message);
    });
  fc.assert(
    fc.property(fc.oneof(bytes, nearly), (message) => {
      const reply = answer(message);
      if (!reply) return;
      assert.ok(reply.length <= 512 && reply.subarray(0, 2).equals(message.subarray(0, 2)));
      assert.ok((reply[2] ?? 0) & 0x80);
      // The name and type that were asked for come back as they are.
      const end = reply.indexOf(0, 12);
      assert.ok(end < 0 || Buffer.from(message).includes(reply.subarray(12, Math.min(end, 13))));
    }),
    { numRuns: 3000 },
  );
});
