/** One blob from a registry into a file: gone on with where it broke off, checked against its digest, never longer than announced. */
import { setTimeout as sleep } from "node:timers/promises";
import { BangerError } from "../../contract/errors.ts";
import { abortError, throwIfAborted } from "../../contract/progress.ts";
import { hashPresent } from "../../host/digest.ts";
import { writeWhole } from "../../host/whole.ts";
import type { Fetch } from "../blob-cache.ts";
import { hasherOf } from "../digest.ts";
import type { Descriptor } from "../manifest.ts";
import type { Reference } from "../reference.ts";
import type { RegistryClient } from "./client.ts";
import type { DownloadOptions } from "./download-options.ts";

/** @returns what the blob cache calls for a blob that it lacks */
export const downloader =
  (registry: RegistryClient, reference: Reference, blob: Descriptor, options: DownloadOptions = {}): Fetch =>
  async ({ file }, progress) => {
    const { attempts = 4, pause = 500 } = options;
    let hash = hasherOf(blob.digest);
    let have = await hashPresent(file, hash, blob.size, progress.signal);
    let barren = 0;
    while (have < blob.size || blob.size === 0) {
      const before = have;
      try {
        const { response, offset } = await registry.blob(reference, blob, have, progress.signal);
        if (offset !== have) {
          // It does not do ranges, or not ours.
          if (offset !== 0) throw broken(reference, blob, `it sent bytes from ${offset} on, and was asked for ${have}`);
          hash = hasherOf(blob.digest);
          have = 0;
          await file.truncate(0);
        }
        try {
          for await (const chunk of response.body) {
            if (have + chunk.length > blob.size)
              throw broken(reference, blob, `it sent more than the ${blob.size} bytes announced`);
            await writeWhole(file, chunk, have);
            hash.update(chunk);
            have += chunk.length;
            progress.report({ stage: "download", done: have, total: blob.size, unit: "bytes" });
          }
        } finally {
          response.body.destroy();
        }
        if (have < blob.size)
          throw new BangerError(
            "REGISTRY_UNREACHABLE",
            `${reference.registry} broke off after ${have} of ${blob.size} bytes`,
          );
        break;
      } catch (error) {
        if (progress.signal.aborted) throw abortError(progress.signal);
        if (!isPassing(error)) throw error;
        barren = have > before ? 0 : barren + 1;
        if (barren >= attempts) throw given(error, reference, blob, have);
        await sleep(pause * 2 ** Math.max(0, barren - 1), undefined, { signal: progress.signal }).catch(() =>
          throwIfAborted(progress.signal),
        );
      }
    }
    const digest = `${blob.digest.slice(0, 6)}:${hash.digest("hex")}`;
    if (digest === blob.digest) return;
    // Nothing of it is of use.
    await file.truncate(0);
    throw new BangerError(
      "REGISTRY_ERROR",
      `${reference.registry} sent ${digest} for the layer ${blob.digest} of ${reference.name}`,
      {
        hint: "try again; if it stays so, the registry or what lies between is broken or hostile",
      },
    );
  };

const broken = (reference: Reference, blob: Descriptor, why: string): BangerError =>
  new BangerError(
    "REGISTRY_ERROR",
    `${reference.registry} does not send the layer ${blob.digest} of ${reference.name}: ${why}`,
    {
      hint: "try again later, or name another registry or mirror",
    },
  );

/** Whether another attempt may do better. */
const isPassing = (error: unknown): boolean => {
  if (!(error instanceof BangerError))
    return error instanceof Error && !("syscall" in error && error.syscall === "write");
  if (error.code === "REGISTRY_UNREACHABLE") return true;
  const status = Number(error.details?.status);
  return error.code === "REGISTRY_ERROR" && (status === 429 || status >= 500);
};

const given = (error: unknown, { name }: Reference, { size, digest }: Descriptor, have: number): BangerError => {
  const cause = error instanceof BangerError ? error : undefined;
  return new BangerError(
    cause?.code ?? "REGISTRY_UNREACHABLE",
    `the layer ${digest} of ${name} could not be downloaded: ${error instanceof Error ? error.message : error}`,
    {
      hint: `run the command again: the ${have} of ${size} bytes that are here are kept`,
      cause: error,
    },
  );
};
