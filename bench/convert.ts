/** From an OCI layout to a bootable disk, against what one would put together otherwise. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { bytesOnDisk } from "../src/host/files.ts";
import type { Host } from "../test/support/host.ts";
import { type Blob, type Packing, writeLayout } from "../test/support/oci-layout.ts";
import { type Figure, median, round, spreadOf, timed } from "./measure.ts";

const run = promisify(execFile);
const shell = (line: string) => run("sh", ["-c", line], { maxBuffer: 1 << 28 });
const MB = 1_000_000;
const ROUNDS = 5;
/** How scripts/launcher.sh starts the daemon, in which imports run. */
const DAEMON = { flags: ["--max-semi-space-size=1", "--no-opt"], env: { MALLOC_ARENA_MAX: "1" } };

/** Files of this machine: what images are made of. Paths from the root. */
const someFiles = async (bytes: number): Promise<string[]> => {
  const tops = ["usr/bin", "usr/lib", "usr/share", "usr/include"];
  // A few giants would make it a copy of one file.
  const { stdout } = await shell(
    `cd / && find ${tops.join(" ")} -xdev \\( -type f -size -30000k -o -type l \\) -printf '%s %p\\n'`,
  );
  const found: string[] = [];
  let sum = 0;
  for (const line of stdout.split("\n")) {
    const [, size = "", path = ""] = /^(\d+) (.*)$/.exec(line) ?? [];
    if (path === "" || sum >= bytes) continue;
    sum += Number(size);
    found.push(path);
  }
  return found;
};

const tarOf = async (folder: string, files: readonly string[]): Promise<Buffer> => {
  const list = join(folder, "list");
  const archive = join(folder, "layer.tar");
  await writeFile(list, files.map((file) => `${file}\n`).join(""));
  await run("tar", ["-C", "/", "--no-recursion", "--hard-dereference", "-T", list, "-cf", archive]);
  const bytes = await readFile(archive);
  await rm(archive);
  return bytes;
};

type Subject = { what: string; layout: string; layers: Blob[]; packing: Packing; bytes: number };

const makeSubject = async (folder: string, what: string, layers: Buffer[], packing: Packing): Promise<Subject> => {
  const layout = await mkdtemp(join(folder, "layout-"));
  const [image] = await writeLayout(layout, [{ tag: "x", layers, packing: [packing] }]);
  return {
    what,
    layout,
    layers: image?.layers ?? [],
    packing,
    bytes: layers.reduce((sum, layer) => sum + layer.length, 0),
  };
};

const measure = async (folder: string, { what, layout, layers, packing, bytes }: Subject): Promise<Figure[]> => {
  const scratch = join(folder, "scratch");
  const disk = join(folder, "disk.ext4");
  // None waits for the disk because of what the one before it wrote.
  const clean = async () => {
    await rm(scratch, { recursive: true, force: true });
    await run("sync", []);
  };
  const blobs = layers.map(({ digest }) => join(layout, "blobs/sha256", digest.slice(7)));
  const unpack = packing === "zstd" ? "zstd -dqc" : "gzip -dc";
  const size = Math.ceil((bytes * 1.3) / 2 ** 20) + 64;
  const makeDisk = async (root: string) => {
    await rm(disk, { force: true });
    await run("mkfs.ext4", ["-q", "-d", root, disk, `${size}M`], {
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    });
  };
  let peakMiB = 0;
  let ours = 0;
  const works: Record<string, () => Promise<number>> = {
    ours: async () => {
      const env = { ...process.env, ...DAEMON.env, XDG_STATE_HOME: scratch };
      const worker = join(import.meta.dirname, "convert-worker.ts");
      const { stdout } = await run(process.execPath, [...DAEMON.flags, worker, layout], { env });
      const done: { ms: number; peakMiB: number; rootfs: string } = JSON.parse(stdout);
      peakMiB = Math.max(peakMiB, done.peakMiB);
      ours = await bytesOnDisk(done.rootfs);
      return done.ms;
    },
    // Knows no zstd.
    ...(packing === "gzip"
      ? {
          umoci: () =>
            timed(async () => {
              const rootless = process.getuid?.() === 0 ? [] : ["--rootless"];
              await run("umoci", ["raw", "unpack", ...rootless, "--image", `${layout}:x`, scratch]);
              await makeDisk(scratch);
            }),
        }
      : {}),
    tar: () =>
      timed(async () => {
        await mkdir(scratch);
        for (const blob of blobs) await shell(`${unpack} <${blob} | tar -C ${scratch} -x`);
        await makeDisk(scratch);
      }),
    unpack: () => timed(() => shell(blobs.map((blob) => `${unpack} <${blob} >/dev/null`).join(" && "))),
  };
  const times: Record<string, number[]> = {};
  for (let round = 0; round < ROUNDS; round++) {
    const all = Object.entries(works);
    // Each comes after each: what the one before has freed is memory that the next one gets cheaply.
    for (const [name, work] of [...all.slice(round % all.length), ...all.slice(0, round % all.length)]) {
      times[name] = [...(times[name] ?? []), await work()];
      await clean();
    }
  }
  const theirs = await bytesOnDisk(disk);
  const took = (name: string) => median(times[name] ?? []) / 1000;
  const [fast, slow] = spreadOf(times.ours ?? []);
  const against = (name: string, label: string, least: number): Figure => ({
    what: `${what} to a bootable disk`,
    value: round(took("ours")),
    unit: "s",
    n: ROUNDS,
    spread: [fast / 1000, slow / 1000],
    baseline: { what: label, value: round(took(name)) },
    limit: `at least ${least} times as fast: ${(took(name) / took("ours")).toFixed(2)}`,
    holds: took(name) / took("ours") >= least,
  });
  const rate = bytes / MB / took("ours");
  return [
    ...(packing === "gzip" ? [against("umoci", "`umoci unpack` and `mkfs.ext4 -d`", 2)] : []),
    against("tar", "GNU tar layer by layer and `mkfs.ext4 -d`", 1.5),
    {
      what: `${what}: archive unpacked and written`,
      value: round(rate),
      unit: "MB/s",
      n: ROUNDS,
      baseline: { what: `\`${unpack}\` of its layers alone`, value: round(bytes / MB / took("unpack")) },
      limit: `none; share of the unpacker alone: ${(took("unpack") / took("ours")).toFixed(2)}`,
      holds: true,
    },
    {
      what: `${what}: peak memory`,
      value: round(peakMiB),
      unit: "MiB",
      n: ROUNDS,
      limit: "under 200 MiB",
      holds: peakMiB < 200,
    },
    {
      what: `${what}: disk space`,
      value: round(ours / 2 ** 20),
      unit: "MiB",
      n: 1,
      baseline: { what: "`mkfs.ext4 -d`", value: round(theirs / 2 ** 20) },
      limit: `at most 1.1 times: ${(ours / theirs).toFixed(2)}`,
      holds: ours <= 1.1 * theirs,
    },
  ];
};

export const convert = async (host: Host): Promise<Figure[]> => {
  const folder = await mkdtemp(join(host.env.HOME, "convert-"));
  const files = await someFiles(400 * MB);
  const whole = await tarOf(folder, files);
  // Each layer has its share, and some files of the share before again.
  const shares = Array.from({ length: 50 }, (_, index) =>
    files.filter((_file, at) => at % 50 === index || at % 500 === (index + 49) % 50),
  );
  const fifty: Buffer[] = [];
  for (const share of shares) fifty.push(await tarOf(folder, share));
  const figures: Figure[] = [];
  for (const [what, layers, packing] of [
    ["400 MB in one layer, gzip", [whole], "gzip"],
    ["400 MB in one layer, zstd", [whole], "zstd"],
    ["400 MB in 50 layers, gzip", fifty, "gzip"],
  ] as const) {
    const subject = await makeSubject(folder, what, [...layers], packing);
    figures.push(...(await measure(folder, subject)));
    await rm(subject.layout, { recursive: true });
  }
  await rm(folder, { recursive: true });
  return figures;
};
