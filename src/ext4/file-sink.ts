/** The content of one file, on its way to the disk. */
import type { BangerError } from "../contract/errors.ts";
import type { BlockStream } from "./block-stream.ts";
import type { Extents } from "./extents.ts";
import { BLOCK_SIZE } from "./layout.ts";
import { refused, show } from "./tree.ts";

export type FileSink = {
  /** The next bytes. They may be used again once this returned, or what it returned is settled. */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /** So many zero bytes, which take no space. */
  hole(bytes: number): Promise<void> | undefined;
  /** @throws IMAGE_INVALID when the file did not get as many bytes as it was said to have */
  end(): Promise<void>;
};

export type SinkTarget = { path: string; size: number; stream: BlockStream; extents: Extents };

const zeros = Buffer.alloc(BLOCK_SIZE);

const isZero = (bytes: Uint8Array, at: number): boolean =>
  bytes[at] === 0 &&
  bytes[at + BLOCK_SIZE - 1] === 0 &&
  bytes[at + BLOCK_SIZE / 2] === 0 &&
  zeros.compare(bytes, at, at + BLOCK_SIZE) === 0;

/** @param onEnd stores what `extents` has gathered */
export const openSink = ({ path, size, stream, extents }: SinkTarget, onEnd: () => Promise<void>): FileSink => {
  /** Bytes that came. */
  let received = 0;
  /** The block of the file that comes next. */
  let logical = 0;
  /** Bytes of it that lie in the stream's buffer already. */
  let pending = 0;

  const commit = (blocks: number): void => {
    extents.add(logical, stream.next(), blocks);
    stream.commit(blocks);
    logical += blocks;
  };

  const finishPending = (): void => {
    if (isZero(stream.buffer(), stream.offset())) logical++;
    else commit(1);
    pending = 0;
  };

  /** Takes what it can without waiting; returns how much. */
  const take = (chunk: Uint8Array, from: number): number => {
    let at = from;
    while (at < chunk.length) {
      if (pending > 0 || chunk.length - at < BLOCK_SIZE) {
        if (pending === 0 && stream.room() === 0) break;
        const count = Math.min(BLOCK_SIZE - pending, chunk.length - at);
        stream.buffer().set(chunk.subarray(at, at + count), stream.offset() + pending);
        pending += count;
        at += count;
        if (pending === BLOCK_SIZE) finishPending();
        continue;
      }
      if (isZero(chunk, at)) {
        logical++;
        at += BLOCK_SIZE;
        continue;
      }
      const room = stream.room();
      if (room === 0) break;
      const most = Math.min(room, Math.floor((chunk.length - at) / BLOCK_SIZE));
      let blocks = 1;
      while (blocks < most && !isZero(chunk, at + blocks * BLOCK_SIZE)) blocks++;
      stream.buffer().set(chunk.subarray(at, at + blocks * BLOCK_SIZE), stream.offset());
      commit(blocks);
      at += blocks * BLOCK_SIZE;
    }
    return at;
  };

  const takeRest = async (chunk: Uint8Array, from: number): Promise<void> => {
    for (let at = from; at < chunk.length; at = take(chunk, at)) await stream.flush();
  };

  const count = (bytes: number): void => {
    received += bytes;
    if (received > size) throw wrongSize(path, size, "more");
  };

  const write = (chunk: Uint8Array): Promise<void> | undefined => {
    count(chunk.length);
    const taken = take(chunk, 0);
    return taken === chunk.length ? undefined : takeRest(chunk, taken);
  };

  const leaveHole = async (bytes: number): Promise<void> => {
    count(bytes);
    const head = pending === 0 ? 0 : Math.min(BLOCK_SIZE - pending, bytes);
    await takeRest(zeros.subarray(0, head), take(zeros.subarray(0, head), 0));
    const blocks = Math.floor((bytes - head) / BLOCK_SIZE);
    logical += blocks;
    const tail = bytes - head - blocks * BLOCK_SIZE;
    await takeRest(zeros.subarray(0, tail), take(zeros.subarray(0, tail), 0));
  };

  return {
    write,
    hole: leaveHole,
    async end() {
      if (received !== size) throw wrongSize(path, size, `${received}`);
      if (pending > 0) {
        stream.buffer().fill(0, stream.offset() + pending, stream.offset() + BLOCK_SIZE);
        finishPending();
      }
      await onEnd();
    },
  };
};

const wrongSize = (path: string, size: number, got: string): BangerError =>
  refused(path, `${got} bytes came, and ${size} were announced for ${show(path)}`);
