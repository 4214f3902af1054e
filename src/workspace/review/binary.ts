/** `GIT binary patch`: contents in base 85 and deflated, whole (literal) or as a difference from what was there (delta). */
import { createInflate } from "node:zlib";
import { BangerError } from "../../contract/errors.ts";

export type Binary = {
  kind: "literal" | "delta" /** Of the data, in bytes. */;
  size: number /** Deflated. */;
  packed: Buffer;
};

type Lines = { peek(): string | undefined; next(): string; done(): boolean };

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
const VALUES = new Map([...ALPHABET].map((letter, value) => [letter, value]));
/** A file may have so many bytes. */
const MOST = 1024 * 1024 * 1024;

/** @param fail makes the error for what is malformed */
export const readBinary = (lines: Lines, fail: (what: string) => Error): Binary => {
  const forward = readPart(lines, fail);
  // The way back, which nobody takes.
  if (!lines.done()) readPart(lines, fail);
  return forward;
};

const readPart = (lines: Lines, fail: (what: string) => Error): Binary => {
  const [, kind, size] = /^(literal|delta) (\d{1,10})$/.exec(lines.next()) ?? [];
  if (kind !== "literal" && kind !== "delta") throw fail("binary contents of an unknown kind");
  if (Number(size) > MOST) throw fail(`a file of more than ${MOST} bytes`);
  const parts: Buffer[] = [];
  for (let line = lines.next(); line !== ""; line = lines.done() ? "" : lines.next())
    parts.push(decodeLine(line, fail));
  return { kind, size: Number(size), packed: Buffer.concat(parts) };
};

/** A letter for the number of bytes, then five letters for each four. */
const decodeLine = (line: string, fail: (what: string) => Error): Buffer => {
  const code = line.charCodeAt(0);
  const length = code >= 97 && code <= 122 ? code - 97 + 27 : code >= 65 && code <= 90 ? code - 65 + 1 : 0;
  if (length === 0 || line.length !== 1 + 5 * Math.ceil(length / 4)) throw fail("a binary line of a wrong length");
  const bytes = Buffer.alloc(4 * Math.ceil(length / 4));
  for (let at = 1, to = 0; at < line.length; at += 5, to += 4) {
    let value = 0;
    for (const letter of line.slice(at, at + 5)) {
      const digit = VALUES.get(letter);
      if (digit === undefined) throw fail("a binary line with a wrong letter");
      value = value * 85 + digit;
    }
    if (value > 0xffffffff) throw fail("a binary line with a wrong number");
    bytes.writeUInt32BE(value, to);
  }
  return bytes.subarray(0, length);
};

const damaged = (): BangerError => new BangerError("GUEST_ERROR", "the VM's patch has damaged binary contents");

/** @param old what the change was made from @throws GUEST_ERROR */
export const contentOf = async ({ kind, size, packed }: Binary, old: Buffer): Promise<Buffer> => {
  const data = await inflated(packed, size);
  return kind === "literal" ? data : applyDelta(data, old);
};

/** Never more than was announced, whatever the data would grow to. */
const inflated = async (packed: Buffer, size: number): Promise<Buffer> => {
  const inflate = createInflate();
  const chunks: Buffer[] = [];
  let length = 0;
  inflate.end(packed);
  try {
    for await (const chunk of inflate) {
      length += (chunk as Buffer).length;
      if (length > size) throw damaged();
      chunks.push(chunk as Buffer);
    }
  } catch (error) {
    if (error instanceof BangerError) throw error;
    throw damaged();
  }
  if (length !== size) throw damaged();
  return Buffer.concat(chunks);
};

/** git's form: sizes of both, then copies from the old and bytes of its own. */
const applyDelta = (delta: Buffer, old: Buffer): Buffer => {
  let at = 0;
  const byte = (): number => {
    const value = delta[at++];
    if (value === undefined) throw damaged();
    return value;
  };
  const varint = (): number => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const next = byte();
      value += (next & 127) * shift;
      if (value > MOST) throw damaged();
      if (next < 128) return value;
    }
  };
  if (varint() !== old.length) throw damaged();
  const size = varint();
  const result = Buffer.alloc(size);
  let filled = 0;
  const put = (part: Buffer): void => {
    if (filled + part.length > size) throw damaged();
    part.copy(result, filled);
    filled += part.length;
  };
  while (at < delta.length) {
    const command = byte();
    if (command === 0) throw damaged();
    if (command < 128) {
      if (at + command > delta.length) throw damaged();
      put(delta.subarray(at, at + command));
      at += command;
      continue;
    }
    let offset = 0;
    let length = 0;
    for (let bit = 0; bit < 4; bit++) if (command & (1 << bit)) offset += byte() * 256 ** bit;
    for (let bit = 0; bit < 3; bit++) if (command & (16 << bit)) length += byte() * 256 ** bit;
    length ||= 0x10000;
    if (offset + length > old.length) throw damaged();
    put(old.subarray(offset, offset + length));
  }
  if (filled !== size) throw damaged();
  return result;
};
