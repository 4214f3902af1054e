/** Takes values out of what servers answer: a server that repeats what it was sent must not tell it to the guest. */
import { Transform, type TransformCallback } from "node:stream";

export type Mask = { find: Buffer; put: Buffer };

/**
 * @param value what must not pass
 * @param placeholder what stands in its place; cut or filled up to the same length, so that what counts bytes goes on to fit
 */
const maskOf = (value: string, placeholder: string): Mask => {
  const find = Buffer.from(value, "latin1");
  return { find, put: Buffer.from(placeholder.padEnd(find.length, "*").slice(0, find.length), "latin1") };
};

/** A value as servers repeat it: as it is, in JSON, in an address. The longest first, since one may hold another. */
export const masksFor = (texts: readonly { value: string; placeholder: string }[]): Mask[] => {
  const forms = texts.flatMap(({ value, placeholder }) =>
    [value, JSON.stringify(value).slice(1, -1), encodeURIComponent(value)].map((form) => ({ form, placeholder })),
  );
  const once = new Map(forms.map(({ form, placeholder }) => [form, maskOf(form, placeholder)]));
  return [...once.values()].sort((one, other) => other.find.length - one.find.length);
};

/** In place. */
const maskAll = (bytes: Buffer, masks: readonly Mask[]): void => {
  for (const { find, put } of masks)
    for (let at = bytes.indexOf(find); at >= 0; at = bytes.indexOf(find, at + find.length)) put.copy(bytes, at);
};

export const maskText = (text: string, masks: readonly Mask[]): string => {
  if (!masks.some(({ find }) => text.includes(find.toString("latin1")))) return text;
  const bytes = Buffer.from(text, "latin1");
  maskAll(bytes, masks);
  return bytes.toString("latin1");
};

/** How many bytes at the end may be the beginning of something that must not pass. */
const openEnd = (bytes: Buffer, masks: readonly Mask[]): number => {
  let most = 0;
  for (const { find } of masks) {
    const first = find[0] ?? 0;
    let at = bytes.indexOf(first, Math.max(0, bytes.length - find.length + 1));
    // The earliest that fits is the longest.
    while (at >= 0 && bytes.compare(find, 0, bytes.length - at, at) !== 0) at = bytes.indexOf(first, at + 1);
    if (at >= 0) most = Math.max(most, bytes.length - at);
  }
  return most;
};

/** The same bytes without what must not pass, wherever it is cut. Nothing is held back but what may be its beginning. */
export const masking = (masks: readonly Mask[]): Transform => {
  let kept: Buffer = Buffer.alloc(0);
  return new Transform({
    transform(chunk: Buffer, _encoding, done: TransformCallback) {
      const bytes = Buffer.concat([kept, chunk]);
      maskAll(bytes, masks);
      const end = bytes.length - openEnd(bytes, masks);
      kept = bytes.subarray(end);
      done(null, end > 0 ? bytes.subarray(0, end) : undefined);
    },
    flush(done: TransformCallback) {
      done(null, kept);
    },
  });
};
