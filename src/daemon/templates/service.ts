/**
 * Templates: VMs that have booted and come to rest, saved so that others go on from them in a fraction of a second. They are a cache: anything
 * that is not exactly right is passed over, and the VM boots cold.
 */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { type BangerError, toBangerError } from "../../contract/errors.ts";
import { type Progress, silentProgress } from "../../contract/progress.ts";
import type { TemplateInfo } from "../../contract/templates.ts";
import { bytesOnDisk } from "../../host/files.ts";
import { hostMemory } from "../../host/memory.ts";
import { type SavedFiles, templateFiles, templatesFolder, vmFilesIn } from "../../host/paths.ts";
import { installedNames, unpublish } from "../artifacts/published.ts";
import { singleFlight } from "../artifacts/single-flight.ts";
import { markUsed, readSaved, type SavedManifest, signatureOf, verifySaved } from "../saved/saved.ts";
import type { GuestServices } from "../vms/boot.ts";
import { type MachinePlan, planMachine, type Shape } from "../vms/plan.ts";
import { buildTemplate } from "./build.ts";

export type TemplateSettings = {
  enabled: boolean;
  /** At most so many are kept; the least recently used go first. */
  maxCount: number;
  /** And so many bytes on disk. */
  maxSize: number;
};

export type Template = { key: string; files: SavedFiles; manifest: SavedManifest };
/** With the machine that goes on from it. */
export type FoundTemplate = Template & { plan: MachinePlan };

export type TemplateService = {
  /** A sound template for a VM of this shape. Undefined, with the reason in the log, where there is none. */
  find(shape: Shape, progress: Progress): Promise<FoundTemplate | undefined>;
  /** A VM of this shape has booted cold: makes a template in the background, where there is none and room for it. */
  want(shape: Shape): void;
  /** A template turned out to be of no use: it is removed, and the reason logged. */
  reject(template: Template, why: BangerError): Promise<void>;
  /** Makes the template for a shape, or returns the one that is there. */
  make(shape: Shape, progress: Progress): Promise<TemplateInfo>;
  list(): Promise<TemplateInfo[]>;
  /** Removes all, or those of one image. @returns how many */
  clear(image?: string): Promise<number>;
  /** Cancels what is being made. Resolves when nothing of it is left. */
  close(): Promise<void>;
};

const FORMAT = 1;

export const templateService = (services: GuestServices, settings: () => TemplateSettings): TemplateService => {
  const { log } = services;
  const flights = singleFlight<Template>();
  const ending = new AbortController();
  /** One at a time: each is a boot of its own. */
  let background: Promise<void> = Promise.resolve();
  const wanted = new Set<string>();

  const identify = async (shape: Shape, progress: Progress) => {
    const plan = await planMachine(shape, services, progress);
    const signature = await signatureOf(plan, vmFilesIn(""), services.driver);
    return { plan, signature, key: keyOf(shape, plan, signature) };
  };

  const read = async (key: string): Promise<Template | undefined> => {
    const files = templateFiles(key);
    const manifest = await readSaved(files);
    return manifest && { key, files, manifest };
  };

  const reject: TemplateService["reject"] = async ({ key, files }, { message }) => {
    log.warn("template is of no use and is removed", { key, why: message });
    await unpublish(files.folder);
  };

  const find: TemplateService["find"] = async (shape, progress) => {
    if (!settings().enabled) return undefined;
    const { key, plan } = await identify(shape, progress);
    try {
      const found = await read(key);
      if (!found) return undefined;
      await verifySaved(found.files, found.manifest);
      await markUsed(found.files);
      return { ...found, plan };
    } catch (error) {
      const files = templateFiles(key);
      log.warn("template is damaged and is removed; the VM boots cold", { key, error });
      await unpublish(files.folder);
      return undefined;
    }
  };

  const build = (shape: Shape, progress: Progress): Promise<Template> =>
    identify(shape, progress).then(({ key, plan, signature }) =>
      flights.run(key, progress, async (shared) => {
        const there = await read(key);
        if (there) return there;
        const files = templateFiles(key);
        log.info("template is being made", { key, image: shape.image });
        const manifest = await buildTemplate({ shape, plan, signature, target: files.folder }, services, {
          report: shared.report,
          signal: AbortSignal.any([shared.signal, ending.signal]),
        });
        log.info("template made", { key, image: shape.image });
        await evict(key);
        return { key, files, manifest };
      }),
    );

  const list = async (): Promise<{ template: Template; info: TemplateInfo }[]> => {
    const found = await Promise.all(
      (await installedNames(templatesFolder())).map((key) => read(key).catch(() => undefined)),
    );
    return await Promise.all(
      found
        .filter((template) => template !== undefined)
        .map(async (template) => ({ template, info: await infoOf(template) })),
    );
  };

  /** Removes the least recently used until the rest is within its bounds; never the one that was just made. */
  const evict = async (made: string): Promise<void> => {
    const { maxCount, maxSize } = settings();
    const all = (await list()).sort((a, b) => b.info.usedAt - a.info.usedAt);
    let [count, size] = [0, 0];
    for (const { template, info } of all) {
      count++;
      size += info.diskUsed;
      if (template.key === made || (count <= maxCount && size <= maxSize)) continue;
      log.info("template is removed to make room", { key: template.key, image: info.image });
      await unpublish(template.files.folder);
    }
  };

  const makeQuietly = async (shape: Shape): Promise<void> => {
    try {
      if (ending.signal.aborted || !settings().enabled || (await hostMemory()).available < 2 * shape.memory) return;
      await build(shape, { ...silentProgress(), signal: ending.signal });
    } catch (error) {
      if (!ending.signal.aborted) log.warn("template not made", { image: shape.image, error: toBangerError(error) });
    }
  };

  return {
    find,
    reject,
    want: (shape) => {
      const id = JSON.stringify(shape);
      if (wanted.has(id) || !settings().enabled) return;
      wanted.add(id);
      background = background.then(() => makeQuietly(shape)).finally(() => wanted.delete(id));
    },
    make: async (shape, progress) => await infoOf(await build(shape, progress)),
    list: async () => (await list()).map(({ info }) => info),
    clear: async (image) => {
      const chosen = (await list()).filter(({ info }) => image === undefined || info.image === image);
      for (const { template } of chosen) await unpublish(template.files.folder);
      return chosen.length;
    },
    close: async () => {
      ending.abort();
      await background;
    },
  };
};

/** Everything that a clone shares with its template. What its network may reach is its own. */
const keyOf = (shape: Shape, { image, kernel, initramfs }: MachinePlan, signature: string): string =>
  createHash("sha256")
    .update(
      JSON.stringify([
        FORMAT,
        signature,
        image.digest,
        kernel.digest,
        initramfs.key,
        shape.diskSize,
        shape.network === "none" ? "none" : "user",
      ]),
    )
    .digest("hex")
    .slice(0, 32);

const infoOf = async ({ key, files, manifest }: Template): Promise<TemplateInfo> => {
  const [state, memory, disk, { mtimeMs }] = await Promise.all([
    bytesOnDisk(files.state),
    bytesOnDisk(files.memory),
    bytesOnDisk(files.disk),
    stat(files.manifest),
  ]);
  return {
    key,
    ...manifest.shape,
    vmm: manifest.vmm,
    diskUsed: state + memory + disk,
    createdAt: manifest.createdAt,
    usedAt: Math.round(mtimeMs),
  };
};
