/**
 * Blobs that were downloaded, by digest. One appears by a rename, whole and checked, and is checked again before each use: a disk loses
 * bits, and people clean up caches. A download that was cut off is gone on with, also by a later process.
 */
import { chmod, type FileHandle, mkdir, open, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BangerError, errnoOf } from "../contract/errors.ts";
import { abortable, type Progress } from "../contract/progress.ts";
import { hashPart } from "../host/digest.ts";
import { syncDirectory } from "../host/files.ts";
import { blobsFolder, partialBlobsFolder } from "../host/paths.ts";
import { processStartTime } from "../host/proc.ts";
import { hasherOf, parseDigest } from "./digest.ts";
import type { Descriptor } from "./manifest.ts";

/** Writes a blob into `file` from where it stands, after `hash` has taken what is there. */
export type Fetch = (target: { file: FileHandle; size: number; digest: string }, progress: Progress) => Promise<void>;

export type CachedBlob = {
  path: string;
  digest: string | undefined /** On disk, in bytes. */;
  size: number;
  lastUsed: number;
};

export type BlobCache = {
  /**
   * The blob's file, fetched when it is not there or not what it should be.
   * @throws what `fetch` throws; DISK_FULL before a download that cannot fit
   */
  get(blob: Descriptor, fetch: Fetch, progress: Progress): Promise<string>;
  /** Keeps blobs from being pruned. */
  hold(digests: readonly string[]): Disposable;
  /** What `prune` would remove: all that nobody holds, half-made downloads too. */
  unused(): Promise<CachedBlob[]>;
  prune(): Promise<CachedBlob[]>;
};

const blobFile = (digest: string): string => {
  const { algorithm, hex } = parseDigest(digest) ?? unknownDigest(digest);
  return join(blobsFolder(), algorithm, hex);
};

const unknownDigest = (digest: string): never => {
  throw new BangerError("IMAGE_REFUSED", `${JSON.stringify(digest.slice(0, 100))} is no digest`);
};

export const blobCache = (): BlobCache => {
  const running = new Map<string, Promise<unknown>>();
  const held = new Map<string, number>();

  const getAlone = async (blob: Descriptor, fetch: Fetch, progress: Progress): Promise<string> => {
    const path = blobFile(blob.digest);
    if (await isSound(path, blob, progress.signal)) return path;
    await rm(path, { force: true });
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await needRoom(dirname(path), blob.size);
    const partial = await claimPartial(blob.digest);
    try {
      const file = await open(partial, "r+");
      try {
        await fetch({ file, size: blob.size, digest: blob.digest }, progress);
        await file.sync();
      } finally {
        await file.close();
      }
      await chmod(partial, 0o444);
      await rename(partial, path);
      await syncDirectory(dirname(path));
      return path;
    } catch (error) {
      await release(partial, blob.digest);
      throw error;
    }
  };

  return {
    get: async (blob, fetch, progress) => {
      for (;;) {
        const peer = running.get(blob.digest);
        if (!peer) break;
        // Its failure, or its cancel, is not ours.
        await abortable(peer.then(ignore, ignore), progress.signal);
      }
      const own = getAlone(blob, fetch, progress).finally(() => running.delete(blob.digest));
      running.set(blob.digest, own);
      return await own;
    },
    hold: (digests) => {
      for (const digest of digests) held.set(digest, (held.get(digest) ?? 0) + 1);
      return {
        [Symbol.dispose]: () => {
          for (const digest of digests) {
            const count = (held.get(digest) ?? 1) - 1;
            if (count === 0) held.delete(digest);
            else held.set(digest, count);
          }
        },
      };
    },
    unused: () => unusedBlobs(held),
    prune: async () => {
      const removed: CachedBlob[] = [];
      for (const blob of await unusedBlobs(held)) {
        // Somebody may have begun to use it since.
        if (blob.digest !== undefined && held.has(blob.digest)) continue;
        await rm(blob.path, { force: true });
        removed.push(blob);
      }
      return removed;
    },
  };
};

const ignore = () => undefined;

/** Whether the file is there and is the blob. */
const isSound = async (path: string, { digest, size }: Descriptor, signal: AbortSignal): Promise<boolean> => {
  try {
    if ((await stat(path)).size !== size) return false;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
  return (await hashOfFile(path, digest, signal)) === digest;
};

/** The digest of a file's content, by the algorithm of another digest. */
export const hashOfFile = async (path: string, like: string, signal: AbortSignal): Promise<string> => {
  const hash = hasherOf(like);
  const file = await open(path, "r");
  try {
    await hashPart(file, hash, { start: 0, size: Number.POSITIVE_INFINITY }, signal);
  } finally {
    await file.close();
  }
  return `${like.slice(0, 6)}:${hash.digest("hex")}`;
};

/** Left free beside a download, in bytes. */
const SPARE = 64 * 2 ** 20;

const needRoom = async (folder: string, size: number): Promise<void> => {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= size + Math.min(size, SPARE)) return;
  throw new BangerError("DISK_FULL", `a layer of ${size} bytes does not fit on the disk`, {
    hint: "free some space (`banger image prune`, `banger vm prune -f`) and run the command again",
    details: { folder, size, free: bavail * bsize },
  });
};

/** `HEX`, or while a process works on it `HEX.PID.START`. */
const PARTIAL = /^((?:[0-9a-f]{64})(?:[0-9a-f]{64})?)(?:\.(\d+)\.(\d+))?$/;

const partialsOf = async (): Promise<
  { name: string; hex: string; owner: { pid: number; start: string } | undefined }[]
> => {
  const found = [];
  for (const name of await namesIn(partialBlobsFolder())) {
    const [, hex, pid, start] = PARTIAL.exec(name) ?? [];
    if (hex !== undefined) found.push({ name, hex, owner: pid && start ? { pid: Number(pid), start } : undefined });
  }
  return found;
};

const isAlive = async ({ pid, start }: { pid: number; start: string }): Promise<boolean> =>
  (await processStartTime(pid)) === start;

/** Takes up a download that somebody has left, or begins one. */
const claimPartial = async (digest: string): Promise<string> => {
  const { hex } = parseDigest(digest) ?? unknownDigest(digest);
  await mkdir(partialBlobsFolder(), { recursive: true, mode: 0o700 });
  const own = join(partialBlobsFolder(), `${hex}.${process.pid}.${(await processStartTime(process.pid)) ?? 0}`);
  for (const { name, owner } of (await partialsOf()).filter((one) => one.hex === hex)) {
    if (owner && (await isAlive(owner))) continue;
    try {
      await rename(join(partialBlobsFolder(), name), own);
      return own;
    } catch (error) {
      // Somebody else was faster.
      if (errnoOf(error) !== "ENOENT") throw error;
    }
  }
  await (await open(own, "w", 0o600)).close();
  return own;
};

const release = async (partial: string, digest: string): Promise<void> => {
  const { hex } = parseDigest(digest) ?? unknownDigest(digest);
  try {
    if ((await stat(partial)).size === 0) await rm(partial, { force: true });
    else await rename(partial, join(partialBlobsFolder(), hex));
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
};

const unusedBlobs = async (held: ReadonlyMap<string, number>): Promise<CachedBlob[]> => {
  const found: CachedBlob[] = [];
  const add = async (path: string, digest: string | undefined) => {
    try {
      const { blocks, atimeMs, mtimeMs } = await stat(path);
      found.push({ path, digest, size: blocks * 512, lastUsed: Math.max(atimeMs, mtimeMs) });
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
  };
  for (const algorithm of await namesIn(blobsFolder())) {
    for (const hex of await namesIn(join(blobsFolder(), algorithm))) {
      const digest = `${algorithm}:${hex}`;
      if (parseDigest(digest) && !held.has(digest)) await add(join(blobsFolder(), algorithm, hex), digest);
    }
  }
  for (const { name, owner } of await partialsOf()) {
    if (!owner || !(await isAlive(owner))) await add(join(partialBlobsFolder(), basename(name)), undefined);
  }
  return found;
};

const namesIn = async (folder: string): Promise<string[]> => {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
};
