/**
 * Limits for processes by the user's own systemd: a scope, which is a control group of theirs. Asked of it by one D-Bus message over the socket that
 * `systemctl --user` uses, since a program that asks would take longer than all else that a start waits for.
 *
 *     client -> systemd   "\0AUTH EXTERNAL uid in hex of its digits\r\n"
 *     systemd -> client   "OK guid\r\n"
 *     client -> systemd   "BEGIN\r\n", then StartTransientUnit(name, "fail", properties, [])
 *     systemd -> client   a return, or an error with a word for people
 */
import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { BangerError } from "../contract/errors.ts";
import { connectTo } from "./sockets.ts";

export type Scope = {
  /** Without `.scope`; letters, digits and hyphens. */
  name: string;
  description: string;
  /** Processes to put into it. */
  pids: readonly number[];
  /** Most memory, in bytes. */
  memory: number;
  /** Most processes and threads. */
  tasks: number;
};

/**
 * Whether this process runs under its user's systemd. One that does not, in a session of ssh say, would bind the life of others to that systemd, which
 * ends with the user's last session.
 * @param groups as /proc/self/cgroup has them
 */
export const isUnderUserSystemd = (groups: string, uid: number): boolean =>
  groups.split("\n").some((line) => line.startsWith("0::/") && line.includes(`/user@${uid}.service/`));

/**
 * Moves processes into a scope of their own, where the user's systemd can be asked to.
 * @returns whether it was
 * @throws TOOL_FAILED with systemd's words
 */
export const moveToScope = async (scope: Scope, signal: AbortSignal): Promise<boolean> => {
  const uid = process.getuid?.() ?? 0;
  const runtime = process.env.XDG_RUNTIME_DIR;
  if (!runtime || !isUnderUserSystemd(await readFile("/proc/self/cgroup", "utf8"), uid)) return false;
  const socket = await connectTo(join(runtime, "systemd", "private"));
  const onAbort = () => void socket.destroy();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const hex = Buffer.from(String(uid)).toString("hex");
    socket.write(`\0AUTH EXTERNAL ${hex}\r\n`);
    const read = reader(socket);
    const greeting = await read((received) => {
      const end = received.indexOf("\r\n");
      return end < 0 ? undefined : end + 2;
    });
    if (!greeting.toString("latin1").startsWith("OK ")) throw refused(greeting.toString("latin1").trim());
    socket.write(Buffer.concat([Buffer.from("BEGIN\r\n"), startScope(scope)]));
    for (;;) {
      const { type, body } = answer(await read(messageLength));
      if (type === METHOD_RETURN) return true;
      if (type === ERROR) throw refused(body.toString("utf8", 4, 4 + body.readUInt32LE(0)));
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    socket.destroy();
  }
};

const refused = (words: string) => new BangerError("TOOL_FAILED", `systemd has refused a scope: ${words}`);

const LITTLE_ENDIAN = 0x6c;
const METHOD_CALL = 1;
const METHOD_RETURN = 2;
const ERROR = 3;
/** Of a message, without its fields: byte order, type, flags, version, length of the body, serial, length of the fields. */
const FIXED = 16;
/** Longest message taken, in bytes. */
const MAX_MESSAGE = 64 * 1024;

const align = (length: number, to: number): number => Math.ceil(length / to) * to;

/** Bytes of the first message, once they can be told. */
const messageLength = (received: Buffer): number | undefined =>
  received.length < FIXED ? undefined : FIXED + align(received.readUInt32LE(12), 8) + received.readUInt32LE(4);

const answer = (message: Buffer): { type: number; body: Buffer } => ({
  type: message.readUInt8(1),
  body: message.subarray(FIXED + align(message.readUInt32LE(12), 8)),
});

type Read = (lengthOf: (received: Buffer) => number | undefined) => Promise<Buffer>;

/** Reads piece by piece. @throws when the socket ends before, or a piece is longer than any */
const reader = (socket: Socket): Read => {
  let received = Buffer.alloc(0);
  const pieces = socket[Symbol.asyncIterator]();
  return async (lengthOf) => {
    for (;;) {
      const length = lengthOf(received);
      if ((length ?? received.length) > MAX_MESSAGE) throw refused("an answer that is too long");
      if (length !== undefined && received.length >= length) {
        const piece = received.subarray(0, length);
        received = received.subarray(length);
        return piece;
      }
      const next = await pieces.next();
      if (next.done) throw refused("it has hung up");
      received = Buffer.concat([received, next.value as Buffer]);
    }
  };
};

/** Writes values as D-Bus aligns them: each at a multiple of its size, structures at 8. */
const marshal = () => {
  let bytes = Buffer.alloc(0);
  const pad = (to: number) => {
    bytes = Buffer.concat([bytes, Buffer.alloc(align(bytes.length, to) - bytes.length)]);
  };
  const raw = (more: Buffer) => {
    bytes = Buffer.concat([bytes, more]);
  };
  const uint32 = (value: number) => {
    pad(4);
    const four = Buffer.alloc(4);
    four.writeUInt32LE(value);
    raw(four);
  };
  const uint64 = (value: number) => {
    pad(8);
    const eight = Buffer.alloc(8);
    eight.writeBigUInt64LE(BigInt(value));
    raw(eight);
  };
  const string = (text: string) => {
    uint32(Buffer.byteLength(text));
    raw(Buffer.from(`${text}\0`));
  };
  const signature = (text: string) => raw(Buffer.from([text.length, ...Buffer.from(text), 0]));
  /** Its length is that of what `fill` writes, without the padding before it. */
  const array = (to: number, fill: () => void) => {
    uint32(0);
    const at = bytes.length - 4;
    pad(to);
    const start = bytes.length;
    fill();
    bytes.writeUInt32LE(bytes.length - start, at);
  };
  return { raw, pad, uint32, uint64, string, signature, array, bytes: () => bytes };
};

const startScope = ({ name, description, pids, memory, tasks }: Scope): Buffer => {
  const body = marshal();
  const property = (key: string, signature: string, value: () => void) => {
    body.pad(8);
    body.string(key);
    body.signature(signature);
    value();
  };
  body.string(`${name}.scope`);
  body.string("fail");
  body.array(8, () => {
    property("Description", "s", () => body.string(description));
    property("PIDs", "au", () =>
      body.array(4, () => {
        for (const pid of pids) body.uint32(pid);
      }),
    );
    property("MemoryMax", "t", () => body.uint64(memory));
    property("TasksMax", "t", () => body.uint64(tasks));
    // One that failed is not kept to be looked at.
    property("CollectMode", "s", () => body.string("inactive-or-failed"));
  });
  body.array(8, () => undefined);

  const message = marshal();
  const field = (code: number, signature: string, value: () => void) => {
    message.pad(8);
    message.raw(Buffer.from([code]));
    message.signature(signature);
    value();
  };
  const length = Buffer.alloc(4);
  length.writeUInt32LE(body.bytes().length);
  message.raw(Buffer.concat([Buffer.from([LITTLE_ENDIAN, METHOD_CALL, 0, 1]), length, Buffer.from([1, 0, 0, 0])]));
  message.array(8, () => {
    field(1, "o", () => message.string("/org/freedesktop/systemd1"));
    field(2, "s", () => message.string("org.freedesktop.systemd1.Manager"));
    field(3, "s", () => message.string("StartTransientUnit"));
    field(6, "s", () => message.string("org.freedesktop.systemd1"));
    field(8, "g", () => message.signature("ssa(sv)a(sa(sv))"));
  });
  message.pad(8);
  message.raw(body.bytes());
  return message.bytes();
};
