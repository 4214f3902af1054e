/** Catalogs: the one that is shipped, and the user's own files, which add entries and replace those of the same name. */
import { readFile } from "node:fs/promises";
import * as z from "zod/mini";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { type ImageCatalogEntry, imageCatalogEntrySchema } from "../../contract/images.ts";
import { type KernelCatalogEntry, kernelCatalogEntrySchema } from "../../contract/kernels.ts";
import { nameDiskFull } from "../../host/tool-errors.ts";
import type { Progress } from "../../contract/progress.ts";

/** A file may hold images, kernels or both. */
const catalogSchema = z.strictObject({
  version: z.literal(1),
  images: z.optional(z.array(imageCatalogEntrySchema)),
  kernels: z.optional(z.array(kernelCatalogEntrySchema)),
});
export type Catalog = { images: ImageCatalogEntry[]; kernels: KernelCatalogEntry[] };

/** No catalog is near this. */
const MOST_BYTES = 16 * 1024 * 1024;

/**
 * Reads catalogs; of two entries of a name the later one counts.
 * @param paths the shipped one first, then the user's in their order
 * @throws CATALOG_INVALID, naming the file and what is wrong with it
 */
export const readCatalogs = async (paths: readonly string[]): Promise<Catalog> => {
  const images = new Map<string, ImageCatalogEntry>();
  const kernels = new Map<string, KernelCatalogEntry>();
  for (const path of paths) {
    const catalog = await readOne(path);
    for (const entry of catalog.images ?? []) images.set(entry.name, entry);
    for (const entry of catalog.kernels ?? []) kernels.set(entry.name, entry);
  }
  return { images: [...images.values()], kernels: [...kernels.values()] };
};

const readOne = async (path: string): Promise<z.infer<typeof catalogSchema>> => {
  const text = await readText(path);
  try {
    return catalogSchema.parse(JSON.parse(text));
  } catch (error) {
    throw broken(path, whatIsWrong(error), error);
  }
};

const readText = async (path: string): Promise<string> => {
  try {
    const text = await readFile(path);
    if (text.length > MOST_BYTES) throw broken(path, `it has ${text.length} bytes`);
    return text.toString("utf8");
  } catch (error) {
    if (error instanceof BangerError) throw error;
    const why = errnoOf(error) === "ENOENT" ? "there is no such file" : error instanceof Error ? error.message : "";
    throw broken(path, why, error);
  }
};

const whatIsWrong = (error: unknown): string => {
  if (!(error instanceof z.core.$ZodError)) return error instanceof Error ? error.message : String(error);
  const [issue] = error.issues;
  const at = issue?.path.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("") ?? "";
  return `${at.replace(/^\./, "") || "it"}: ${issue?.message}`;
};

const broken = (path: string, why: string, cause?: unknown): BangerError =>
  new BangerError("CATALOG_INVALID", `the catalog ${path} cannot be used: ${why}`, {
    hint: "correct the file, or take it out of `catalogs` in config.toml (`banger config path`)",
    details: { path },
    cause,
  });

/**
 * Tries the sources of an entry in order until one does.
 * @throws the error of the last one, and what the others said with it
 */
export const fromFirstSource = async <S>(
  sources: readonly S[],
  progress: Progress,
  attempt: (source: S) => Promise<void>,
): Promise<void> => {
  const failures: BangerError[] = [];
  for (const source of sources) {
    try {
      return await attempt(source);
    } catch (error) {
      const named = nameDiskFull(error);
      // A bug, a cancel or a full disk is not the source's fault.
      if (progress.signal.aborted || !(named instanceof BangerError) || named.code === "DISK_FULL") throw named;
      failures.push(named);
    }
  }
  const last = failures.at(-1);
  if (last === undefined) throw new BangerError("INTERNAL", "a catalog entry has no source");
  if (failures.length === 1) throw last;
  throw new BangerError(
    last.code,
    `none of ${failures.length} sources would do: ${failures.map(({ message }) => message).join("; ")}`,
    { hint: last.hint, details: last.details, cause: last },
  );
};
