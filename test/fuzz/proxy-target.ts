/** The proxy of secrets before a guest that says anything: the connection ends, and no value comes back. */
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { createSecureContext, type SecureContext } from "node:tls";
import { SECRET_HEADERS } from "../../src/contract/secret-text.ts";
import { BangerError } from "../../src/contract/errors.ts";
import { hostCertificate, newKeyPair } from "../../src/daemon/secrets/certificate.ts";
import { toldLine } from "../../src/daemon/network/told.ts";
import { secretsProxy } from "../../src/daemon/secrets/proxy.ts";
import { knownSecret } from "../../src/daemon/secrets/put-in.ts";
import { once } from "../../src/host/once.ts";

const VALUE = "the-real-value-1234";
const TOKEN = `banger_secret_${"a".repeat(32)}`;
const secrets = [
  knownSecret(
    { name: "TOKEN", hosts: ["http://plain.test", "api.test"], headers: [...SECRET_HEADERS], placeholder: TOKEN },
    VALUE,
  ),
];

/** A server that repeats what it is sent. */
const server = (): Duplex => {
  const duplex: Duplex = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      const [, token = ""] = /^(?:authorization|x-api-key): (.*)$/im.exec(chunk.toString("latin1")) ?? [];
      duplex.push(`HTTP/1.1 200 OK\r\nX-Token: ${token}\r\nContent-Length: ${chunk.length}\r\n\r\n`);
      duplex.push(chunk);
      done();
    },
  });
  duplex.on("error", () => undefined);
  // What Node asks of a socket that it keeps.
  const nothing = () => duplex;
  return Object.assign(duplex, { setKeepAlive: nothing, setTimeout: nothing, ref: nothing, unref: nothing });
};

const context = once(async (): Promise<SecureContext> => {
  const keys = await newKeyPair();
  const key = keys.privateKey.export({ type: "pkcs8", format: "pem" });
  return createSecureContext({ key, cert: hostCertificate("api.test", keys.publicKey, keys) });
});

const request = (...lines: readonly string[]): Buffer => Buffer.from(`${lines.join("\r\n")}\r\n\r\n`);
const basic = Buffer.from(`git:${TOKEN}`).toString("base64");

export const proxy = {
  conversations: [
    Buffer.concat([
      request("GET http://plain.test/a HTTP/1.1", "Host: plain.test", `Authorization: Bearer ${TOKEN}`),
      request(
        "POST http://plain.test/b?c HTTP/1.1",
        "Host: plain.test",
        `Authorization: Basic ${basic}`,
        "Content-Length: 3",
      ),
      Buffer.from("abc"),
      request(
        "PUT http://plain.test/ HTTP/1.1",
        "Host: plain.test",
        "Transfer-Encoding: chunked",
        `X-Api-Key: ${TOKEN}`,
      ),
      Buffer.from("5\r\nhello\r\n0\r\n\r\n"),
    ]),
    request(
      "GET http://plain.test/ HTTP/1.1",
      "Host: plain.test",
      "Connection: Upgrade",
      "Upgrade: websocket",
      `Authorization: ${TOKEN}`,
    ),
    Buffer.concat([
      request("CONNECT api.test:443 HTTP/1.1", "Host: api.test:443"),
      // As much of a ClientHello as a record's head and its first fields.
      Buffer.from("1603010200010001fc0303", "hex"),
      Buffer.alloc(64, 7),
    ]),
    Buffer.concat([request("CONNECT tunnel.test:22 HTTP/1.1", "Host: tunnel.test:22"), Buffer.from("SSH-2.0-x\r\n")]),
  ],
  feed: async (chunks: readonly Uint8Array[]): Promise<void> => {
    const secure = await context();
    const front = secretsProxy({
      secrets: () => secrets,
      authority: { certificate: "", contextFor: () => secure },
      roots: () => secure,
      outgoing: {
        connect: async (host) => {
          if (!host.endsWith(".test")) throw new BangerError("NET_REFUSED", "elsewhere");
          return server() as unknown as Socket;
        },
        judgeAgain: async () => undefined,
        close: () => undefined,
      },
      tell: async (told) => {
        const line = toldLine(told, "");
        assert.ok(!line.includes(VALUE) && !line.includes("\n"));
      },
      idleLimit: 50,
    });
    const said: Buffer[] = [];
    const connection = new Duplex({
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        said.push(chunk);
        done();
      },
    });
    const closed = new Promise<void>((resolve) => connection.once("close", resolve));
    front.serve(connection);
    for (const chunk of chunks) {
      if (connection.destroyed) break;
      connection.push(Buffer.from(chunk));
      await new Promise(setImmediate);
    }
    if (!connection.destroyed) connection.push(null);
    // A tunnel's server goes on for as long as it likes.
    const given = setTimeout(() => front.close(), 200);
    await closed;
    clearTimeout(given);
    const text = Buffer.concat(said).toString("latin1");
    assert.ok(!text.includes(VALUE), text);
  },
};
