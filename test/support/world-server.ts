/** A machine of a world (world.ts): servers on all its addresses. Takes a command a line, answers each with a line. Arguments: its name and its addresses. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import type { Answers } from "./world.ts";

const [name = "", ...addresses] = process.argv.slice(2);
const DNS = ["203.0.113.53", "2001:db8:1::53"];
let visits: string[] = [];
let zone: Record<string, Answers> = {};
const asked = new Map<string, number>();

const serveTcp = async (address: string, port: number): Promise<void> => {
  const server = createServer((socket) => {
    visits.push(`tcp ${address}:${port}`);
    socket.on("error", () => socket.destroy());
    socket.write(`${name} ${address}\n`);
    socket.pipe(socket);
  });
  server.listen({ host: address, port });
  await once(server, "listening");
};

const TYPES: Record<number, "A" | "AAAA"> = { 1: "A", 28: "AAAA" };

/** Sixteen or four bytes. */
const bytesOf = (address: string): Buffer => {
  if (!address.includes(":")) return Buffer.from(address.split(".").map(Number));
  const [before = [], after = []] = address.split("::").map((half) => half.split(":").filter(Boolean));
  const groups = [...before, ...Array<string>(8 - before.length - after.length).fill("0"), ...after];
  return Buffer.from(groups.map((group) => group.padStart(4, "0")).join(""), "hex");
};

/** An answer of nobody's to keep. */
const answer = (query: Buffer): Buffer => {
  let at = 12;
  const labels: string[] = [];
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString("latin1", at + 1, at + 1 + length));
    at += 1 + length;
  }
  const type = TYPES[query.readUInt16BE(at + 1)];
  const question = query.subarray(12, at + 5);
  const known = zone[labels.join(".").toLowerCase()];
  const turns = (type && known?.[type]) ?? [];
  const key = `${labels.join(".")} ${type}`;
  const turn = asked.get(key) ?? 0;
  asked.set(key, turn + 1);
  const found = turns[Math.min(turn, turns.length - 1)] ?? [];
  const records = found.map((address) => {
    const data = bytesOf(address);
    return Buffer.concat([Buffer.of(0xc0, 12, 0, data.length === 4 ? 1 : 28, 0, 1, 0, 0, 0, 0, 0, data.length), data]);
  });
  const header = Buffer.of(
    query[0] ?? 0,
    query[1] ?? 0,
    0x81,
    known ? 0x80 : 0x83,
    0,
    1,
    0,
    records.length,
    0,
    0,
    0,
    0,
  );
  return Buffer.concat([header, question, ...records]);
};

const serveUdp = async (address: string, port: number): Promise<void> => {
  const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
  socket.on("message", (message, from) => {
    const resolves = DNS.includes(address) && port === 53;
    if (!resolves) visits.push(`udp ${address}:${port}`);
    socket.send(resolves ? answer(message) : `${name} ${address}\n`, from.port, from.address);
  });
  socket.bind({ address, port });
  await once(socket, "listening");
};

type Command = { ports?: { tcp: number[]; udp: number[] }; visits?: true; zone?: Record<string, Answers> };

/** What had come before the question is heard before it is answered. */
const turnOfEvents = () => new Promise<void>((resolve) => setImmediate(() => setImmediate(resolve)));

for await (const line of createInterface({ input: process.stdin })) {
  const { ports, visits: wanted, zone: names } = JSON.parse(line) as Command;
  if (ports)
    await Promise.all(
      addresses.flatMap((address) => [
        ...ports.tcp.map((port) => serveTcp(address, port)),
        ...ports.udp.map((port) => serveUdp(address, port)),
      ]),
    );
  if (names) {
    zone = names;
    asked.clear();
  }
  await turnOfEvents();
  process.stdout.write(`${JSON.stringify(wanted ? visits : null)}\n`);
  if (wanted) visits = [];
}
process.exit(0);
