/** Builds an image of a Debian recipe: packages into the cache, then a root file system out of them, without root. */
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BangerError } from "../../contract/errors.ts";
import type { ImageCatalogEntry, ImageManifest, ImageSource } from "../../contract/images.ts";
import type { Progress } from "../../contract/progress.ts";
import { type Archive, openArchive } from "../../debian/archive.ts";
import { renderDeb822 } from "../../debian/sources.ts";
import { sha256OfFile } from "../../host/digest.ts";
import { bytesOnDisk, exists } from "../../host/files.ts";
import { rootNamespace } from "../../host/namespace.ts";
import { runTool } from "../../host/process.ts";
import { isDiskFull, nameDiskFull } from "../../host/tool-errors.ts";
import { addNpmPackages } from "./npm-packages.ts";
import { type LoadedRecipe, loadRecipe, uuidOf } from "./recipe.ts";

export type ImageBuild = {
  entry: ImageCatalogEntry;
  source: Extract<ImageSource, { type: "debian-recipe" }>;
  /** `debian_mirror` of the config. */
  debianMirror: string | undefined;
  /** Folder of the recipes. */
  recipes: string | undefined;
  /** Staging folder that becomes the image's. */
  folder: string;
  progress: Progress;
};

/** Keys of Debian in the image; on the host they may lie elsewhere. */
const GUEST_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/**
 * Fills `folder` with an image.
 * @throws MIRROR_UNREACHABLE, MIRROR_UNTRUSTED, DISK_FULL, IMAGE_BUILD_FAILED, TOOL_MISSING
 */
export const buildDebianImage = async (build: ImageBuild): Promise<void> => {
  const { entry, source, folder, progress } = build;
  const { signal } = progress;
  const recipe = await loadRecipe(source.recipe, build.recipes);
  // Before the download: whoever lacks a program should not learn it minutes later.
  const { prefix } = await rootNamespace(signal);
  await runTool({ argv: ["mmdebstrap", "--version"], signal });
  const archive = await openArchive({ mirror: build.debianMirror, suite: recipe.suite }, signal);
  await archive.update(progress);
  const names = ["?essential", "apt", "usr-is-merged", ...recipe.packages];
  const plan = await archive.plan(names, true, progress);
  const archives = await archive.download(plan, progress);

  await writeInputs(folder, recipe, archive, archives);
  await addNpmPackages(recipe.npm ?? [], join(folder, "extra"), progress);
  const watcher = stageWatcher(progress, plan.length, join(folder, "rootfs.ext4"));
  try {
    await runTool({
      argv: [...prefix, "--net", "sh", recipe.script, folder, recipe.folder, archive.apt.lists, recipe.suite],
      env: { PERL_BADLANG: "0", APT_CONFIG: "" },
      signal,
      onStderrLine: watcher.onLine,
      endWithParent: true,
    });
  } catch (error) {
    throw buildError(error, entry.name, watcher.tail());
  } finally {
    watcher.end();
  }
  await writeManifest(entry, source, recipe, folder, progress);
};

const buildError = (error: unknown, name: string, lines: string): unknown => {
  if (!(error instanceof BangerError) || error.code !== "TOOL_FAILED") return error;
  if (isDiskFull(lines)) return nameDiskFull(new BangerError("TOOL_FAILED", lines, { cause: error }));
  return new BangerError("IMAGE_BUILD_FAILED", `the image ${name} could not be built: ${lines || error.message}`, {
    hint: "run the command again: what was downloaded is kept",
    cause: error,
  });
};

const INPUTS = [
  "packages",
  "archives",
  "dpkg-options",
  "build.sources",
  "image.sources",
  "image.apt.conf",
  "uuid",
  "installed",
  "extra",
];

const writeInputs = async (
  folder: string,
  recipe: LoadedRecipe,
  archive: Archive,
  archives: string[],
): Promise<void> => {
  const lines = (entries: readonly string[]) => entries.map((entry) => `${entry}\n`).join("");
  const write = (name: string, text: string) => writeFile(join(folder, name), text);
  await write("packages", lines(["usr-is-merged", ...recipe.packages]));
  await write("archives", lines(archives));
  await write("dpkg-options", lines(recipe.dpkgOptions));
  await write("build.sources", renderDeb822(archive.sources));
  const kept = archive.sources.map((one) => ({
    ...one,
    // A password for the mirror stays on the host.
    uris: one.uris.map((uri) => uri.replace(/^([a-z+]+:\/\/)[^/@]*@/, "$1")),
    signedBy: one.signedBy?.startsWith("/") ? GUEST_KEYRING : one.signedBy,
  }));
  await write("image.sources", renderDeb822(kept));
  await write("image.apt.conf", lines(archive.apt.dateSettings));
  await write("uuid", uuidOf(recipe.digest));
};

/** Turns the build's output into progress. */
const stageWatcher = (progress: Progress, packages: number, rootfs: string) => {
  const recent: string[] = [];
  let steps = 0;
  let timer: NodeJS.Timeout | undefined;
  const reportSize = async () => {
    if (await exists(rootfs)) {
      progress.report({ stage: "file system", done: await bytesOnDisk(rootfs), unit: "bytes" });
    }
  };
  const onLine = (line: string) => {
    if (line === "banger: file system") {
      progress.report({ stage: "file system" });
      timer = setInterval(() => void reportSize().catch(() => clearInterval(timer)), 500);
      return;
    }
    if (line.trim() !== "") recent.push(line);
    if (recent.length > 40) recent.shift();
    const [, verb, name] = /^(Unpacking|Setting up) (\S+) /.exec(line) ?? [];
    if (!verb) return;
    // Each package takes two steps; a step that is told twice must not go past the end.
    steps = Math.min(steps + 1, packages * 2);
    const message = `${verb === "Unpacking" ? "unpack" : "set up"} ${name}`;
    progress.report({ stage: "install", message, done: Math.floor(steps / 2), total: packages, unit: "packages" });
  };
  return {
    onLine,
    end: () => clearInterval(timer),
    /** The last lines, those that speak of errors first. */
    tail: () => {
      const errors = recent.filter((line) =>
        /^(?:E:|dpkg: error|.*(?:[Ee]rror|No space left|cannot|failed))/.test(line),
      );
      return (errors.length > 0 ? errors : recent).slice(-8).join("\n");
    },
  };
};

const writeManifest = async (
  entry: ImageCatalogEntry,
  source: ImageBuild["source"],
  recipe: LoadedRecipe,
  folder: string,
  progress: Progress,
): Promise<void> => {
  progress.report({ stage: "digest" });
  const rootfs = join(folder, "rootfs.ext4");
  const installed = await readFile(join(folder, "installed"), "utf8");
  const manifest: ImageManifest = {
    version: 1,
    name: entry.name,
    description: entry.description,
    rootfs: {
      size: (await stat(rootfs)).size,
      sha256: await sha256OfFile(rootfs, progress.signal),
      uuid: uuidOf(recipe.digest),
    },
    source,
    recipeDigest: recipe.digest,
    init: recipe.init,
    boot: recipe.boot,
    packages: installed
      .split("\n")
      .filter(Boolean)
      .map((line) => {
        const [name = "", version = ""] = line.split(" ");
        return { name, version };
      }),
    createdAt: Date.now(),
  };
  for (const name of INPUTS) await rm(join(folder, name), { recursive: true, force: true });
  await writeFile(join(folder, "manifest.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
};
