/**
 * The frame that carries every stream of banger: between daemon and guest (docs/guest-protocol.md), and between client and daemon.
 *
 *   0 u8  type      0 = padding, skipped a byte at a time
 *   1 u8  channel   of DATA and END: 0 stdin, stdout or the only one, 1 stderr
 *   2 u16 epoch     number of the connection (guest side only, else 0)
 *   4 u32 stream    0 = the connection itself
 *   8 u32 length    payload bytes, at most MAX_PAYLOAD
 *  12 payload
 */

export const HEADER_BYTES = 12;
/** A whole frame fits the largest single write to a virtio-serial port, in bytes. */
export const MAX_FRAME = 32 * 1024;
export const MAX_PAYLOAD = MAX_FRAME - HEADER_BYTES;
/** DATA bytes a side may send on a stream before it needs CREDIT. */
export const INITIAL_CREDIT = 256 * 1024;
/** Largest OPEN request, all its parts together, in bytes. */
export const MAX_REQUEST = 4 * 1024 * 1024;

export const frameType = {
  sync: 1,
  hello: 2,
  open: 3,
  opened: 4,
  data: 5,
  end: 6,
  credit: 7,
  control: 8,
  close: 9,
  event: 10,
} as const;
export type FrameType = (typeof frameType)[keyof typeof frameType];
const LAST_TYPE = 10;

export type Frame = {
  type: FrameType;
  channel: number;
  epoch: number;
  stream: number;
  /** A view of the bytes that were received: valid as long as that chunk. */
  payload: Uint8Array;
};

/** Raised by the decoder; ends the connection it came on. */
export class FrameError extends Error {
  override readonly name = "FrameError";
}

const empty = new Uint8Array(0);

/** Header bytes of a frame whose payload is sent after it. */
export const encodeHeader = (type: FrameType, stream: number, length: number, channel = 0, epoch = 0): Uint8Array => {
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  header[0] = type;
  header[1] = channel;
  view.setUint16(2, epoch, true);
  view.setUint32(4, stream, true);
  view.setUint32(8, length, true);
  return header;
};

/** A whole frame in one buffer; the payload is copied. */
export const encodeFrame = (
  type: FrameType,
  stream: number,
  payload: Uint8Array = empty,
  channel = 0,
  epoch = 0,
): Uint8Array => {
  if (payload.length > MAX_PAYLOAD) throw new FrameError(`payload of ${payload.length} bytes is over ${MAX_PAYLOAD}`);
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  frame.set(encodeHeader(type, stream, payload.length, channel, epoch));
  frame.set(payload, HEADER_BYTES);
  return frame;
};

/**
 * A decoder of a byte stream that comes in chunks of any size.
 * @returns a function that takes a chunk and calls `onFrame` for each frame completed by it
 * @throws FrameError (from that function) on an unknown type or a length over MAX_PAYLOAD; the stream cannot go on after it
 */
export const frameDecoder = (onFrame: (frame: Frame) => void): ((chunk: Uint8Array) => void) => {
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  let headerFill = 0;
  let body: Uint8Array | undefined;
  let bodyFill = 0;

  const emit = (payload: Uint8Array) => {
    headerFill = 0;
    body = undefined;
    onFrame({
      type: header[0] as FrameType,
      channel: header[1] ?? 0,
      epoch: view.getUint16(2, true),
      stream: view.getUint32(4, true),
      payload,
    });
  };

  const readHeader = (chunk: Uint8Array, start: number): number => {
    let at = start;
    while (headerFill === 0 && at < chunk.length && chunk[at] === 0) at++;
    const take = Math.min(HEADER_BYTES - headerFill, chunk.length - at);
    header.set(chunk.subarray(at, at + take), headerFill);
    headerFill += take;
    if (headerFill > 0 && (header[0] ?? 0) > LAST_TYPE) throw new FrameError(`unknown frame type ${header[0]}`);
    return at + take;
  };

  return (chunk) => {
    let at = 0;
    while (at < chunk.length) {
      if (headerFill < HEADER_BYTES) {
        at = readHeader(chunk, at);
        if (headerFill < HEADER_BYTES) return;
        const length = view.getUint32(8, true);
        if (length > MAX_PAYLOAD) throw new FrameError(`frame of ${length} bytes is over ${MAX_PAYLOAD}`);
        if (chunk.length - at >= length) {
          at += length;
          emit(chunk.subarray(at - length, at));
          continue;
        }
        body = new Uint8Array(length);
        bodyFill = 0;
      }
      if (!body) return;
      const take = Math.min(body.length - bodyFill, chunk.length - at);
      body.set(chunk.subarray(at, at + take), bodyFill);
      bodyFill += take;
      at += take;
      if (bodyFill === body.length) emit(body);
    }
  };
};

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const encodeJson = (value: unknown): Uint8Array => encoder.encode(JSON.stringify(value));

/** @throws FrameError when the bytes are not JSON */
export const decodeJson = (payload: Uint8Array): unknown => {
  try {
    return JSON.parse(decoder.decode(payload));
  } catch (error) {
    throw new FrameError("payload is not JSON", { cause: error });
  }
};

export const encodeCredit = (bytes: number): Uint8Array => {
  const payload = new Uint8Array(4);
  new DataView(payload.buffer).setUint32(0, bytes, true);
  return payload;
};

/** @throws FrameError when the payload is not four bytes */
export const decodeCredit = (payload: Uint8Array): number => {
  if (payload.length !== 4) throw new FrameError(`CREDIT of ${payload.length} bytes`);
  return new DataView(payload.buffer, payload.byteOffset, 4).getUint32(0, true);
};
