import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import {
  link,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import fc from "fast-check";
import { entry, type Made, sealed, tar } from "../../../test/support/tar-builder.ts";
import { TarError } from "./error.ts";
import { readTar, type TarEntry } from "./reader.ts";

const run = promisify(execFile);
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-tar-"));
});
after(() => rm(folder, { recursive: true }));

type Read = Omit<TarEntry, "content"> & { data: Buffer; holes: number };

/** In chunks of an awkward size, so that nothing lies where a reader would like it. */
async function* chunks(bytes: Buffer, size: number): AsyncGenerator<Buffer, void, void> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const readAll = async (bytes: Buffer, size = 1000): Promise<Read[]> => {
  const found: Read[] = [];
  for await (const { content, ...rest } of readTar(chunks(bytes, size))) {
    const data = Buffer.alloc(rest.size);
    let at = 0;
    let holes = 0;
    await content({
      write: (chunk) => {
        at += chunk.copy(data, at);
      },
      hole: (count) => {
        at += count;
        holes += count;
      },
    });
    assert.equal(at, rest.size, rest.name);
    found.push({ ...rest, data, holes });
  }
  return found;
};

const one = async (made: Made): Promise<Read> => (await readAll(tar([made])))[0] ?? assert.fail("no entry");

const long = (letter: string, length: number): string =>
  Array.from({ length: Math.ceil(length / 50) }, () => letter.repeat(49)).join("/");

for (const format of ["v7", "ustar", "oldgnu", "gnu", "posix"]) {
  test(`what GNU tar writes in the format ${format} is read as it lies on the disk`, async () => {
    const root = join(folder, format);
    const deep = format === "v7" ? "deep" : format === "ustar" ? long("d", 150) : long("d", 600);
    await mkdir(join(root, deep), { recursive: true });
    await writeFile(join(root, "plain"), "some text");
    await writeFile(join(root, "empty"), "");
    await writeFile(join(root, deep, "b\u00e4r"), Buffer.alloc(3000, 7), { mode: 0o751 });
    await link(join(root, "plain"), join(root, "zlink"));
    await symlink("plain", join(root, "sym"));
    if (format !== "v7" && format !== "ustar") await symlink(long("t", 300), join(root, "long"));
    await utimes(join(root, "plain"), 1.5, 1_600_000_000.25);
    const { stdout } = await run("tar", ["-C", root, `--format=${format}`, "--sort=name", "-c", "."], {
      encoding: "buffer",
      maxBuffer: 1e9,
    });
    const entries = await readAll(stdout);
    const there = await readdir(root, { recursive: true });
    assert.equal(entries.length, there.length + 1);
    for (const read of entries) {
      const path = join(root, Buffer.from(read.name, "latin1").toString("utf8"));
      const stats = await lstat(path);
      assert.equal(read.type === "hardlink" || read.mode === (stats.mode & 0o7777), true, read.name);
      assert.deepEqual([read.uid, read.gid], [stats.uid, stats.gid]);
      assert.equal(read.mtime.seconds, Math.floor(stats.mtimeMs / 1000));
      if (read.type === "file") assert.deepEqual(read.data, await readFile(path));
      if (read.type === "symlink") assert.equal(read.link, await readlink(path));
      if (read.type === "hardlink") assert.match(read.link, /plain$/);
    }
    if (format === "posix")
      assert.equal(entries.find(({ name }) => name.endsWith("/plain"))?.mtime.nanoseconds, 250_000_000);
  });
}

for (const [format, version] of [
  ["gnu", ""],
  ["posix", "0.0"],
  ["posix", "0.1"],
  ["posix", "1.0"],
] as const) {
  test(`a sparse file in the format ${format} ${version} has its content and its holes`, async () => {
    const root = join(folder, `sparse-${format}-${version}`);
    await mkdir(root);
    const file = await open(join(root, "holes"), "w");
    // Over 25 parts: more than one block of a map.
    for (let i = 0; i < 60; i++) await file.write(Buffer.alloc(4096, i + 1), 0, 4096, i * 65536);
    await file.truncate(60 * 65536);
    await file.close();
    const { stdout } = await run(
      "tar",
      ["-C", root, "-S", `--format=${format}`, ...(version ? [`--sparse-version=${version}`] : []), "-c", "holes"],
      { encoding: "buffer", maxBuffer: 1e9 },
    );
    const [read = assert.fail(), ...others] = await readAll(stdout);
    assert.deepEqual(read.data, await readFile(join(root, "holes")));
    assert.ok(read.holes > 50 * 61440, `${read.holes} bytes of holes`);
    assert.equal(read.name, "holes");
    assert.equal(others.length, 0);
  });
}

test("ids over 65535 and 2^21, times before 1970 and to the nanosecond, names of any bytes", async () => {
  assert.deepEqual(
    [(await one({ name: "a", uid: 4_000_000_000, gid: 70_000 })).uid, (await one({ name: "a", gid: 70_000 })).gid],
    [4_000_000_000, 70_000],
  );
  const pax = await one({
    name: "a",
    pax: { uid: "4294967294", gid: "2097152", mtime: "-1.25", path: "\xff\xfe\n=", linkpath: "" },
  });
  assert.deepEqual([pax.uid, pax.gid, pax.name], [4294967294, 2097152, "\xff\xfe\n="]);
  assert.deepEqual(pax.mtime, { seconds: -2, nanoseconds: 750_000_000 });
  assert.deepEqual((await one({ name: "a", mtime: -86400 })).mtime, { seconds: -86400, nanoseconds: 0 });
  assert.deepEqual((await one({ name: "a", pax: { mtime: "1700000000.123456789999" } })).mtime, {
    seconds: 1_700_000_000,
    nanoseconds: 123_456_789,
  });
  const bytes = Array.from({ length: 255 }, (_, i) => String.fromCharCode(i + 1))
    .join("")
    .replace("/", "");
  assert.equal((await one({ name: bytes, data: "x" })).name, bytes);
});

test("setuid, devices, fifos and extended attributes", async () => {
  assert.equal((await one({ name: "su", mode: 0o104755 })).mode, 0o4755);
  const device = await one({ name: "dev", type: "3", major: 259, minor: 70_000 });
  assert.deepEqual([device.type, device.device], ["char", { major: 259, minor: 70_000 }]);
  assert.equal((await one({ name: "pipe", type: "6" })).type, "fifo");
  const capability = Buffer.from([1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0]);
  const read = await one({
    name: "ping",
    pax: { "SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.x=y": "v" } as never,
  });
  assert.deepEqual(read.xattrs?.get("security.capability"), Uint8Array.from(capability));
  const archived = await one({
    name: "a",
    pax: { "LIBARCHIVE.xattr.user.n%20m": Buffer.from("value").toString("base64") },
  });
  assert.deepEqual(archived.xattrs?.get("user.n m"), Uint8Array.from(Buffer.from("value")));
});

test("global headers hold until they are changed, own headers come first", async () => {
  const global = (records: Record<string, string>) =>
    entry({
      name: "g",
      type: "g",
      data: Object.entries(records)
        .map(([k, v]) => record(k, v))
        .join(""),
    });
  const record = (key: string, value: string) => {
    const body = ` ${key}=${value}\n`;
    const length = body.length + String(body.length + 2).length;
    return `${length}${body}`;
  };
  const read = await readAll(
    tar([
      global({ uid: "5", comment: "x" }),
      { name: "a" },
      { name: "b", pax: { uid: "6" } },
      global({ uid: "7" }),
      { name: "c" },
    ]),
  );
  assert.deepEqual(
    read.map(({ name, uid }) => [name, uid]),
    [
      ["a", 5],
      ["b", 6],
      ["c", 7],
    ],
  );
});

test("an archive without its end marks is taken at the edge of an entry, and nowhere else", async () => {
  const whole = tar([
    { name: "a", data: "x".repeat(700) },
    { name: "b", pax: { uid: "1" }, data: "y" },
  ]);
  const edges = new Set([0, 1536, whole.length - 1024, whole.length - 512, whole.length]);
  for (let length = 0; length <= whole.length; length += 128) {
    const cut = readAll(whole.subarray(0, length), 333);
    if (edges.has(length)) await cut;
    else if (length < whole.length - 1024)
      await assert.rejects(cut, (error) => error instanceof TarError && error.kind === "corrupt", `at ${length}`);
    else await cut.catch((error: unknown) => assert.ok(error instanceof TarError));
  }
});

test("no bytes make the reader do anything but read or refuse", async () => {
  const seed = tar([
    { name: "a", data: "xyz" },
    {
      name: "b",
      pax: { "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9", "GNU.sparse.name": "b" },
      data: `${"1\n0\n3\n".padEnd(512, "\0")}abc`,
    },
  ]);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(seed.length - 1), fc.nat(255)), { maxLength: 6 }),
      fc.boolean(),
      async (changes, seal) => {
        const bytes = Buffer.from(seed);
        for (const [at, value] of changes) bytes[at] = value;
        if (seal)
          for (let at = 0; at + 512 <= bytes.length; at += 512)
            if (bytes.toString("latin1", at + 257, at + 262) === "ustar") sealed(bytes.subarray(at, at + 512));
        try {
          for await (const read of readTar(chunks(bytes, 700)))
            if (read.size < 1e6) await read.content({ write: () => undefined, hole: () => undefined });
        } catch (error) {
          assert.ok(error instanceof TarError, String(error));
        }
      },
    ),
    { numRuns: 2000 },
  );
});
