/** The proxy of web servers in guests: real HTTP clients and servers, with the real agent between them. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type OutgoingHttpHeaders, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { type AgentGuest, agentGuest } from "../../../test/support/agent-guest.ts";
import { BangerError } from "../../contract/errors.ts";
import { dialGuest } from "../../guest/dial.ts";
import type { Listening } from "./tcp.ts";
import { listenWeb, targetOf } from "./web.ts";

let agent: AgentGuest;
let proxy: Listening;
let server: Server;
let port: number;
let gone = Promise.withResolvers<void>();

const bodyOf = async (message: IncomingMessage): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
};
const digest = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

const streams = new Map<string, (line: string) => void>();

before(async () => {
  agent = await agentGuest();
  server = createServer(async (asked, response) => {
    const { pathname } = new URL(asked.url ?? "/", "http://x");
    if (pathname === "/upload") {
      const body = await bodyOf(asked);
      response.end(JSON.stringify({ bytes: body.length, digest: digest(body), headers: asked.headers }));
      return;
    }
    if (pathname === "/events") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.flushHeaders();
      streams.set("events", (line) => void (line === "" ? response.end() : response.write(`data: ${line}\n\n`)));
      response.once("close", () => gone.resolve());
      return;
    }
    if (pathname === "/empty") return void response.writeHead(204).end();
    response.setHeader("Set-Cookie", ["a=1", "b=2"]);
    response.setHeader("Connection", "close, x-hop");
    response.setHeader("X-Hop", "stays here");
    response.end(JSON.stringify({ url: asked.url, method: asked.method, headers: asked.headers }));
  });
  // A WebSocket that sends back each short text frame, as RFC 6455 has it.
  server.on("upgrade", (asked: IncomingMessage, socket) => {
    const key = createHash("sha1").update(`${asked.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key.digest("base64")}\r\n\r\n`,
    );
    socket.on("data", (frame: Buffer) => {
      const mask = frame.subarray(2, 6);
      const text = frame.subarray(6).map((byte, index) => byte ^ (mask[index % 4] ?? 0));
      if ((frame[0] ?? 0) === 0x81) socket.write(Buffer.concat([Buffer.of(0x81, text.length), text]));
      else socket.end(Buffer.of(0x88, 0));
    });
    socket.on("error", () => socket.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  port = (server.address() as AddressInfo).port;
  proxy = await listenWeb("127.0.0.1", 0, async (vm, guestPort, signal) => {
    if (vm !== "box") throw new BangerError("VM_NOT_FOUND", `there is no VM "${vm}"`);
    const target = { port: guestPort, udp: false, hosts: ["127.0.0.1"] };
    return (await dialGuest(agent.guest, target, signal)).stream;
  });
});
after(async () => {
  proxy.close();
  server.close();
  server.closeAllConnections();
  await agent[Symbol.asyncDispose]();
});

type Options = { method?: string; host?: string; headers?: OutgoingHttpHeaders; body?: Buffer };

const ask = async (path: string, { method = "GET", host, headers = {}, body }: Options = {}) => {
  const named = { Host: host ?? `${port}.box.localhost:${proxy.port}`, ...headers };
  const asked = request({ host: "127.0.0.1", port: proxy.port, path, method, headers: named, setHost: false });
  asked.end(body);
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  return response;
};

test("a request arrives as it was sent, and so does its answer", async () => {
  const response = await ask("/page?a=%20b", {
    headers: { "X-Mine": "yes", Connection: "x-private", "X-Private": "no" },
  });
  assert.equal(response.statusCode, 200);
  assert.deepEqual(response.headers["set-cookie"], ["a=1", "b=2"]);
  assert.equal(response.headers["x-hop"], undefined);
  const { url, method, headers } = JSON.parse(String(await bodyOf(response)));
  assert.deepEqual([url, method, headers["x-mine"], headers["x-private"]], ["/page?a=%20b", "GET", "yes", undefined]);
  assert.equal(headers.host, `${port}.box.localhost:${proxy.port}`);
  assert.equal(headers["x-forwarded-proto"], "http");
  const empty = await ask("/empty", { method: "DELETE" });
  assert.deepEqual([empty.statusCode, String(await bodyOf(empty))], [204, ""]);
  const head = await ask("/page", { method: "HEAD" });
  assert.deepEqual([head.statusCode, String(await bodyOf(head))], [200, ""]);
});

test("a large upload arrives whole, with its length known and without", async () => {
  const body = randomBytes(20_000_000);
  for (const headers of [{ "Content-Length": body.length }, { "Transfer-Encoding": "chunked" }]) {
    const got = JSON.parse(String(await bodyOf(await ask("/upload", { method: "POST", headers, body }))));
    assert.deepEqual([got.bytes, got.digest], [body.length, digest(body)]);
  }
});

test("events of a server come as they happen, and a client that leaves is gone for the server too", async () => {
  const response = await ask("/events");
  for (const line of ["one", "two"]) {
    const next = once(response, "data");
    streams.get("events")?.(line);
    assert.equal(String(((await next) as [Buffer])[0]), `data: ${line}\n\n`);
  }
  gone = Promise.withResolvers();
  response.destroy();
  await gone.promise;
});

test("a WebSocket speaks through it", async () => {
  // Node's own client sends the Host of its address: names below localhost need a resolver that knows them.
  const key = randomBytes(16).toString("base64");
  const asked = request({
    host: "127.0.0.1",
    port: proxy.port,
    setHost: false,
    headers: {
      Host: `${port}.box.localhost:${proxy.port}`,
      Origin: `http://${port}.box.localhost:${proxy.port}`,
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Key": key,
      "Sec-WebSocket-Version": "13",
    },
  });
  asked.end();
  const [response, socket] = (await once(asked, "upgrade")) as [IncomingMessage, import("node:net").Socket];
  assert.equal(response.statusCode, 101);
  for (const text of ["hello", "again"]) {
    const mask = randomBytes(4);
    const masked = Buffer.from(text).map((byte, index) => byte ^ (mask[index % 4] ?? 0));
    const answered = once(socket, "data");
    socket.write(Buffer.concat([Buffer.of(0x81, 0x80 | text.length), mask, masked]));
    assert.equal(String(((await answered) as [Buffer])[0].subarray(2)), text);
  }
  const ended = once(socket, "end");
  socket.write(Buffer.concat([Buffer.of(0x88, 0x80), randomBytes(4)]));
  await ended;
});

test("what cannot be reached is said with what to do", async () => {
  const closed = createServer();
  closed.listen(0, "127.0.0.1");
  await once(closed, "listening");
  const free = (closed.address() as AddressInfo).port;
  await new Promise((resolve) => closed.close(resolve));
  const refused = await ask("/", { host: `${free}.box.localhost`, method: "POST", body: randomBytes(1000) });
  assert.equal(refused.statusCode, 502);
  assert.match(
    String(await bodyOf(refused)),
    /nothing listens on port \d+ of VM box\nsee what does: banger vm ports box/,
  );
  const missing = await ask("/", { host: "80.fox.localhost" });
  assert.deepEqual([missing.statusCode, /there is no VM "fox"/.test(String(await bodyOf(missing)))], [404, true]);
});

test("a page of elsewhere gets nowhere, whatever its name leads to", async () => {
  const hosts = [
    "evil.example",
    "localhost",
    "127.0.0.1",
    `${port}.box.localhost.evil.example`,
    "0.box.localhost",
    "99999.box.localhost",
  ];
  for (const host of hosts) assert.equal((await ask("/", { host })).statusCode, 400, host);
  assert.equal((await ask("/", { host: `${port}.BOX.localhost` })).statusCode, 200);
  for (const origin of [
    "https://evil.example",
    "null",
    "http://localhost.evil.example",
    "http://10.0.0.1",
    "file:///x",
  ])
    assert.equal((await ask("/", { headers: { Origin: origin } })).statusCode, 400, origin);
  for (const origin of [`http://${port}.box.localhost:${proxy.port}`, "http://localhost:3000", "http://127.0.0.1"])
    assert.equal((await ask("/", { headers: { Origin: origin } })).statusCode, 200, origin);
  assert.throws(() => targetOf(undefined, undefined), { code: "INVALID_REQUEST" });
});
