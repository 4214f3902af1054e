/**
 * Merges an image's layers into one root file system, written as it is read: no extracted tree, no root, memory bounded by the number of
 * names. Layers are read once, from the top (shadow.ts); the few images of which that cannot be told are read twice (plan.ts).
 */
import { createReadStream } from "node:fs";
import { BangerError } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import { isStorableXattr } from "../../ext4/writer.ts";
import { TarError } from "../tar/error.ts";
import { readTar, type TarEntry } from "../tar/reader.ts";
import { type LayerEntry, layerEntry } from "./entry.ts";
import { type MergeLimits, mergeLimits } from "./limits.ts";
import { type Plan, type PlannedEntry, planner } from "./plan.ts";
import { NeedsPlan, shadowTree } from "./shadow.ts";
import type { RootfsAttributes, RootfsSink } from "./sink.ts";
import { type FilePart, unpacked } from "./unpacked.ts";

/** Takes a file or an archive as it is read to its end; `check` throws when it is not what it should be. */
export type ContentCheck = () => { update(chunk: Buffer): void; check(): void };

export type Layer = {
  /** For messages: `layer 2 of 5 (sha256:…)`. */
  label: string;
  /** Waits until the layer's file is here, whole. */
  ready(progress: Progress): Promise<FilePart>;
  /** Of its file, where nobody has looked at that since it was written: it is read only once, checked while it is unpacked. */
  file?: ContentCheck;
  content?: ContentCheck;
};

export type MergeResult = {
  /** Entries of all layers, and those that stay. */
  entries: number;
  kept: number;
  /** Bytes of all layers' archives, unpacked. */
  unpacked: number;
  /** The layers were read twice. */
  planned: boolean;
};

export type MergeOptions = {
  /** The lowest first. */
  layers: readonly Layer[];
  /** A new, empty root file system; asked for a second time when the merge starts anew. */
  openSink(): Promise<RootfsSink>;
  limits?: Partial<MergeLimits>;
  progress: Progress;
};

/**
 * @throws IMAGE_REFUSED, IMAGE_CORRUPT that name layer and entry; what the sink throws; the signal's error
 */
export const mergeLayers = async (options: MergeOptions): Promise<MergeResult> => {
  try {
    return await mergeFromTop(options);
  } catch (error) {
    if (!(error instanceof NeedsPlan)) throw error;
    return await mergeByPlan(options);
  }
};

type Visit = (entry: TarEntry, what: Exclude<LayerEntry, { kind: "ignored" }>) => Promise<void> | void;

/** Reads layers within the limits, which count over all that one reader reads. */
const layerReader = ({ layers, limits: given, progress }: MergeOptions, stage: string) => {
  const limits = { ...mergeLimits, ...given };
  const used = { entries: 0, names: 0, xattrs: 0, unpacked: 0 };
  let packed = 0;
  const refuse = (what: string) => {
    throw new TarError("refused", what);
  };
  const count = (entry: TarEntry) => {
    used.names += entry.name.length + entry.link.length;
    for (const [name, value] of entry.xattrs ?? []) used.xattrs += name.length + value.length;
    if (++used.entries > limits.entries) refuse(`the image has over ${limits.entries} entries`);
    if (used.names > limits.names) refuse(`the image has over ${limits.names} bytes of names`);
    if (used.xattrs > limits.xattrs) refuse(`the image has over ${limits.xattrs} bytes of extended attributes`);
  };
  const read = async (index: number, visit: Visit): Promise<void> => {
    const layer = layers[index];
    if (!layer) return;
    const part = await layer.ready(progress);
    const file = layer.file?.();
    const content = layer.content?.();
    let size = 0;
    let last: string | undefined;
    const onChunk = (chunk: Buffer) => {
      size += chunk.length;
      used.unpacked += chunk.length;
      if (size > limits.smallest && size > part.size * limits.ratio)
        refuse(`it unpacks to over ${limits.ratio} times its size`);
      if (used.unpacked > limits.unpacked) refuse(`the image unpacks to over ${limits.unpacked} bytes`);
      content?.update(chunk);
    };
    const onRead = (chunk: Buffer) => {
      file?.update(chunk);
      packed += chunk.length;
      progress.report({ stage, message: layer.label, done: packed, unit: "bytes" });
    };
    try {
      for await (const entry of readTar(unpacked(part, { signal: progress.signal, onRead, onChunk }))) {
        last = entry.name;
        count(entry);
        const what = layerEntry(entry);
        if (what.kind !== "ignored") await visit(entry, what);
      }
      file?.check();
      content?.check();
    } catch (error) {
      // A file that is not the layer's says nothing about the layer.
      if (error instanceof TarError && layer.file) await checkFile(part, layer.file, layer.label);
      throw explain(error, layer.label, last);
    }
  };
  return { read, used };
};

const checkFile = async ({ path, start, size }: FilePart, of: ContentCheck, label: string): Promise<void> => {
  const file = of();
  if (size > 0) for await (const chunk of createReadStream(path, { start, end: start + size - 1 })) file.update(chunk);
  try {
    file.check();
  } catch (error) {
    throw explain(error, label, undefined);
  }
};

const explain = (error: unknown, label: string, last: string | undefined): unknown => {
  if (error instanceof BangerError && error.code === "IMAGE_INVALID")
    return new BangerError("IMAGE_REFUSED", `${label} is refused: ${error.message}`, {
      hint: error.hint,
      cause: error,
    });
  if (!(error instanceof TarError)) return error;
  const after =
    last === undefined || error.message.startsWith('"')
      ? ""
      : ` (at or after ${JSON.stringify(Buffer.from(last, "latin1").toString("utf8").slice(0, 200))})`;
  return error.kind === "refused"
    ? new BangerError("IMAGE_REFUSED", `${label} is refused: ${error.message}${after}`, {
        hint:
          error.program === undefined
            ? "banger unpacks nothing that could not be an ordinary image; ask whoever made it"
            : "have it packed anew: skopeo copy --dest-compress-format zstd docker://IMAGE oci:FOLDER, then banger image import FOLDER",
        cause: error,
      })
    : new BangerError("IMAGE_CORRUPT", `${label} is damaged: ${error.message}${after}`, {
        hint: "get the image anew; when that does not help, whoever made it must make it again",
        cause: error,
      });
};

/** @throws NeedsPlan besides what `mergeLayers` throws */
export const mergeFromTop = async (options: MergeOptions): Promise<MergeResult> => {
  const { layers } = options;
  const sink = await options.openSink();
  const tree = shadowTree();
  const reader = layerReader(options, "unpack");
  let kept = 0;
  for (let index = layers.length - 1; index >= 0; index--) {
    await reader.read(index, (entry, what) => {
      if (tree.decide(index, what) === "hidden" || what.kind === "whiteout" || what.kind === "opaque") return;
      kept++;
      if (what.kind === "hardlink") return sink.link(what.path.join("/"), what.target.join("/"));
      return write(sink, entry, what, what.path.join("/"));
    });
  }
  return { entries: reader.used.entries, kept, unpacked: reader.used.unpacked, planned: false };
};

/** The same result for every image, with two readings. */
export const mergeByPlan = async (options: MergeOptions): Promise<MergeResult> => {
  const plan = await planLayers(options);
  const sink = await options.openSink();
  const reader = layerReader(options, "unpack");
  for (let index = 0; index < options.layers.length; index++) {
    await reader.read(index, (entry, what) => {
      const [first, ...others] = plan.namesOf(index, entry.ordinal);
      if (first === undefined || what.kind === "whiteout" || what.kind === "opaque" || what.kind === "hardlink") return;
      const written = write(sink, entry, what, first);
      for (const other of others) sink.link(other, first);
      return written;
    });
  }
  return { entries: reader.used.entries, kept: plan.kept, unpacked: reader.used.unpacked, planned: true };
};

const planLayers = async (options: MergeOptions): Promise<Plan> => {
  const plan = planner();
  const reader = layerReader(options, "look through");
  for (const [index, layer] of options.layers.entries()) {
    const entries: PlannedEntry[] = [];
    await reader.read(index, ({ ordinal }, entry) => void entries.push({ entry, ordinal }));
    try {
      plan.addLayer(index, entries);
    } catch (error) {
      throw explain(error, layer.label, undefined);
    }
  }
  return plan.finish();
};

const write = (
  sink: RootfsSink,
  entry: TarEntry,
  what: Exclude<LayerEntry, { kind: "ignored" | "whiteout" | "opaque" | "hardlink" }>,
  path: string,
): Promise<void> | void => {
  const attributes = attributesOf(entry);
  if (what.kind === "directory") return sink.directory(path, attributes);
  // Linux knows no other mode of a symlink, whatever the archive says.
  if (what.kind === "symlink") return sink.symlink(path, { ...attributes, mode: 0o777 }, what.target);
  if (entry.type === "file") return writeFile(sink, entry, attributes, path);
  const type = entry.type === "char" || entry.type === "block" ? entry.type : "fifo";
  return sink.special(path, attributes, type, entry.device);
};

const writeFile = async (
  sink: RootfsSink,
  entry: TarEntry,
  attributes: RootfsAttributes,
  path: string,
): Promise<void> => {
  const file = await sink.file(path, attributes, entry.size);
  if (entry.size > 0) await entry.content(file);
  await file.end();
};

/** The rest is about the machine that the layer was made on, or would speak to the overlay that VMs lay over the image. */
const keepsXattr = (name: string): boolean =>
  isStorableXattr(name) && !/^(?:security\.(?:selinux|ima|evm|SMACK64\w*)|(?:trusted|user)\.overlay\..*)$/.test(name);

const attributesOf = ({ mode, uid, gid, mtime, xattrs }: TarEntry): RootfsAttributes => {
  if (!xattrs) return { mode, uid, gid, mtime };
  const kept = new Map([...xattrs].filter(([name]) => keepsXattr(name)));
  return kept.size === 0 ? { mode, uid, gid, mtime } : { mode, uid, gid, mtime, xattrs: kept };
};
