import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { encodeFrame, type Frame, FrameError, frameDecoder, frameType, HEADER_BYTES, MAX_PAYLOAD } from "./frames.ts";

const types = Object.values(frameType);
const frameArbitrary = fc.record({
  type: fc.constantFrom(...types),
  channel: fc.integer({ min: 0, max: 255 }),
  epoch: fc.integer({ min: 0, max: 65535 }),
  stream: fc.integer({ min: 0, max: 0xffffffff }),
  payload: fc.uint8Array({ maxLength: 300 }),
  paddingBefore: fc.integer({ min: 0, max: 40 }),
});

const decodeAll = (chunks: readonly Uint8Array[]): Frame[] => {
  const frames: Frame[] = [];
  const decode = frameDecoder((frame) => frames.push({ ...frame, payload: new Uint8Array(frame.payload) }));
  for (const chunk of chunks) decode(chunk);
  return frames;
};

const cut = (bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] => {
  const chunks: Uint8Array[] = [];
  let at = 0;
  for (const size of sizes) {
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  chunks.push(bytes.subarray(at));
  return chunks;
};

test("frames come out as they went in, whatever the chunks and the padding between them", () => {
  fc.assert(
    fc.property(
      fc.array(frameArbitrary, { maxLength: 12 }),
      fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 60 }),
      (frames, sizes) => {
        const bytes = Buffer.concat(
          frames.flatMap(({ type, channel, epoch, stream, payload, paddingBefore }) => [
            new Uint8Array(paddingBefore),
            encodeFrame(type, stream, payload, channel, epoch),
          ]),
        );
        const expected = frames.map(({ paddingBefore, ...frame }) => frame);
        assert.deepEqual(decodeAll(cut(bytes, sizes)), expected);
      },
    ),
  );
});

test("a frame over the limit is refused before its payload is waited for", () => {
  const header = encodeFrame(frameType.data, 1);
  new DataView(header.buffer).setUint32(8, MAX_PAYLOAD + 1, true);
  assert.throws(() => decodeAll([header]), FrameError);
  assert.throws(() => encodeFrame(frameType.data, 1, new Uint8Array(MAX_PAYLOAD + 1)), FrameError);
});

test("an unknown type is refused at its first byte", () => {
  assert.throws(() => decodeAll([Uint8Array.of(11)]), FrameError);
});

test("the largest frame is taken", () => {
  const payload = new Uint8Array(MAX_PAYLOAD).fill(7);
  const [frame] = decodeAll(cut(encodeFrame(frameType.data, 3, payload), [HEADER_BYTES - 1, 1, 5]));
  assert.equal(frame?.payload.length, MAX_PAYLOAD);
});

test("random bytes either decode or raise FrameError, nothing else", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 20 }), (chunks) => {
      try {
        decodeAll(chunks);
      } catch (error) {
        assert.ok(error instanceof FrameError);
      }
    }),
  );
});
