/** One file from an address into the cache: gone on with where it broke off, never longer than announced, its digest checked. */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, mkdir, open, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { BundleSource } from "../../contract/bundles.ts";
import { BangerError, errnoOf, toBangerError } from "../../contract/errors.ts";
import { abortError, type Progress, throwIfAborted } from "../../contract/progress.ts";
import { hashPresent } from "../../host/digest.ts";
import { readFileIfThere } from "../../host/files.ts";
import { downloadsFolder } from "../../host/paths.ts";
import { http, type HttpResponse } from "../../oci/registry/http.ts";

export type Download = Pick<BundleSource, "url" | "sha256" | "size">;

export type DownloadOptions = {
  /** Attempts in a row that bring not a single byte. */
  attempts?: number | undefined;
  /** Before the second attempt, doubled for each further one, in ms. */
  pause?: number | undefined;
  /** No byte for so long means that nothing will come any more, in ms. */
  idleLimit?: number | undefined;
};

export type Downloaded = AsyncDisposable & {
  /** Open for reading; closed when disposed. */
  file: FileHandle;
  /** Removes what was downloaded, once it is of no use any more. A file of the user's own stays. */
  forget(): Promise<void>;
};

const told =
  ({ size }: Download, { report }: Progress) =>
  (done: number) =>
    report({ stage: "download", done, total: size, unit: "bytes" });

/**
 * Fetches a file. What is here of it already is not fetched again.
 * @throws DOWNLOAD_FAILED, DISK_FULL, the signal's error
 */
export const download = async (
  wanted: Download,
  progress: Progress,
  options: DownloadOptions = {},
): Promise<Downloaded> => {
  if (URL.parse(wanted.url)?.protocol === "file:") return await openLocal(wanted, progress);
  const part = join(downloadsFolder(), `${wanted.sha256}.part`);
  await mkdir(downloadsFolder(), { recursive: true, mode: 0o700 });
  const file = await open(part, "a+", 0o600);
  const forget = async () => {
    await rm(part, { force: true });
    await rm(`${part}.etag`, { force: true });
  };
  try {
    const hash = await fetchInto(file, `${part}.etag`, wanted, progress, options);
    if (hash.digest("hex") !== wanted.sha256) {
      await forget();
      throw failed(wanted, "it is not what the catalog says: its digest is another", {
        hint: "the file was changed or damaged where it lies; tell whoever made the catalog",
      });
    }
    return { file, forget, [Symbol.asyncDispose]: () => file.close() };
  } catch (error) {
    await file.close();
    throw progress.signal.aborted ? abortError(progress.signal) : toBangerError(error);
  }
};

const openLocal = async (wanted: Download, progress: Progress): Promise<Downloaded> => {
  const file = await openUserFile(wanted);
  try {
    const { size } = await file.stat();
    if (size !== wanted.size) throw failed(wanted, `it has ${size} bytes in place of ${wanted.size}`);
    const hash = createHash("sha256");
    await hashPresent(file, hash, size, progress.signal, told(wanted, progress));
    if (hash.digest("hex") !== wanted.sha256)
      throw failed(wanted, "it is not what the catalog says: its digest is another");
    return { file, forget: async () => undefined, [Symbol.asyncDispose]: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
};

const openUserFile = async (wanted: Download): Promise<FileHandle> => {
  try {
    return await open(fileURLToPath(wanted.url), "r");
  } catch (error) {
    const why = errnoOf(error) === "ENOENT" ? "there is no such file" : toBangerError(error).message;
    throw failed(wanted, why, { cause: error });
  }
};

/** @returns the hash of all that is in the file then */
const fetchInto = async (
  file: FileHandle,
  tagFile: string,
  wanted: Download,
  progress: Progress,
  { attempts = 4, pause = 500, idleLimit }: DownloadOptions,
): Promise<Hash> => {
  const client = http(idleLimit === undefined ? {} : { idleLimit });
  const tell = told(wanted, progress);
  let hash = createHash("sha256");
  let have = await hashPresent(file, hash, wanted.size, progress.signal, tell);
  const restart = async () => {
    hash = createHash("sha256");
    have = 0;
    await file.truncate(0);
  };
  for (let barren = 0; have < wanted.size; ) {
    const before = have;
    try {
      const tag = have === 0 ? undefined : await readFileIfThere(tagFile);
      const range: Record<string, string> =
        have === 0 ? {} : { range: `bytes=${have}-`, ...(tag === undefined ? {} : { "if-range": tag }) };
      const response = await client.send({
        url: new URL(wanted.url),
        headers: range,
        insecure: wanted.url.startsWith("http:"),
        signal: progress.signal,
      });
      try {
        const start = startOf(response, have, wanted);
        if (start !== have) await restart();
        if (start === undefined) throw failed(wanted, `it has fewer than the ${wanted.size} bytes announced`);
        await keepTag(tagFile, response);
        for await (const chunk of response.body) {
          if (have + chunk.length > wanted.size)
            throw failed(wanted, `it has more than the ${wanted.size} bytes announced`);
          await file.appendFile(chunk);
          hash.update(chunk);
          have += chunk.length;
          tell(have);
        }
      } finally {
        response.body.destroy();
      }
      if (have < wanted.size) throw new BangerError("REGISTRY_UNREACHABLE", "the connection broke off");
    } catch (error) {
      throwIfAborted(progress.signal);
      if (!mayPass(error)) throw error;
      barren = have > before ? 0 : barren + 1;
      if (barren >= attempts) throw gaveUp(wanted, error, have);
      await sleep(pause * 2 ** Math.max(0, barren - 1), undefined, { signal: progress.signal }).catch(() =>
        throwIfAborted(progress.signal),
      );
    }
  }
  return hash;
};

/** Where the answer's bytes belong; undefined when the server takes what is here for something else. */
const startOf = ({ status, headers }: HttpResponse, have: number, wanted: Download): number | undefined => {
  if (status === 200) return 0;
  if (status === 206) {
    const start = /^bytes (\d+)-/.exec(headers["content-range"] ?? "")?.[1];
    if (Number(start) === have) return have;
    throw failed(wanted, `the server sent bytes from ${start} on, and was asked for ${have}`);
  }
  if (status === 416 && have > 0) return undefined;
  if (status === 429 || status >= 500) throw new BangerError("REGISTRY_UNREACHABLE", `the server answered ${status}`);
  throw failed(wanted, `the server answered ${status}`);
};

/** A strong tag makes the server send all anew when the file has changed. */
const keepTag = async (tagFile: string, { headers }: HttpResponse): Promise<void> => {
  const tag = headers.etag;
  if (tag !== undefined && /^"[\x21-\x7e]{1,200}"$/.test(tag)) await writeFile(tagFile, tag);
  else await rm(tagFile, { force: true });
};

/** Whether another attempt may do better: the connection failed, not the disk, and not the file. */
const mayPass = (error: unknown): boolean =>
  error instanceof BangerError
    ? error.code === "REGISTRY_UNREACHABLE"
    : error instanceof Error && !("syscall" in error && error.syscall === "write");

const gaveUp = (wanted: Download, error: unknown, have: number): BangerError =>
  failed(wanted, error instanceof Error ? error.message : String(error), {
    hint: `run the command again: the ${have} of ${wanted.size} bytes that are here are kept`,
    cause: error,
  });

const failed = (wanted: Download, why: string, options: { hint?: string; cause?: unknown } = {}): BangerError =>
  new BangerError("DOWNLOAD_FAILED", `${shownUrl(wanted.url)} could not be had: ${why}`, {
    hint: options.hint ?? "check the address in the catalog, and run the command again",
    cause: options.cause,
  });

/** An address without a password. */
const shownUrl = (address: string): string => {
  const url = new URL(address);
  url.username = "";
  url.password = "";
  return url.href;
};
