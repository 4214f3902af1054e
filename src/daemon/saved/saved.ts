/**
 * Saved machines on disk: templates, snapshots and sleeping VMs are folders of one form, with a manifest that says what they can be restored with.
 * Memory files are shared: each VM that was restored has a hard link to its own, so that deleting one saved machine never breaks another.
 */
import { createHash } from "node:crypto";
import { link, mkdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import * as z from "zod/mini";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import { netRuleSchema, networkModes } from "../../contract/network.ts";
import { secretRecordSchema } from "../../contract/secrets.ts";
import { workspaceSchema } from "../../contract/vms.ts";
import { copyRanges, copySparse, dataRanges } from "../../host/copy.ts";
import type { SavedFiles, VmFiles } from "../../host/paths.ts";
import type { Driver } from "../../vmm/driver.ts";
import type { MachinePlan, Shape } from "../vms/plan.ts";

/** Mode of its files. QEMU wants to be able to write even to a file that it maps private. */
export const SAVED_MODE = 0o600;

const fileSchema = z.object({
  /** Bytes. */
  size: z.number(),
  /** In ns since 1970. Nobody writes to a saved machine: one with another time is not what was saved. */
  mtime: z.string(),
  /** In hex. Of the state only: memory and disk are too large to be read before each use. */
  sha256: z.optional(z.string()),
  /** Offset and length of what is no hole, where that is little. */
  data: z.optional(z.array(z.tuple([z.number(), z.number()]))),
});
type FileRecord = z.infer<typeof fileSchema>;

export const savedManifestSchema = z.object({
  version: z.literal(1),
  /** sha256 over what the VMM says a machine must be restored with (Driver.signature), in hex. */
  signature: z.string(),
  vmm: z.string(),
  shape: z.object({
    image: z.string(),
    kernel: z.string(),
    vcpu: z.number(),
    memory: z.number(),
    diskSize: z.number(),
    network: z.enum(networkModes),
    nested: z._default(z.boolean(), false),
  }),
  /** Whose it was; absent of a template, which was nobody's. */
  vm: z.optional(
    z.object({
      name: z.string(),
      env: z.record(z.string(), z.string()),
      labels: z.record(z.string(), z.string()),
      workspace: z.optional(workspaceSchema),
      /** Of its network; snapshots of earlier versions have none. */
      rules: z.optional(z.array(netRuleSchema)),
      /** Without values. */
      secrets: z.optional(z.array(secretRecordSchema)),
    }),
  ),
  imageDigest: z.string(),
  kernelDigest: z.string(),
  files: z.object({ state: fileSchema, memory: fileSchema, disk: z.optional(fileSchema) }),
  /** Milliseconds since 1970. */
  createdAt: z.number(),
});
export type SavedManifest = z.infer<typeof savedManifestSchema>;

/** In hex. */
export const digestOf = async (path: string): Promise<string> =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

export const recordOf = async (path: string): Promise<FileRecord> => {
  const { size, mtimeNs } = await stat(path, { bigint: true });
  return { size: Number(size), mtime: String(mtimeNs) };
};

/** What a machine of this plan must be restored with, as one digest. */
export const signatureOf = async (plan: MachinePlan, files: VmFiles, driver: Driver): Promise<string> => {
  const signature = await driver.signature(plan.spec({ id: "", name: "", mac: "", rules: [], team: undefined }, files));
  return createHash("sha256").update(`${driver.name}\n${signature}`).digest("hex");
};

/** Writes the manifest of a folder whose files are there, so that the folder can be published. */
export const describeSaved = async (
  files: SavedFiles,
  {
    shape,
    plan,
    signature,
    vmm,
    disk,
    vm,
  }: {
    shape: Shape;
    plan: MachinePlan;
    signature: string;
    vmm: string;
    disk: boolean;
    vm?: SavedManifest["vm"];
  },
): Promise<SavedManifest> => {
  const { image, kernel, vcpu, memory, diskSize, network, nested } = shape;
  const manifest: SavedManifest = {
    version: 1,
    signature,
    vmm,
    shape: { image, kernel, vcpu, memory, diskSize, network, nested },
    ...(vm ? { vm } : {}),
    imageDigest: plan.image.digest,
    kernelDigest: plan.kernel.digest,
    files: {
      state: { ...(await recordOf(files.state)), sha256: await digestOf(files.state) },
      memory: await recordOf(files.memory),
      ...(disk ? { disk: { ...(await recordOf(files.disk)), data: await dataRanges(files.disk) } } : {}),
    },
    createdAt: Date.now(),
  };
  await writeFile(files.manifest, JSON.stringify(manifest), { mode: 0o600 });
  return manifest;
};

/**
 * @returns undefined where there is no such folder
 * @throws SAVED_CORRUPT when its manifest cannot be understood
 */
export const readSaved = async (files: SavedFiles): Promise<SavedManifest | undefined> => {
  try {
    return savedManifestSchema.parse(JSON.parse(await readFile(files.manifest, "utf8")));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw errnoOf(error) === undefined ? corrupt(files, "its manifest cannot be read", error) : error;
  }
};

/**
 * Checks a saved machine before it is used.
 * @throws SAVED_CORRUPT
 */
export const verifySaved = async (files: SavedFiles, { files: records }: SavedManifest): Promise<void> => {
  const check = async (path: string, record: FileRecord) => {
    const name = path.slice(files.folder.length + 1);
    try {
      const { size, mtime } = await recordOf(path);
      if (size !== record.size) throw corrupt(files, `${name} is ${size} bytes long and was ${record.size}`);
      if (mtime !== record.mtime) throw corrupt(files, `${name} was changed`);
      if (record.sha256 !== undefined && record.sha256 !== (await digestOf(path)))
        throw corrupt(files, `${name} is not what was saved`);
    } catch (error) {
      throw errnoOf(error) === "ENOENT" ? corrupt(files, `${name} is gone`, error) : error;
    }
  };
  await Promise.all([
    check(files.state, records.state),
    check(files.memory, records.memory),
    records.disk && check(files.disk, records.disk),
  ]);
};

/**
 * @param signature of the machine that it would become (signatureOf)
 * @throws SAVED_FOREIGN when it was saved with another VMM, CPU, image or kernel
 */
export const checkSameMachine = (manifest: SavedManifest, signature: string, { image, kernel }: MachinePlan): void => {
  const differs =
    manifest.imageDigest !== image.digest
      ? `image ${image.name}`
      : manifest.kernelDigest !== kernel.digest
        ? `kernel ${kernel.name}`
        : manifest.signature !== signature
          ? "VMM, CPU or arguments"
          : undefined;
  if (differs) throw new BangerError("SAVED_FOREIGN", `it was saved with another ${differs}`);
};

const corrupt = ({ folder }: SavedFiles, why: string, cause?: unknown) =>
  new BangerError("SAVED_CORRUPT", `the saved machine in ${folder} is damaged: ${why}`, { cause });

/**
 * Gives a VM its part of a saved machine: a copy of the disk, a link to the memory.
 * @param saved sound (verifySaved)
 */
export const cloneSaved = async (
  saved: SavedFiles,
  { disk }: Pick<SavedManifest["files"], "disk">,
  files: VmFiles,
  progress: Progress,
): Promise<void> => {
  await mkdir(files.folder, { recursive: true, mode: 0o700 });
  await Promise.all([
    disk && copyDisk(saved.disk, files.disk, disk, progress),
    linkMemory(saved.memory, files.memory, progress),
  ]);
};

const copyDisk = async (from: string, to: string, { size, data }: FileRecord, progress: Progress): Promise<void> => {
  try {
    await (data ? copyRanges(from, to, size, data) : copySparse(from, to, progress));
  } catch (error) {
    await rm(to, { force: true });
    throw error;
  }
};

/** Another name of the file: it stays as long as the VM, whatever becomes of the saved machine. */
export const linkMemory = async (from: string, to: string, progress: Progress): Promise<void> => {
  await rm(to, { force: true });
  try {
    await link(from, to);
  } catch (error) {
    if (errnoOf(error) !== "EXDEV") throw error;
    // The user has put VMs and saved machines on two file systems: it costs a copy each time.
    await copySparse(from, to, progress);
  }
};

/** When a saved machine was used last is the time of its manifest. */
export const markUsed = async ({ manifest }: SavedFiles): Promise<void> => {
  const now = new Date();
  await utimes(manifest, now, now);
};
