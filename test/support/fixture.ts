/** The kernel and images that tests boot: built once by the real program, then linked into each test's own state folder. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFile, glob, link, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { errnoOf } from "../../src/contract/errors.ts";
import type { Environment, Host } from "./host.ts";

const execFileAsync = promisify(execFile);

const root = join(import.meta.dirname, "..", "..");

/** What decides what a build gives; a change of it makes a new fixture. */
const inputs = ["catalog/**/*", "images/**/*"];
/** What a recipe's build does not look at. */
const others = ["Dockerfile", "from-container.sh"];

const digestOfInputs = async (): Promise<string> => {
  const files: string[] = [];
  for await (const entry of glob(inputs, { cwd: root, withFileTypes: true }))
    if (entry.isFile() && !others.includes(entry.name)) files.push(join(entry.parentPath, entry.name));
  const hash = createHash("sha256");
  for (const file of files.sort()) hash.update(file.slice(root.length)).update(await readFile(file));
  return hash.digest("hex").slice(0, 12);
};

const fixtureFolder = async (): Promise<string> => join(root, "build", "fixture", await digestOfInputs());

export const fixtureKernel = "debian-bookworm-cloud";

export const fixtureEnvironment = (folder: string): Environment => ({
  HOME: folder,
  XDG_CONFIG_HOME: join(folder, "config"),
  XDG_STATE_HOME: join(folder, "state"),
  XDG_CACHE_HOME: join(folder, "cache"),
  XDG_RUNTIME_DIR: join(folder, "run"),
});

/** Paths below a state folder of banger's. */
const foldersOf = (images: readonly string[]): string[] => [
  join("kernels", fixtureKernel),
  ...images.map((image) => join("images", image)),
];

/** Builds what is missing. Test files run side by side: one of them builds, the others wait for it. @returns banger's state folder */
const ensureFixture = async (images: readonly string[]): Promise<string> => {
  const folder = await fixtureFolder();
  const state = join(fixtureEnvironment(folder).XDG_STATE_HOME, "banger");
  // A kernel or an image is published by one rename: it is there whole, or not at all.
  const there = await Promise.all(foldersOf(images).map((path) => stat(join(state, path)).catch(() => undefined)));
  if (there.every((found) => found !== undefined)) return state;
  await mkdir(folder, { recursive: true });
  const builder = join(import.meta.dirname, "build-fixture.ts");
  await execFileAsync("flock", [join(folder, "lock"), process.execPath, builder, folder, ...images]);
  return state;
};

/** Templates are made in the background, by VMs that a test has not asked for: only tests of templates want them, and say so. */
const withoutTemplates = async (host: Host): Promise<void> => {
  const folder = join(host.env.XDG_CONFIG_HOME, "banger");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const file = join(folder, "config.toml");
  const config = await readFile(file, "utf8").catch(() => "");
  if (!config.includes("templates")) await writeFile(file, `templates.enabled = false\n${config}`);
};

/** Puts a kernel and images into the state of a host of a test, without copying them. */
export const installFixture = async (host: Host, images: readonly string[]): Promise<void> => {
  await withoutTemplates(host);
  const state = await ensureFixture(images);
  for (const path of foldersOf(images))
    await linkTree(join(state, path), join(host.env.XDG_STATE_HOME, "banger", path));
};

const linkTree = async (from: string, to: string): Promise<void> => {
  for (const entry of await readdir(from, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const source = join(entry.parentPath, entry.name);
    const target = join(to, relative(from, source));
    await mkdir(dirname(target), { recursive: true, mode: 0o700 });
    await link(source, target).catch((error: unknown) => {
      // Another file system: this test's state is on one of its own.
      if (errnoOf(error) === "EXDEV") return copyFile(source, target);
      throw error;
    });
  }
};
