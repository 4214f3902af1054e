/** Every entry of a converted image, as debugfs reads it, against what umoci unpacks of the same layers. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { silentProgress } from "../../src/contract/progress.ts";
import { imageService } from "../../src/daemon/images/service.ts";
import { imageFiles } from "../../src/host/paths.ts";
import { assertClean, listTree, readInodes, statInodes, xattrsOf } from "../support/ext4-judge.ts";
import { writeLayout } from "../support/oci-layout.ts";
import { type Made, tar } from "../support/tar-builder.ts";

const run = promisify(execFile);
/** Owners and devices need root; set-up has made sure that sudo works where the tests run as somebody else. */
const asRoot = (...argv: string[]) => {
  const [program = "", ...args] = process.getuid?.() === 0 ? argv : ["sudo", "-n", ...argv];
  return run(program, args, { encoding: "utf8", maxBuffer: 1 << 28 });
};

/** In ns. */
const BEGUN = (Date.now() - 60_000) * 1e6;
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-content-"));
  process.env.XDG_STATE_HOME = join(folder, "state");
  process.env.XDG_CACHE_HOME = join(folder, "cache");
});
after(async () => {
  await asRoot("rm", "-rf", join(folder, "reference"));
  await rm(folder, { recursive: true });
});

/** What is compared of an entry. */
type Entry = {
  type: string;
  mode: number;
  uid: number;
  gid: number;
  mtime: string;
  content?: string | undefined;
  target?: string | undefined;
  device?: string | undefined;
  xattrs: Record<string, string>;
  /** Paths that are the same file, joined. */
  names: string;
};

/** Adds to each entry which others are the same file. */
const withNames = (found: { path: string; inode: number; entry: Omit<Entry, "names"> }[]): Record<string, Entry> => {
  const groups = Map.groupBy(found, ({ inode, entry }) => (entry.type === "directory" ? `${inode}d` : String(inode)));
  const names = (key: string) =>
    groups
      .get(key)
      ?.map(({ path }) => path)
      .sort()
      .join(" ") ?? "";
  return Object.fromEntries(
    found
      .sort((a, b) => (a.path < b.path ? -1 : 1))
      .map(({ path, inode, entry }) => [
        path,
        { ...entry, names: entry.type === "directory" ? path : names(String(inode)) },
      ]),
  );
};

const ofReference = async (root: string): Promise<Record<string, Entry>> => {
  const { stdout } = await asRoot("python3", join(import.meta.dirname, "../support/walk-tree.py"), root);
  const latin = (hex: string) => Buffer.from(hex, "hex").toString("latin1");
  return withNames(
    stdout
      .split("\n")
      .filter(Boolean)
      .map((line) => {
        const { path, inode, sha256, target, size: _size, ...rest } = JSON.parse(line);
        return { path: latin(path), inode, entry: { ...rest, content: sha256, target: target && latin(target) } };
      }),
  );
};

const mtimeOf = (text: string): string => {
  const [seconds = 0, extra = 0] = text.split(":").map((part, index) => Number.parseInt(part, index === 0 ? 16 : 16));
  return String(
    BigInt(seconds | 0) * 1_000_000_000n + BigInt(extra & 3) * 4_294_967_296_000_000_000n + BigInt(extra >>> 2),
  );
};

const typeOf: Record<string, string> = {
  regular: "file",
  directory: "directory",
  symlink: "symlink",
  "character special": "char",
  "block special": "block",
  FIFO: "fifo",
};

const ofImage = async (image: string): Promise<Record<string, Entry>> => {
  const listed = (await listTree(image, folder)).filter(({ path }) => path !== "lost+found");
  const inodes = listed.map(({ inode }) => inode);
  const stats = await statInodes(image, folder, inodes);
  const xattrs = await xattrsOf(image, folder, inodes);
  const readable = inodes.filter(
    (_, i) => stats[i]?.type === "regular" || (stats[i]?.type === "symlink" && stats[i]?.target === undefined),
  );
  const contents = new Map((await readInodes(image, folder, readable)).map((bytes, i) => [readable[i], bytes]));
  return withNames(
    listed.map(({ path, inode }, i) => {
      const stat = stats[i] ?? assert.fail(path);
      const type = typeOf[stat.type] ?? stat.type;
      const bytes = contents.get(inode) ?? Buffer.alloc(0);
      return {
        path,
        inode,
        entry: {
          type,
          mode: stat.mode & 0o7777,
          // debugfs shows owners as signed numbers.
          uid: stat.uid >>> 0,
          gid: stat.gid >>> 0,
          mtime: mtimeOf(stat.times[2] ?? ""),
          content: type === "file" ? createHash("sha256").update(bytes).digest("hex") : undefined,
          target: type === "symlink" ? (stat.target ?? bytes.toString("latin1")) : undefined,
          ...(stat.device ? { device: stat.device.replace(/\b0+(?=\d)/g, "") } : {}),
          xattrs: Object.fromEntries(xattrs[i] ?? []),
        },
      };
    }),
  );
};

const compare = async (name: string, layers: Buffer[]): Promise<Record<string, Entry>> => {
  const layout = join(folder, `${name}-layout`);
  await mkdir(layout);
  await writeLayout(layout, [{ tag: "x", layers, packing: ["gzip", "none"] }]);
  const reference = join(folder, "reference", name);
  await mkdir(join(folder, "reference"), { recursive: true });
  await asRoot("umoci", "raw", "unpack", "--image", `${layout}:x`, reference);
  await imageService().importImage({ path: layout, name }, new PassThrough().end(), silentProgress());
  await assertClean(imageFiles(name).rootfs);
  const [found, expected] = await Promise.all([ofImage(imageFiles(name).rootfs), ofReference(reference)]);
  assert.deepEqual(Object.keys(found), Object.keys(expected));
  for (const [path, entry] of Object.entries(expected)) {
    // umoci leaves a folder with the time at which it last put something in it or took something out.
    const isNow = entry.type === "directory" && Number(entry.mtime) > BEGUN;
    const wanted = isNow ? { ...entry, mtime: found[path]?.mtime } : entry;
    assert.deepEqual(JSON.parse(JSON.stringify(found[path])), JSON.parse(JSON.stringify(wanted)), path);
  }
  return found;
};

/** Numbers that look random and are the same each time. */
const random = (seed: number) => {
  let state = seed;
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
};

/** A layer of entries whose folders come first, with attributes of all kinds. */
const randomLayer = (seed: number): Buffer => {
  const next = random(seed);
  const folders = new Map<string, Made>();
  const files = new Map<string, Made>();
  const common = (kind: "plain" | "special" = "special"): Partial<Made> => ({
    uid: [0, 1000, 65_536, 4_000_000_000][next(4)] ?? 0,
    gid: [0, 50, 70_000, 2 ** 31][next(4)] ?? 0,
    mode: [0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o600, 0][next(7)] ?? 0,
    mtime: 1_500_000_000 + next(1e8),
    ...(next(3) === 0
      ? {
          pax: {
            mtime: `${next(2) ? 1_600_000_000 : -1}.${String(next(1e9)).padStart(9, "0")}`,
            ...(kind === "plain" && next(2) ? { "SCHILY.xattr.user.note": "v".repeat(next(200)) } : {}),
          },
        }
      : {}),
  });
  for (let i = 0; i < 150; i++) {
    const parts = Array.from({ length: next(4) }, () => `d${next(5)}`);
    for (let depth = 1; depth <= parts.length; depth++) {
      const path = parts.slice(0, depth).join("/");
      if (!folders.has(path)) folders.set(path, { ...common("plain"), name: path, type: "5" });
    }
    const parent = parts.length > 0 ? `${parts.join("/")}/` : "";
    const name = `${parent}f${next(12)}`;
    const hidden = `${parent}.wh.f${next(12)}`;
    const kind = next(20);
    const earlier = [...files.values()].filter(
      ({ type, name: other }) => (type ?? "0") === "0" && !other.includes(".wh."),
    );
    if (kind === 0) files.set(hidden, { name: hidden, data: "" });
    else if (kind === 1 && parent !== "")
      files.set(`${parent}.wh..wh..opq`, { name: `${parent}.wh..wh..opq`, data: "" });
    else if (files.has(name)) continue;
    else if (kind === 2)
      files.set(name, { ...common(), name, type: "2", link: next(2) ? `t${"x".repeat(next(90))}` : `/abs/${next(9)}` });
    else if (kind === 3) files.set(name, { ...common(), name, type: "3", major: next(300), minor: next(100_000) });
    else if (kind === 4) files.set(name, { ...common(), name, type: "6" });
    else if (kind === 5 && earlier.length > 0)
      files.set(name, { name, type: "1", link: earlier[next(earlier.length)]?.name ?? "" });
    else
      files.set(name, {
        ...common("plain"),
        name,
        data: Buffer.alloc(next(3) === 0 ? next(20_000) : next(50), 1 + next(250)),
      });
  }
  return tar([...folders.values(), ...files.values()]);
};

test("five layers of random entries are, entry by entry, what umoci makes of them", async () => {
  const found = await compare(
    "random",
    [1, 2, 3, 4, 5].map((seed) => randomLayer(seed * 7919)),
  );
  const types = new Set(Object.values(found).map(({ type }) => type));
  assert.deepEqual([...types].sort(), ["char", "directory", "fifo", "file", "symlink"]);
  assert.ok(Object.keys(found).length > 100, `${Object.keys(found).length} entries`);
  assert.ok(
    Object.values(found).some(({ names }) => names.includes(" ")),
    "hard links",
  );
});

test("capabilities, long and strange names, long targets, sparse files, and folders that become files and back", async () => {
  const capability = Buffer.from("0100000200040000000000000000000000000000", "hex").toString("latin1");
  const strange = Array.from({ length: 254 }, (_, i) => String.fromCharCode(i + 1))
    .join("")
    .replace(/[\r\n/]/g, "");
  const owned = { uid: 5, gid: 6, mtime: 1_600_000_000 };
  const found = await compare("strange", [
    tar([
      { ...owned, name: "bin/", type: "5" },
      {
        ...owned,
        name: "bin/ping",
        data: "x",
        mode: 0o755,
        pax: { "SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.big": "b".repeat(1500) },
      },
      { ...owned, name: "long/", type: "5" },
      { ...owned, name: `long/${strange}`, data: "s" },
      { ...owned, name: `long/${"n".repeat(255)}`, type: "2", link: `${"deep/".repeat(100)}target` },
      { ...owned, name: "flip/", type: "5" },
      { ...owned, name: "flip/old", data: "o" },
      { ...owned, name: "flop", data: "o" },
      {
        ...owned,
        name: "holes",
        pax: {
          "GNU.sparse.major": "0",
          "GNU.sparse.minor": "1",
          "GNU.sparse.size": "1000000",
          "GNU.sparse.numblocks": "2",
          "GNU.sparse.map": "8192,3,500000,2",
          "GNU.sparse.name": "holes",
        },
        data: "abcde",
      },
    ]),
    tar([
      { ...owned, name: "flip", data: "now a file" },
      { ...owned, name: "flop/", type: "5", mode: 0o700 },
      { ...owned, name: "flop/in", data: "i" },
    ]),
    tar([
      { ...owned, name: "flip/", type: "5", mode: 0o711 },
      { ...owned, name: "flip/new", data: "n" },
      { ...owned, name: "holes2", type: "1", link: "flip/new" },
    ]),
  ]);
  assert.equal(found["bin/ping"]?.xattrs["security.capability"], "0100000200040000000000000000000000000000");
  assert.deepEqual([found["flip/new"]?.names, "flip/old" in found], ["flip/new holes2", false]);
});
