/** Names below `.vm`: a DNS server on a loopback address, over UDP and TCP, that knows each VM's address and nothing else. */
import { createSocket } from "node:dgram";
import { createServer, isIPv6, type Socket } from "node:net";
import { encodeAnswer, encodeName, parseQuery, type Query, recordType, responseCode } from "./dns-message.ts";
import type { Listening } from "./tcp.ts";

const ZONE = "vm";
/** Asked for by `banger doctor`: no VM can have this name. */
const PROBE = "_banger";
/** Records follow a VM's life, so nobody is to keep them. Seconds. */
const TTL = 0;
/** A TCP connection may be silent so long, in ms; and there may be so many. */
const SILENCE = 10_000;
const MAX_CONNECTIONS = 64;
/** A query over TCP that is longer is none, in bytes. */
const MAX_QUERY = 4096;

const zoneName = encodeName([ZONE]);
const nameServer = encodeName(["ns", ZONE]);
/** Serial, refresh, retry, expire, and how long a "no" may be kept. */
const soaNumbers = Buffer.alloc(20);
for (const [index, value] of [1, 3600, 600, 86_400, TTL].entries()) soaNumbers.writeUInt32BE(value, index * 4);
const soa = { type: recordType.soa, data: Buffer.concat([nameServer, encodeName(["banger", ZONE]), soaNumbers]) };
const authority = { name: zoneName, record: soa };

/**
 * The answer to one message.
 * @param addressOf of a VM, by its name
 * @returns undefined for what gets none: it is no query
 */
export const answerDns = (
  message: Uint8Array,
  addressOf: (name: string) => string | undefined,
): Uint8Array | undefined => {
  const query = parseQuery(message);
  return query && encodeAnswer(query, { ttl: TTL, ...decide(query, addressOf) });
};

const decide = (
  { edns, operation, internet, labels, type }: Query,
  addressOf: (name: string) => string | undefined,
) => {
  const only = (code: number) => ({ code, answers: [], authority: undefined });
  if (edns !== undefined && edns > 0) return only(responseCode.badVersion);
  if (operation !== 0) return only(responseCode.notImplemented);
  if (!internet || labels.at(-1) !== ZONE) return only(responseCode.refused);
  const asks = (wanted: number) => type === wanted || type === recordType.any;
  const [name, ...more] = labels.slice(0, -1);
  if (name === undefined) {
    const answers = [
      ...(asks(recordType.soa) ? [soa] : []),
      ...(asks(recordType.ns) ? [{ type: recordType.ns, data: nameServer }] : []),
    ];
    return { code: responseCode.ok, answers, authority: answers.length > 0 ? undefined : authority };
  }
  const address = more.length > 0 ? undefined : name === PROBE ? "127.0.0.1" : addressOf(name);
  if (address === undefined) return { code: responseCode.noSuchName, answers: [], authority };
  // Also where AAAA is asked for: the name is there, such an address is not.
  if (!asks(recordType.a)) return { code: responseCode.ok, answers: [], authority };
  const record = { type: recordType.a, data: Buffer.from(address.split(".").map(Number)) };
  return { code: responseCode.ok, answers: [record], authority: undefined };
};

const LENGTH = 2;

/** Answers the queries of one TCP connection, each behind its length. */
const serveTcp = (socket: Socket, answer: (message: Uint8Array) => Uint8Array | undefined): void => {
  let kept: Buffer = Buffer.alloc(0);
  socket.setTimeout(SILENCE, () => socket.destroy());
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]);
    while (kept.length >= LENGTH && kept.length >= LENGTH + kept.readUInt16BE()) {
      const end = LENGTH + kept.readUInt16BE();
      const reply = answer(kept.subarray(LENGTH, end));
      kept = kept.subarray(end);
      if (!reply) return void socket.destroy();
      const length = Buffer.alloc(LENGTH);
      length.writeUInt16BE(reply.length);
      // Somebody who asks and does not read is not waited for.
      if (!socket.write(Buffer.concat([length, reply]))) return void socket.destroy();
    }
    if (kept.length > MAX_QUERY) socket.destroy();
  });
};

/**
 * @param addressOf of a VM, by its name
 * @throws the system's error: EADDRINUSE, EACCES, EADDRNOTAVAIL
 */
export const listenDns = async (
  address: string,
  port: number,
  addressOf: (name: string) => string | undefined,
): Promise<Listening> => {
  const answer = (message: Uint8Array) => answerDns(message, addressOf);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    serveTcp(socket, answer);
  });
  server.maxConnections = MAX_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: address, port, exclusive: true }, resolve);
  });
  const bound = server.address();
  const chosen = typeof bound === "object" && bound !== null ? bound.port : port;
  const datagrams = createSocket({ type: isIPv6(address) ? "udp6" : "udp4" });
  datagrams.on("message", (message, from) => {
    const reply = answer(message);
    // Who cannot be answered asks again.
    if (reply) datagrams.send(reply, from.port, from.address, () => undefined);
  });
  try {
    await new Promise<void>((resolve, reject) => {
      datagrams.once("error", reject);
      datagrams.bind({ address, port: chosen, exclusive: true }, resolve);
    });
  } catch (error) {
    server.close();
    throw error;
  }
  datagrams.on("error", () => undefined);
  return {
    port: chosen,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      datagrams.close();
    },
  };
};
