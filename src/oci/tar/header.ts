/** One 512-byte header of a tar archive: V7, ustar, GNU. Names stay bytes, as latin1 strings. */
import { TarError } from "./error.ts";

export const BLOCK = 512;

export type RawHeader = {
  name: string;
  link: string;
  mode: number;
  uid: number;
  gid: number;
  /** Bytes that follow the header. */
  size: number;
  /** Seconds since 1970. */
  mtime: number;
  /** The type flag, one character. */
  type: string;
  major: number;
  minor: number;
};

const CHECKSUM_AT = 148;
const CHECKSUM_LENGTH = 8;

/**
 * @returns undefined for a block of zeros, which marks the end
 * @throws TarError when the checksum or a number is wrong
 */
export const parseHeader = (block: Buffer): RawHeader | undefined => {
  if (!checksumHolds(block)) {
    if (isZero(block)) return undefined;
    throw new TarError("corrupt", "the header's checksum is wrong: this is no tar archive, or it is damaged");
  }
  const magic = block.toString("latin1", 257, 265);
  const name = text(block, 0, 100);
  const prefix = magic.startsWith("ustar\0") ? text(block, 345, 500) : "";
  const devices = magic.startsWith("ustar");
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    link: text(block, 157, 257),
    mode: number(block, 100, 108, "mode") & 0o7777,
    uid: number(block, 108, 116, "uid"),
    gid: number(block, 116, 124, "gid"),
    size: number(block, 124, 136, "size"),
    mtime: number(block, 136, 148, "mtime"),
    type: String.fromCharCode(block[156] ?? 0),
    major: devices ? number(block, 329, 337, "device") : 0,
    minor: devices ? number(block, 337, 345, "device") : 0,
  };
};

const isZero = (block: Buffer): boolean => {
  for (let i = 0; i < BLOCK; i++) if (block[i] !== 0) return false;
  return true;
};

/** The sum of all bytes, with the sum's own field as spaces. Some old programs added signed bytes. */
const checksumHolds = (block: Buffer): boolean => {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += block[i] ?? 0;
  for (let i = CHECKSUM_AT; i < CHECKSUM_AT + CHECKSUM_LENGTH; i++) sum -= block[i] ?? 0;
  sum += CHECKSUM_LENGTH * 0x20;
  const stored = octal(block, CHECKSUM_AT, CHECKSUM_AT + CHECKSUM_LENGTH);
  if (stored === sum) return true;
  if (stored === undefined) return false;
  let signed = CHECKSUM_LENGTH * 0x20;
  for (let i = 0; i < BLOCK; i++)
    if (i < CHECKSUM_AT || i >= CHECKSUM_AT + CHECKSUM_LENGTH) signed += block.readInt8(i);
  return stored === signed;
};

const text = (block: Buffer, from: number, to: number): string => {
  const end = block.indexOf(0, from);
  return block.toString("latin1", from, end < 0 || end > to ? to : end);
};

/** Digits between spaces and NULs; undefined for anything else. */
const octal = (block: Buffer, from: number, to: number): number | undefined => {
  let at = from;
  while (at < to && (block[at] === 0x20 || block[at] === 0)) at++;
  let value = 0;
  for (; at < to; at++) {
    const byte = block[at] ?? 0;
    if (byte === 0x20 || byte === 0) break;
    if (byte < 0x30 || byte > 0x37) return undefined;
    value = value * 8 + (byte - 0x30);
  }
  for (; at < to; at++) if (block[at] !== 0x20 && block[at] !== 0) return undefined;
  return value;
};

/** An octal number, or GNU's base 256: first bit set, two's complement over the rest. */
const number = (block: Buffer, from: number, to: number, what: string): number => {
  const first = block[from] ?? 0;
  if (!(first & 0x80)) {
    const value = octal(block, from, to);
    if (value !== undefined && Number.isSafeInteger(value)) return value;
    throw new TarError("corrupt", `the header's ${what} is no number`);
  }
  let value = first & 0x40 ? BigInt(first & 0x7f) - 0x80n : BigInt(first & 0x7f);
  for (let i = from + 1; i < to; i++) value = value * 256n + BigInt(block[i] ?? 0);
  const result = Number(value);
  if (Number.isSafeInteger(result)) return result;
  throw new TarError("refused", `the header's ${what} is out of range`);
};

/** The number in base 256 or octal at another place of a header, for GNU's sparse maps. */
export const numberAt = (block: Buffer, from: number): number => number(block, from, from + 12, "sparse map");
