/** Debian's signed archive as a source of packages: front door of this folder. Needs no root. */
import { mkdir, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { BangerError, errnoOf } from "../contract/errors.ts";
import { abortable, type Progress, throwIfAborted } from "../contract/progress.ts";
import { writeFileAtomic } from "../host/files.ts";
import { sha256OfFile } from "../host/digest.ts";
import { aptFolder } from "../host/paths.ts";
import { chooseMirror, type MirrorChoice } from "./mirror.ts";
import { type PrivateApt, preparePrivateApt } from "./private-apt.ts";
import { runApt } from "./run-apt.ts";
import type { AptSource } from "./sources.ts";

/** A package as the signed lists describe it. */
export type DebianPackage = {
  name: string;
  version: string;
  /** File name in the archive cache, as apt spells it. */
  file: string;
  /** Bytes. */
  size: number;
  sha256: string;
};

export type Archive = {
  /** The mirror's URLs, for messages and manifests. */
  readonly mirror: string;
  readonly apt: PrivateApt;
  /** With keyring paths of this machine. */
  readonly sources: readonly AptSource[];
  /**
   * Makes the package lists current.
   * @throws MIRROR_UNREACHABLE within half a minute, MIRROR_UNTRUSTED, DISK_FULL
   */
  update(progress: Progress): Promise<void>;
  /** What a package depends on directly, by name. */
  dependsOn(name: string, progress: Progress): Promise<string[]>;
  /** Files to fetch for `names`: these alone, or with all they need on an empty system. */
  plan(names: readonly string[], dependencies: boolean, progress: Progress): Promise<DebianPackage[]>;
  /**
   * Fetches what is not in the cache yet; goes on where an earlier call ended.
   * @returns paths in the order of `packages`; each file's digest is that of the signed lists
   */
  download(packages: readonly DebianPackage[], progress: Progress): Promise<string[]>;
};

/** Package lists younger than this, in ms, are taken as current. */
const LISTS_FRESH = 15 * 60_000;

/** One apt at a time per cache folder: apt locks its lists, and two downloads of one file would spoil it. */
const queues = new Map<string, Promise<unknown>>();

const inTurn = async <T>(folder: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> => {
  const before = queues.get(folder) ?? Promise.resolve();
  const mine = Promise.withResolvers<void>();
  queues.set(
    folder,
    before.then(() => mine.promise),
  );
  try {
    await abortable(before, signal);
    return await work();
  } finally {
    mine.resolve();
  }
};

/** @throws what `chooseMirror` throws */
export const openArchive = async (choice: MirrorChoice, signal: AbortSignal): Promise<Archive> => {
  const mirror = await chooseMirror(choice);
  const apt = await preparePrivateApt(aptFolder(mirror.key), mirror, signal);
  const call = { apt, mirror: mirror.label };
  return {
    mirror: mirror.label,
    sources: mirror.sources,
    apt,
    update: (progress) =>
      inTurn(apt.folder, progress.signal, async () => {
        const stamp = join(apt.folder, "updated");
        if (await isYoungerThan(stamp, LISTS_FRESH)) return;
        const stage = "package lists";
        progress.report({ stage, message: mirror.label });
        const onShare = (share: number) => progress.report({ stage, done: Math.round(share * 100), total: 100 });
        await runApt({ ...call, argv: ["apt-get", "update"], progress, onShare });
        await writeFileAtomic(stamp, "");
      }),
    dependsOn: async (name, progress) => {
      const text = await runApt({ ...call, argv: ["apt-cache", "show", "--no-all-versions", name], progress });
      const line = /^Depends: (.*)$/m.exec(text)?.[1] ?? "";
      return line.split(",").map((part) => part.trim().split(/[\s(|:]/)[0] ?? "");
    },
    plan: async (names, dependencies, progress) => {
      const verb = dependencies ? "install" : "download";
      const text = await runApt({ ...call, argv: ["apt-get", "-qq", "--print-uris", verb, ...names], progress });
      return text.split("\n").flatMap(parsePlanLine);
    },
    download: (packages, progress) =>
      inTurn(apt.folder, progress.signal, () => download({ ...call, packages, progress })),
  };
};

const isYoungerThan = async (path: string, milliseconds: number): Promise<boolean> => {
  try {
    const age = Date.now() - (await stat(path)).mtimeMs;
    return age >= 0 && age < milliseconds;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
};

/** `'URI' name_version_arch.deb size SHA256:hex`, as apt-get --print-uris writes it. */
export const parsePlanLine = (line: string): DebianPackage[] => {
  const match = /^'[^']+' ((\S+?)_(\S+?)_\S+\.deb) (\d+) SHA256:([0-9a-f]{64})$/.exec(line.trim());
  if (!match) return [];
  const [, file = "", name = "", version = "", size, sha256 = ""] = match;
  // A version with an epoch is spelled `1%3a2.3` in file names.
  return [{ file, name, version: decodeURIComponent(version), size: Number(size), sha256 }];
};

type Download = { apt: PrivateApt; mirror: string; packages: readonly DebianPackage[]; progress: Progress };

const download = async ({ apt, mirror, packages, progress }: Download): Promise<string[]> => {
  const stage = "download";
  const pathOf = (entry: DebianPackage) => join(apt.packages, entry.file);
  const missing: DebianPackage[] = [];
  for (const entry of packages) if (!(await isWhole(pathOf(entry), entry))) missing.push(entry);
  const sum = (entries: readonly DebianPackage[]) => entries.reduce((total, entry) => total + entry.size, 0);
  const total = sum(packages);
  const had = total - sum(missing);
  const report = (share: number) => {
    const count = packages.length - Math.ceil(missing.length * (1 - share));
    const message = `${count} of ${packages.length} packages`;
    progress.report({ stage, message, done: Math.round(had + share * (total - had)), total, unit: "bytes" });
  };
  report(0);
  if (missing.length > 0) {
    await mkdir(apt.partial, { recursive: true });
    const wanted = missing.map((entry) => `${entry.name}=${entry.version}`);
    try {
      const argv = ["apt-get", "-qq", "download", ...wanted] as const;
      await runApt({ apt, mirror, argv: [...argv], cwd: apt.partial, progress, onShare: report });
    } finally {
      await adopt(apt, missing);
    }
  }
  for (const entry of missing) {
    if (await isWhole(pathOf(entry), entry)) continue;
    // Not what was signed: kept, it would stand in the way of the next try.
    await rm(join(apt.partial, entry.file), { force: true });
    throw new BangerError("MIRROR_UNTRUSTED", `${entry.file} from ${mirror} is not what the signed lists describe`, {
      hint: "run the command again; if it stays, choose another debian_mirror in config.toml",
    });
  }
  report(1);
  const now = new Date();
  for (const entry of packages) await utimes(pathOf(entry), now, now);
  await dropUnused(apt.packages);
  throwIfAborted(progress.signal);
  return packages.map(pathOf);
};

/** Packages that no build has asked for in this time, in ms, are old versions. */
const UNUSED = 30 * 24 * 3600_000;

const dropUnused = async (folder: string): Promise<void> => {
  for (const name of await readdir(folder)) {
    if (Date.now() - (await stat(join(folder, name))).mtimeMs > UNUSED) await rm(join(folder, name), { force: true });
  }
};

/** The digest was checked when the file got its name, so size is enough to know it again. */
const isWhole = async (path: string, entry: DebianPackage): Promise<boolean> => {
  try {
    return (await stat(path)).size === entry.size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
};

/** Moves whole and right files out of the folder of partial ones, also after a cancel: the next call need not fetch them. */
const adopt = async (apt: PrivateApt, wanted: readonly DebianPackage[]): Promise<void> => {
  const there = new Set(await readdir(apt.partial));
  for (const entry of wanted) {
    const path = join(apt.partial, entry.file);
    if (!there.has(entry.file) || !(await isWhole(path, entry))) continue;
    if ((await sha256OfFile(path)) === entry.sha256) await rename(path, join(apt.packages, entry.file));
    else await rm(path);
  }
};
