/** From an image that was found somewhere to the folder of an installed one: root file system and manifest. */
import { createHash } from "node:crypto";
import { type FileHandle, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ImageBoot, ImageManifest, ImageOrigin } from "../../contract/images.ts";
import type { Progress, ProgressEvent } from "../../contract/progress.ts";
import { createExt4Writer, type Ext4Writer } from "../../ext4/writer.ts";
import { sha256OfFile } from "../../host/digest.ts";
import type { FoundImage } from "../../oci/image.ts";
import { mergeLayers } from "../../oci/layers/merge.ts";
import type { ImageConfig } from "../../oci/manifest.ts";
import { type RootfsFacts, rootfsFacts } from "./facts.ts";
import { uuidOf } from "./recipe.ts";

export type Conversion = {
  image: FoundImage;
  name: string;
  description: string;
  source: ImageOrigin;
  /** sha256 that stands for the content, in hex: the same gives the same bytes. */
  contentDigest: string;
  /** Staging folder that becomes the image's. */
  folder: string;
  progress: Progress;
};

/**
 * Fills `folder`.
 * @throws IMAGE_REFUSED, IMAGE_CORRUPT, REGISTRY_…, DISK_FULL
 */
export const convertImage = async (conversion: Conversion): Promise<void> => {
  const { image, folder, contentDigest } = conversion;
  const progress = oneStageAtATime(conversion.progress);
  const rootfs = join(folder, "rootfs.ext4");
  const uuid = uuidOf(contentDigest);
  let file: FileHandle | undefined;
  let writer: Ext4Writer | undefined;
  let facts: RootfsFacts | undefined;
  try {
    const openSink = async () => {
      await file?.close();
      file = await open(rootfs, "w+", 0o600);
      writer = createExt4Writer(file, {
        label: contentDigest.slice(0, 12),
        uuid: Buffer.from(uuid.replaceAll("-", ""), "hex"),
      });
      facts = rootfsFacts(writer);
      return facts.sink;
    };
    await mergeLayers({ layers: image.layers, openSink, progress });
    if (!writer || !facts) throw new Error("an image was merged into nothing");
    const boot = bootOf(image.config);
    // Docker makes it too, for those who name a folder that they have not made.
    if (!facts.hasFolder(boot.workdir) && /^\/(?!.*(?:^|\/)\.\.?(?:\/|$))/.test(boot.workdir))
      makeFolder(writer, boot.workdir);
    const { size } = await writer.finish();
    progress.report({ stage: "digest" });
    // The disk takes it meanwhile: whoever publishes it would have to wait for that afterwards.
    const [sha256] = await Promise.all([sha256OfFile(rootfs, progress.signal), file?.sync()]);
    await writeManifest(conversion, { size, sha256, uuid }, facts, boot);
  } finally {
    await file?.close();
  }
};

const makeFolder = (writer: Ext4Writer, path: string): void => {
  const mtime = { seconds: 0, nanoseconds: 0 };
  try {
    writer.directory(path.split("/").filter(Boolean).join("/"), { mode: 0o755, uid: 0, gid: 0, mtime });
  } catch {
    // It is there as something else, or leads through a symlink: then it is the image's own business.
  }
};

/** Layers are unpacked while others are downloaded: a person is told of the slower of the two. */
const oneStageAtATime = ({ signal, report }: Progress): Progress => {
  let downloading = false;
  return {
    signal,
    report: (event: ProgressEvent) => {
      if (event.stage === "download") downloading = (event.done ?? 0) < (event.total ?? 0);
      if (!downloading || event.stage === "download") report(event);
    },
  };
};

const writeManifest = async (
  { image, name, description, source, folder }: Conversion,
  rootfs: ImageManifest["rootfs"],
  facts: RootfsFacts,
  boot: ImageBoot,
): Promise<void> => {
  const init = initOf(facts, boot);
  const manifest: ImageManifest = {
    version: 1,
    name,
    description,
    rootfs,
    source,
    layers: image.layers.map(({ digest, size }) => ({ digest, size })),
    init,
    // What the agent starts by itself is not to be run a second time.
    boot:
      init !== null && isInit([...boot.entrypoint, ...boot.command][0])
        ? { ...boot, entrypoint: [], command: [] }
        : boot,
    packages: [],
    createdAt: Date.now(),
  };
  await writeFile(join(folder, "manifest.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
};

const isInit = (program: string | undefined): boolean =>
  program !== undefined && /^\/(?:usr\/)?(?:s?bin\/init|lib\/systemd\/systemd)$/.test(program);

/** Images of containers often hold an init that nobody means to start: busybox has one. systemd is meant, and what the config names. */
const initOf = (facts: RootfsFacts, { entrypoint, command }: ImageBoot): string | null => {
  const found = facts.resolve("/sbin/init");
  if (found === undefined) return null;
  return found.endsWith("/systemd") || isInit([...entrypoint, ...command][0]) ? "/sbin/init" : null;
};

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** How the config says that commands are run, with Docker's defaults. */
export const bootOf = ({ config }: ImageConfig): ImageBoot => {
  const env: Record<string, string> = { PATH: DEFAULT_PATH };
  for (const variable of config?.Env ?? []) {
    const equals = variable.indexOf("=");
    if (equals > 0 && !variable.includes("\0")) env[variable.slice(0, equals)] = variable.slice(equals + 1);
  }
  return {
    env,
    user: config?.User || "root",
    workdir: config?.WorkingDir || "/",
    entrypoint: config?.Entrypoint ?? [],
    command: config?.Cmd ?? [],
  };
};

/** sha256 over what makes an image: its layers' digests and how it is run. */
export const contentDigestOf = ({ layers, config }: FoundImage): string =>
  createHash("sha256")
    .update(JSON.stringify([layers.map(({ digest }) => digest), config.rootfs?.diff_ids ?? [], bootOf(config)]))
    .digest("hex");
