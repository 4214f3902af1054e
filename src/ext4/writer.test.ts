import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, open, readFile, rm, stat, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import fc from "fast-check";
import { assertClean, debugfs, listTree, readInodes, statInodes, xattrsOf } from "../../test/support/ext4-judge.ts";
import { type Attributes, createExt4Writer, type Ext4Options, type Ext4Writer } from "./writer.ts";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-ext4-"));
});
after(() => rm(folder, { recursive: true }));

const uuid = Buffer.from("6f0c2a7e9b1d4c388a5e1b2c3d4e5f60", "hex");
const plain: Attributes = { mode: 0o644, uid: 0, gid: 0, mtime: { seconds: 1_700_000_000, nanoseconds: 123_456_789 } };

type Finished = Awaited<ReturnType<Ext4Writer["finish"]>>;

const build = async (
  name: string,
  fill: (writer: Ext4Writer) => Promise<void> | void,
  options: Partial<Ext4Options> = {},
): Promise<Finished & { image: string }> => {
  const image = join(folder, name);
  const file = await open(image, "w");
  try {
    const writer = createExt4Writer(file, { label: "test", uuid, ...options });
    await fill(writer);
    return { ...(await writer.finish()), image };
  } finally {
    await file.close();
  }
};

const put = async (writer: Ext4Writer, path: string, content: Uint8Array, attributes = plain): Promise<void> => {
  const sink = await writer.file(path, attributes, content.length);
  await sink.write(content);
  await sink.end();
};

/** A piece of a file: bytes, or a hole. */
type Piece = { byte: number; length: number; isHole: boolean };
type Made = { attributes: Attributes } & (
  | { kind: "directory" }
  | { kind: "file"; pieces: Piece[] }
  | { kind: "symlink"; target: string }
  | { kind: "special"; type: "char" | "block" | "fifo" | "socket"; major: number; minor: number }
  | { kind: "link" }
);

/** What a folder is like that nobody described. */
const implicit: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: { seconds: 0, nanoseconds: 0 } };

const segment = fc
  .oneof(
    fc.stringMatching(/^[a-z0-9._+ -]{1,12}$/),
    fc.stringMatching(/^[\u00a1-\u00ff]{1,80}$/),
    fc.stringMatching(/^[a-z]{200,255}$/),
  )
  .filter((name) => name !== "." && name !== ".." && name.trim() === name);
const number32 = fc.oneof(fc.integer({ min: 0, max: 70_000 }), fc.integer({ min: 0, max: 2 ** 32 - 1 }));
const xattrs = fc.dictionary(
  fc.oneof(fc.constant("security.capability"), fc.stringMatching(/^(user|trusted|security)\.[a-z0-9]{1,40}$/)),
  fc.oneof(fc.uint8Array({ maxLength: 24 }), fc.uint8Array({ minLength: 30, maxLength: 600 })),
  { maxKeys: 4 },
);
const attributes: fc.Arbitrary<Attributes> = fc.record({
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: number32,
  gid: number32,
  mtime: fc.record({
    seconds: fc.integer({ min: -(2 ** 31), max: 10_000_000_000 }),
    nanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
  }),
  xattrs: xattrs.map((dictionary) => new Map(Object.entries(dictionary))),
});
const piece: fc.Arbitrary<Piece> = fc.record({
  byte: fc.constantFrom(0, 1, 255),
  length: fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 20_000 }), fc.constantFrom(4096, 8192)),
  isHole: fc.boolean(),
});
const made: fc.Arbitrary<Made> = fc.oneof(
  fc.record({ kind: fc.constant("directory" as const), attributes }),
  fc.record({ kind: fc.constant("file" as const), attributes, pieces: fc.array(piece, { maxLength: 12 }) }),
  fc.record({
    kind: fc.constant("symlink" as const),
    attributes,
    target: fc.oneof(fc.stringMatching(/^[a-z/.]{1,64}$/), fc.stringMatching(/^[a-z/]{59,61}$/)),
  }),
  fc.record({
    kind: fc.constant("special" as const),
    attributes,
    type: fc.constantFrom("char" as const, "block" as const, "fifo" as const, "socket" as const),
    major: fc.integer({ min: 0, max: 4095 }),
    minor: fc.integer({ min: 0, max: 2 ** 20 - 1 }),
  }),
  fc.record({ kind: fc.constant("link" as const), attributes }),
);

/** Paths of a tree: each entry goes below one of the folders before it, or into a folder that nobody asked for. */
const trees = fc
  .array(fc.record({ name: segment, above: fc.nat(), via: fc.option(segment, { freq: 8 }), entry: made }), {
    maxLength: 40,
  })
  .map((steps) => {
    const entries = new Map<string, Made>();
    const implied = new Set<string>();
    const folders = [""];
    for (const { name, above, via, entry } of steps) {
      const base = folders[above % folders.length] ?? "";
      const parent = via === null ? base : base === "" ? via : `${base}/${via}`;
      if (via !== null && entries.has(parent)) continue;
      const path = parent === "" ? name : `${parent}/${name}`;
      if (entries.has(path) || implied.has(path)) continue;
      if (via !== null) implied.add(parent);
      entries.set(path, entry);
      if (entry.kind === "directory") folders.push(path);
    }
    return { entries, implied };
  });

const bytesOf = (pieces: Piece[]): Buffer =>
  Buffer.concat(pieces.map(({ byte, length, isHole }) => Buffer.alloc(length, isHole ? 0 : byte)));

const typeNames = { char: "character special", block: "block special", fifo: "FIFO", socket: "socket" };
const typeOf = (entry: Made): string =>
  entry.kind === "special" ? typeNames[entry.type] : entry.kind === "file" ? "regular" : entry.kind;

const hexTime = ({ seconds, nanoseconds }: Attributes["mtime"]): string => {
  const hex = (value: number) => (value >>> 0).toString(16).padStart(8, "0");
  return `0x${hex(seconds)}:${hex((nanoseconds << 2) | ((seconds - (seconds | 0)) / 2 ** 32))}`;
};

/** The attribute as debugfs shows it. */
const xattrsInHex = (attributes: Attributes): Map<string, string> =>
  new Map([...(attributes.xattrs ?? [])].map(([name, value]) => [name, Buffer.from(value).toString("hex")]));

const LINKED = "linked file";
const linked: Made = { kind: "file", attributes: plain, pieces: [{ byte: 7, length: 10, isHole: false }] };

const write = async (writer: Ext4Writer, path: string, entry: Made): Promise<void> => {
  const { attributes } = entry;
  if (entry.kind === "directory") writer.directory(path, attributes);
  else if (entry.kind === "symlink") writer.symlink(path, attributes, entry.target);
  else if (entry.kind === "special") writer.special(path, attributes, entry.type, entry);
  else if (entry.kind === "link") writer.link(path, LINKED);
  else {
    const sink = await writer.file(path, attributes, bytesOf(entry.pieces).length);
    for (const { byte, length, isHole } of entry.pieces)
      await (isHole ? sink.hole(length) : sink.write(Buffer.alloc(length, byte)));
    await sink.end();
  }
};

/** Compares what debugfs tells of inodes with what they were made of. */
const compare = async (image: string, made: Map<number, { entry: Made; label: string }>): Promise<void> => {
  const inodes = [...made.keys()];
  const stats = await statInodes(image, folder, inodes);
  const xattrs = await xattrsOf(image, folder, inodes);
  const withContent = inodes.filter((inode) => {
    const entry = made.get(inode)?.entry;
    return entry?.kind === "file" || (entry?.kind === "symlink" && entry.target.length >= 60);
  });
  const contents = await readInodes(image, folder, withContent);
  for (const [index, inode] of inodes.entries()) {
    const { entry, label } = made.get(inode) ?? assert.fail();
    const found = stats[index] ?? assert.fail();
    const { mode, uid, gid, mtime } = entry.attributes;
    // debugfs shows owners as signed numbers.
    assert.deepEqual([found.type, found.mode, found.uid, found.gid], [typeOf(entry), mode, uid | 0, gid | 0], label);
    assert.deepEqual(new Set(found.times), new Set([hexTime(mtime)]), label);
    assert.deepEqual(xattrs[index], xattrsInHex(entry.attributes), label);
    const content = contents[withContent.indexOf(inode)];
    if (entry.kind === "file") {
      assert.equal(found.size, bytesOf(entry.pieces).length);
      assert.ok(content?.equals(bytesOf(entry.pieces)), label);
    }
    if (entry.kind === "symlink") assert.equal(content?.toString() ?? found.target, entry.target, label);
    if (entry.kind === "special" && (entry.type === "char" || entry.type === "block"))
      assert.deepEqual(found.device?.split(":").map(Number), [entry.major, entry.minor], label);
  }
};

test("any tree comes back entry for entry, and a check finds nothing", async () => {
  await fc.assert(
    fc.asyncProperty(trees, fc.boolean(), async ({ entries, implied }, linksFirst) => {
      const { image, entries: count } = await build("random", async (writer) => {
        if (!linksFirst) await write(writer, LINKED, linked);
        for (const [path, entry] of entries) await write(writer, path, entry);
        if (linksFirst) await write(writer, LINKED, linked);
      });
      await assertClean(image);
      const listed = (await listTree(image, folder)).filter(({ path }) => path !== "lost+found");
      const all = [...entries.keys(), ...implied, LINKED];
      assert.deepEqual(listed.map(({ path }) => path).sort(), all.sort());
      assert.equal(count, all.length);
      const inodeOfLinked = listed.find(({ path }) => path === LINKED)?.inode;
      const made = new Map<number, { entry: Made; label: string }>();
      for (const { path, inode } of listed) {
        const entry = path === LINKED ? linked : entries.get(path);
        if (entry?.kind === "link") assert.equal(inode, inodeOfLinked);
        else
          made.set(inode, { entry: entry ?? { kind: "directory", attributes: implicit }, label: JSON.stringify(path) });
      }
      await compare(image, made);
      const links = [...entries.values()].filter(({ kind }) => kind === "link").length;
      assert.equal((await statInodes(image, folder, [inodeOfLinked ?? 0]))[0]?.links, 1 + links);
    }),
    { numRuns: 30, interruptAfterTimeLimit: 100_000, markInterruptAsFailure: true },
  );
});

test("a folder of 100,000 names is an index in which every name is found", async () => {
  const { image } = await build("wide", async (writer) => {
    for (let index = 0; index < 100_000; index++) writer.symlink(`wide/entry-${index}`, plain, `${index}`);
    // Long names need an index of two levels.
    for (let index = 0; index < 10_000; index++) writer.special(`long/${"n".repeat(240)}-${index}`, plain, "fifo");
  });
  await assertClean(image);
  const listed = await listTree(image, folder);
  assert.equal(new Set(listed.map(({ path }) => path)).size, 110_003);
  const [wide, long] = await debugfs(image, folder, ["htree_dump wide", "htree_dump long"]);
  assert.match(wide ?? "", /Hash Version: 1\s+Info length: 8\s+Indirect levels: 0/);
  assert.match(long ?? "", /Hash Version: 1\s+Info length: 8\s+Indirect levels: 1/);
});

test("a folder may have more subfolders than a count of links can tell", async () => {
  const { image } = await build("deep", (writer) => {
    for (let index = 0; index < 65_100; index++) writer.directory(`many/${index}`, { ...plain, mode: 0o755 });
    for (let index = 0; index < 500; index++) writer.directory(`few/${index}`, { ...plain, mode: 0o755 });
  });
  await assertClean(image);
  const inodes = (await listTree(image, folder)).filter(({ path }) => path === "many" || path === "few");
  const stats = await statInodes(
    image,
    folder,
    inodes.map(({ inode }) => inode),
  );
  assert.deepEqual(stats.map(({ links }) => links).sort(), [1, 502]);
});

test("large, fragmented and sparse files keep their content and take no more than they hold", async () => {
  const fragments = 3000;
  const big = Buffer.alloc(150 << 20);
  for (let at = 0; at < big.length; at += 4096) big.writeUInt32LE(at + 1, at);
  const { image, bytesUsed } = await build("large", async (writer) => {
    await put(writer, "big", big);
    const fragmented = await writer.file("fragmented", plain, fragments * 8192);
    for (let index = 0; index < fragments; index++) {
      await fragmented.write(Buffer.alloc(4096, `${index} `));
      await fragmented.hole(4096);
    }
    await fragmented.end();
    const size = 7 * 2 ** 30 + 5;
    const sparse = await writer.file("sparse", plain, size);
    await sparse.hole(size - 5);
    await sparse.write(Buffer.from("12345"));
    await sparse.end();
    await put(writer, "zeros", Buffer.alloc(5_000_000));
    await put(writer, "empty", Buffer.alloc(0));
  });
  await assertClean(image);
  assert.ok((await stat(image)).blocks * 512 < (150 << 20) + fragments * 4096 + (2 << 20), `${bytesUsed}`);
  const inodes = (await listTree(image, folder)).filter(({ path }) => path !== "lost+found");
  const stats = new Map(
    (
      await statInodes(
        image,
        folder,
        inodes.map(({ inode }) => inode),
      )
    ).map((one, at) => [inodes[at]?.path, one]),
  );
  // 3000 runs: nine blocks of runs, and one above them.
  assert.equal(stats.get("fragmented")?.sectors, (fragments + 10) * 8);
  assert.equal(stats.get("sparse")?.size, 7 * 2 ** 30 + 5);
  assert.equal(stats.get("sparse")?.sectors, 8);
  assert.equal(stats.get("zeros")?.sectors, 0);
  const inodeOf = (path: string) => inodes.find((one) => one.path === path)?.inode ?? 0;
  const [readBig, readFragmented] = await readInodes(image, folder, [inodeOf("big"), inodeOf("fragmented")]);
  assert.ok(readBig?.equals(big));
  for (let index = 0; index < fragments; index++) {
    const at = index * 8192;
    assert.ok(readFragmented?.subarray(at, at + 4096).equals(Buffer.alloc(4096, `${index} `)));
    assert.ok(readFragmented?.subarray(at + 4096, at + 8192).equals(Buffer.alloc(4096)));
  }
});

const sha256Of = async (path: string): Promise<string> =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

test("the same entries give the same bytes, in whatever pieces they come", async () => {
  const content = Buffer.alloc(1_000_000, "content of the file");
  const digests: string[] = [];
  for (const pieces of [1_000_000, 1000, 4096, 65_536]) {
    const { image } = await build(`same-${pieces}`, async (writer) => {
      const sink = await writer.file("usr/file", plain, content.length);
      for (let at = 0; at < content.length; at += pieces) await sink.write(content.subarray(at, at + pieces));
      await sink.end();
      for (let index = 0; index < 300; index++) writer.symlink(`links/${index}`, plain, "x".repeat(index + 1));
    });
    digests.push(await sha256Of(image));
  }
  assert.equal(new Set(digests).size, 1);
  const { image } = await build("other-uuid", (writer) => put(writer, "a", content), { uuid: Buffer.alloc(16, 1) });
  assert.ok(!digests.includes(await sha256Of(image)));
});

test("resize2fs enlarges the file system, past the first 64 groups too, and it stays clean", async () => {
  const { image } = await build("grows", async (writer) => {
    for (let index = 0; index < 2000; index++) await put(writer, `d${index % 7}/f${index}`, Buffer.alloc(5000, "x"));
  });
  for (const size of [300 << 20, 20 * 2 ** 30]) {
    await truncate(image, size);
    await promisify(execFile)("resize2fs", [image], { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` } });
    await assertClean(image);
  }
  assert.equal((await listTree(image, folder)).length, 2008);
});

test("a size that was given is kept, and one that is too small is refused", async () => {
  for (const size of [8 << 20, 300 << 20, 9 * 2 ** 30 + 4096]) {
    const made = await build("sized", (writer) => put(writer, "a", Buffer.from("a")), {
      size,
      label: "sixteen-bytes-16",
    });
    assert.equal(made.size, size);
    assert.equal((await stat(made.image)).size, size);
    assert.ok((await stat(made.image)).blocks * 512 < 1 << 20);
    await assertClean(made.image);
  }
  const size = 4 << 20;
  const tooLarge = {
    code: "IMAGE_TOO_LARGE",
    message: /do not fit into a file system of 4194304 bytes/,
    hint: /larger/,
  };
  await assert.rejects(
    build("small", (writer) => put(writer, "a", Buffer.alloc(5 << 20, 1)), { size }),
    tooLarge,
  );
  await assert.rejects(
    build("small", (writer) => put(writer, "a", Buffer.alloc((4 << 20) - 8192, 1)), { size }),
    tooLarge,
  );
  const manyEntries = (writer: Ext4Writer) => {
    for (let index = 0; index < 40_000; index++) writer.symlink(`${index}`, plain, "x");
  };
  await assert.rejects(build("small", manyEntries, { size: 100 << 20 }), { code: "IMAGE_TOO_LARGE" });
  await assertClean((await build("many", manyEntries)).image);
});

test("a full disk is told as what it is", async () => {
  const file = await open("/dev/full", "w");
  try {
    const writer = createExt4Writer(file, { label: "full", uuid });
    await assert.rejects(put(writer, "a", Buffer.alloc(20 << 20, 1)), { code: "DISK_FULL", hint: /free some space/ });
  } finally {
    await file.close();
  }
});

test("what ext4 cannot hold is refused with the path", async () => {
  const file = (writer: Ext4Writer, path: string) => put(writer, path, Buffer.from("x"));
  const withXattr = (name: string, value: Uint8Array): Attributes => ({ ...plain, xattrs: new Map([[name, value]]) });
  const cases: [RegExp, (writer: Ext4Writer) => Promise<void> | void][] = [
    [/a\/\.\.\/b cannot be stored: it has a part that is "\.\."/, (writer) => file(writer, "a/../b")],
    [/\/etc cannot be stored: it begins with a slash/, (writer) => file(writer, "/etc")],
    [/part that is ""/, (writer) => file(writer, "a//b")],
    [/part that is ""/, (writer) => writer.directory("a/", plain)],
    [/part that is "\."/, (writer) => writer.symlink(".", plain, "x")],
    [/zero byte/, (writer) => file(writer, "a\0b")],
    [/not given as bytes/, (writer) => file(writer, "\u20ac")],
    [/256 bytes, and may have 255/, (writer) => file(writer, "n".repeat(256))],
    [/a\/b cannot be stored: a is not a directory/, (writer) => file(writer, "a").then(() => file(writer, "a/b"))],
    [/a cannot be stored: it is there already/, (writer) => file(writer, "a").then(() => writer.link("a", "b"))],
    [/there already, and no directory/, (writer) => file(writer, "a").then(() => writer.directory("a", plain))],
    [/there already/, (writer) => void [writer.directory("a", plain), writer.special("a", plain, "fifo")]],
    [/there already/, (writer) => writer.special("lost+found", plain, "fifo")],
    [/it links to b, which is not there/, (writer) => writer.link("a", "b")],
    [/it links to b, which is a directory/, (writer) => void [writer.directory("b", plain), writer.link("a", "b")]],
    [/leads back to it/, (writer) => void [writer.link("a", "b"), writer.link("b", "a")]],
    [
      /65000 names/,
      async (writer) => {
        await file(writer, "a");
        for (let index = 0; index < 65_000; index++) writer.link(`${index}`, "a");
      },
    ],
    [
      /3 were announced|more bytes came/,
      async (writer) => (await writer.file("a", plain, 3)).write(Buffer.from("1234")),
    ],
    [
      /2 bytes came, and 3 were announced/,
      async (writer) => {
        const sink = await writer.file("a", plain, 3);
        await sink.write(Buffer.from("12"));
        await sink.end();
      },
    ],
    [/cannot have 2e\+300 bytes|cannot have/, async (writer) => void (await writer.file("a", plain, 2e300))],
    [/points to 1 to 4095 bytes/, (writer) => writer.symlink("a", plain, "")],
    [/points to 1 to 4095 bytes/, (writer) => writer.symlink("a", plain, "x".repeat(4096))],
    [/no device with the numbers 4096, 0/, (writer) => writer.special("a", plain, "char", { major: 4096, minor: 0 })],
    [/no device/, (writer) => writer.special("a", plain, "block")],
    [/no extended attribute com\.apple/, (writer) => writer.directory("a", withXattr("com.apple.x", Buffer.alloc(1)))],
    [/4060|take \d+ bytes, and may take/, (writer) => writer.directory("a", withXattr("user.x", Buffer.alloc(5000)))],
    [
      /access control list is damaged/,
      (writer) => writer.directory("a", withXattr("system.posix_acl_access", Buffer.alloc(5))),
    ],
  ];
  for (const [message, fill] of cases)
    await assert.rejects(build("refused", fill), { code: "IMAGE_INVALID", message }, String(message));
});

test("the last word on a folder counts, its attributes included", async () => {
  const value = Buffer.alloc(1000, 7);
  const { image } = await build("again", async (writer) => {
    await put(writer, "usr/bin/tool", Buffer.from("x"));
    writer.directory("usr", {
      ...plain,
      mode: 0o711,
      xattrs: new Map([
        ["user.large", value],
        ["user.a", value.subarray(0, 8)],
      ]),
    });
    writer.directory("usr/bin", { ...plain, mode: 0o1777, xattrs: new Map([["user.large", value]]) });
    writer.directory("usr/bin", { ...plain, mode: 0o750, uid: 100_000 });
    writer.directory("", { ...plain, mode: 0o700 });
    writer.directory("lost+found", { ...plain, mode: 0o755 });
  });
  await assertClean(image);
  const listed = await listTree(image, folder);
  const modes = listed.map(({ path, mode }) => [path, (mode & 0o7777).toString(8)]);
  assert.deepEqual(
    new Map(modes.map(([path, mode]) => [path, mode])),
    new Map([
      ["lost+found", "755"],
      ["usr", "711"],
      ["usr/bin", "750"],
      ["usr/bin/tool", "644"],
    ]),
  );
  const inodeOf = (path: string) => listed.find((one) => one.path === path)?.inode ?? 0;
  const hex = value.toString("hex");
  assert.deepEqual(await xattrsOf(image, folder, [inodeOf("usr"), inodeOf("usr/bin")]), [
    new Map([
      ["user.a", hex.slice(0, 16)],
      ["user.large", hex],
    ]),
    new Map(),
  ]);
});

test("an access control list is stored in the form of the disk", async () => {
  // user::rwx user:1000:r-x group::r-x mask::r-x other::---, as getxattr gives it.
  const acl = Buffer.from(
    "0200000001000700ffffffff02000500e803000004000500ffffffff10000500ffffffff20000000ffffffff",
    "hex",
  );
  const { image } = await build("acl", (writer) => {
    writer.directory("a", { ...plain, xattrs: new Map([["system.posix_acl_access", acl]]) });
  });
  await assertClean(image);
  const inode = (await listTree(image, folder)).find(({ path }) => path === "a")?.inode ?? 0;
  const shown = (await xattrsOf(image, folder, [inode]))[0]?.get("system.posix_acl_access");
  // debugfs shows no owner as 0.
  assert.equal(shown, acl.toString("hex").replaceAll("ffffffff", "00000000"));
});

test("an image takes no more of the disk than mkfs.ext4 -d takes for the same tree", async () => {
  const tree = join(import.meta.dirname, "..");
  const reference = join(folder, "reference");
  // Below 512 MiB mkfs.ext4 takes blocks of 1 KiB.
  const size = 2 ** 30;
  await promisify(execFile)("mkfs.ext4", ["-q", "-O", "^has_journal", "-d", tree, reference, `${size >> 10}k`], {
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  });
  const paths = (await listTree(reference, folder)).filter(({ path }) => path !== "lost+found");
  const { image } = await build(
    "ours",
    async (writer) => {
      for (const { path, mode } of paths)
        if ((mode & 0o170000) === 0o40000) writer.directory(path, { ...plain, mode: mode & 0o7777 });
        else await put(writer, path, await readFile(join(tree, path)));
    },
    { size },
  );
  const [ours, theirs] = await Promise.all([image, reference].map(async (path) => (await stat(path)).blocks));
  assert.ok((ours ?? 0) <= (theirs ?? 0) * 1.1, `${ours} blocks, and ${theirs} of mkfs.ext4`);
});
