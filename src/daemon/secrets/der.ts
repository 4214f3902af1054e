/** What X.509 is written in: DER (ITU-T X.690), as much as a certificate of ours needs. */

const lengthOf = (length: number): Uint8Array => {
  if (length < 0x80) return Uint8Array.of(length);
  const bytes: number[] = [];
  for (let rest = length; rest > 0; rest >>>= 8) bytes.unshift(rest & 0xff);
  return Uint8Array.of(0x80 | bytes.length, ...bytes);
};

const element = (tag: number, ...contents: readonly Uint8Array[]): Buffer => {
  const body = Buffer.concat(contents);
  return Buffer.concat([Uint8Array.of(tag), lengthOf(body.length), body]);
};

export const sequence = (...items: readonly Uint8Array[]): Buffer => element(0x30, ...items);
export const set = (...items: readonly Uint8Array[]): Buffer => element(0x31, ...items);
export const boolean = (value: boolean): Buffer => element(0x01, Uint8Array.of(value ? 0xff : 0));
export const octets = (bytes: Uint8Array): Buffer => element(0x04, bytes);
/** @param unused bits at the end of the last byte */
export const bits = (bytes: Uint8Array, unused = 0): Buffer => element(0x03, Uint8Array.of(unused), bytes);
export const utf8 = (text: string): Buffer => element(0x0c, Buffer.from(text));
/** `[number]` around a whole element. */
export const explicit = (number: number, content: Uint8Array): Buffer => element(0xa0 | number, content);
/** `[number]` in place of an element's own tag. */
export const implicit = (number: number, content: Uint8Array): Buffer => element(0x80 | number, content);

/** A number that is not negative, by its bytes, the highest first. */
export const integer = (bytes: Uint8Array): Buffer => {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  const rest = bytes.subarray(start);
  return element(0x02, ...((rest[0] ?? 0) >= 0x80 ? [Uint8Array.of(0)] : []), rest);
};

/** @param text as `1.2.840.10045.4.3.2` */
export const identifier = (text: string): Buffer => {
  const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
  const encoded = [first * 40 + second, ...rest].flatMap((part) => {
    const groups = [part & 0x7f];
    for (let left = part >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80);
    return groups;
  });
  return element(0x06, Uint8Array.from(encoded));
};

/** UTCTime before 2050, GeneralizedTime from then on (RFC 5280, 4.1.2.5). */
export const time = (date: Date): Buffer => {
  const digits = date.toISOString().replace(/\.\d+/, "").replace(/[-:T]/g, "");
  return date.getUTCFullYear() < 2050
    ? element(0x17, Buffer.from(digits.slice(2)))
    : element(0x18, Buffer.from(digits));
};
