/** The network of a QEMU, passt and the filter before it, with a guest's frames written by hand. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { processEnds } from "../../../test/support/wait.ts";
import { passtGuest, preparePasst } from "./network.ts";

const MAC = Buffer.from("020000000001", "hex");
const OWN = Buffer.of(10, 0, 2, 15);
const GATEWAY = Buffer.of(10, 0, 2, 2);

const bytesOf = (address: string): Buffer => Buffer.from(address.split(".").map(Number));

const checksum = (data: Buffer): number => {
  let sum = 0;
  for (let at = 0; at < data.length; at += 2) sum += data.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
};

const syn = (to: Buffer, port: number, source: number): Buffer => {
  const tcp = Buffer.alloc(20);
  tcp.writeUInt16BE(source, 0);
  tcp.writeUInt16BE(port, 2);
  tcp.writeUInt32BE(1, 4);
  tcp.writeUInt16BE(0x5002, 12);
  tcp.writeUInt16BE(64_000, 14);
  tcp.writeUInt16BE(checksum(Buffer.concat([OWN, to, Buffer.of(0, 6, 0, 20), tcp])), 16);
  const ip = Buffer.concat([Buffer.from("4500002800010000400600000a00020f", "hex"), to]);
  ip.writeUInt16BE(checksum(ip), 10);
  return Buffer.concat([ip, tcp]);
};

/** Frames behind their length, as they come. */
async function* framesOf(nic: Socket): AsyncGenerator<Buffer, undefined> {
  let kept: Buffer = Buffer.alloc(0);
  for await (const chunk of nic) {
    kept = Buffer.concat([kept, chunk as Buffer]);
    while (kept.length >= 4 && kept.length >= 4 + kept.readUInt32BE()) {
      yield kept.subarray(4, 4 + kept.readUInt32BE());
      kept = kept.subarray(4 + kept.readUInt32BE());
    }
  }
  return undefined;
}

test("a guest has the protocols that its host has, and a forwarder that leads to a resolver", () => {
  const four = { address: "10.0.2.15/24", gateway: "10.0.2.2" };
  const six = { address6: "fd62:616e:6765:7200::15/64", gateway6: "fd62:616e:6765:7200::2" };
  const [dns, dns6] = [["10.0.2.3"], ["fd62:616e:6765:7200::3"]];
  const either = "nameserver 2001:db8::53\nnameserver 192.0.2.53\n";
  const both = { four: true, six: true };
  assert.deepEqual(passtGuest({ four: true, six: false }, either), { ...four, dns });
  assert.deepEqual(passtGuest({ four: false, six: false }, ""), { ...four, dns });
  assert.deepEqual(passtGuest(both, either), { ...four, ...six, dns });
  assert.deepEqual(passtGuest(both, "search x\nnameserver 2001:db8::53\n"), { ...four, ...six, dns: dns6 });
  assert.deepEqual(passtGuest(both, ""), { ...four, ...six, dns });
  assert.deepEqual(passtGuest({ four: false, six: true }, either), { ...six, dns: dns6 });
});

test("the filter heeds its rules, answers what it refuses, and takes up others at once", {
  timeout: 30_000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), "network-"));
  const server = createServer((socket) => socket.end()).listen(0, "0.0.0.0");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const own = Object.values(networkInterfaces())
    .flat()
    .find((each) => each?.family === "IPv4" && !each.internal);
  assert.ok(own, "this host has an address");
  const rules = join(folder, "rules");
  await writeFile(rules, "default deny");
  const passt = await preparePasst(folder, join(folder, "network.log"), rules);
  const { nic } = passt;
  const pids = await passt.start();
  try {
    const frames = framesOf(nic);
    const send = (frame: Buffer) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(frame.length);
      nic.write(Buffer.concat([length, frame]));
    };
    const next = async (matches: (frame: Buffer) => boolean): Promise<Buffer> => {
      for (;;) {
        const { value } = await frames.next();
        assert.ok(value, "the network goes on");
        if (matches(value)) return value;
      }
    };
    const question = Buffer.concat([Buffer.from("0001080006040001", "hex"), MAC, OWN, Buffer.alloc(6), GATEWAY]);
    send(Buffer.concat([Buffer.alloc(6, 0xff), MAC, Buffer.from("0806", "hex"), question]));
    const arp = await next((frame) => frame.readUInt16BE(12) === 0x0806);
    const gateway = arp.subarray(22, 28);
    let source = 5000;
    /** The flags of the first answer to a SYN: 0x12 accepts, 0x14 resets. */
    const attempt = async (address: string): Promise<number | undefined> => {
      source++;
      const from = source;
      send(Buffer.concat([gateway, MAC, Buffer.from("0800", "hex"), syn(bytesOf(address), port, from)]));
      const answer = await next(
        (frame) => frame.readUInt16BE(12) === 0x0800 && frame[23] === 6 && frame.readUInt16BE(36) === from,
      );
      return answer[47];
    };
    for (const address of [own.address, "127.0.0.1", "169.254.169.254", "8.8.8.8"])
      assert.equal(await attempt(address), 0x14, address);
    const replace = async (text: string) => {
      await writeFile(`${rules}.new`, text);
      await rename(`${rules}.new`, rules);
    };
    await replace(`allow ${own.address}/32 tcp ${port}\nallow 127.0.0.0/8 any *\ndefault deny`);
    // The filter is told by the kernel, and asked until it has heard.
    while ((await attempt(own.address)) !== 0x12);
    assert.equal(await attempt("127.0.0.1"), 0x14);
    await replace("default allow\nlocal 0.0.0.0/0");
    while ((await attempt(own.address)) !== 0x14);
    const log = await readFile(join(folder, "network.log"), "utf8");
    assert.ok(log.includes(`refused tcp 127.0.0.1:${port} by: never\n`), log);
    assert.ok(log.includes(`refused tcp ${own.address}:${port} by: private\n`), log);
  } finally {
    passt[Symbol.dispose]();
    server.close();
    await Promise.all(pids.map((pid) => processEnds(pid)));
    await rm(folder, { recursive: true });
  }
});
