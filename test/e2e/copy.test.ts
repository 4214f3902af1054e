/** `vm cp` both ways: what arrives is what was sent, and what does not arrive whole leaves nothing behind. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import {
  chmod,
  copyFile,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { installFixture } from "../support/fixture.ts";
import { type Done, finish, type Host, testHost } from "../support/host.ts";
import { folderHolds, outputHolds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
const MB = 1_000_000;
const execFileAsync = promisify(execFile);
let host: Host;
/** A folder of the host that the tests work in. */
let here: string;
/** A file of 200 MB that does not compress. */
let big: string;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n`);
  await installFixture(host, [SLIM]);
  here = join(host.env.HOME, "files");
  await mkdir(here);
  big = join(here, "big");
  const file = await open(big, "w");
  const piece = randomBytes(MB);
  for (let index = 0; index < 200; index++) await file.write(piece.fill(String(index), 0, 3));
  await file.close();
  // The same with a hole at its end.
  await copyFile(big, `${big}-sparse`);
  await truncate(`${big}-sparse`, 210 * MB);
  const shape = ["--memory", "512M", "--vcpu", "2", "--disk-size", "2G"];
  const done = await host.banger("vm", "run", "-d", "--name", "box", ...shape);
  assert.equal(done.status, 0, done.stderr);
});
after(() => host[Symbol.asyncDispose]());

const cp = (...args: string[]) => host.run(["vm", "cp", ...args], { cwd: here });
const copied = async (...args: string[]) => {
  const done = await cp(...args);
  assert.equal(done.status, 0, done.stderr);
};
const inGuest = async (script: string): Promise<string> => {
  const done = await host.banger("vm", "exec", "box", "--", "sh", "-ec", script);
  assert.equal(done.status, 0, done.stderr);
  return done.stdoutBytes.toString("latin1");
};
const sha256 = async (path: string): Promise<string> => {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
};
const refused = (done: Done, message: RegExp) => {
  assert.equal(done.status, 1, done.stderr);
  assert.match(done.stderr, message);
  assert.doesNotMatch(done.stderr, /bug in banger/);
};

test("a file keeps its bytes and its mode, both ways, and replaces what was there", async () => {
  const bytes = randomBytes(300_000);
  await writeFile(join(here, "tool"), bytes);
  await chmod(join(here, "tool"), 0o751);
  await inGuest("echo old >/srv/tool");
  await copied("tool", "box:/srv/tool");
  assert.equal(await inGuest("stat -c '%a %s %U' /srv/tool; ls -A /srv"), "751 300000 root\ntool\n");
  await writeFile(join(here, "back"), "old");
  await copied("box:/srv/tool", "back");
  assert.deepEqual(await readFile(join(here, "back")), bytes);
  assert.equal((await stat(join(here, "back"))).mode & 0o7777, 0o751);
});

/** Kind, mode, size, number of names and target of each entry, and the contents of each file. */
const describeTree = `find . -mindepth 1 '(' -type d -printf '%P|d|%m\\0' -o -printf '%P|%y|%m|%s|%n|%l\\0' ')' | sort -z
find . -type f -print0 | sort -z | xargs -0 sha256sum`;

test("a folder comes back as it went: links, empty folders, modes, and names of any bytes", async () => {
  const tree = join(here, "tree");
  const path = (name: string | number[]) => Buffer.concat([Buffer.from(`${tree}/`), Buffer.from(name as string)]);
  await mkdir(join(tree, "deep/empty"), { recursive: true });
  await writeFile(path("deep/file"), "contents");
  await chmod(path("deep/file"), 0o640);
  await link(path("deep/file"), path("second name"));
  await symlink("deep/file", path("relative"));
  await symlink("/etc/hostname", path("absolute"));
  await symlink("no/such", path("dangling"));
  for (const name of [" -rf *", "new\nline", "'\"$HOME`", "-", ".hidden", "ü", [0xff, 0xfe, 0x80], "x".repeat(255)])
    await writeFile(path(name as string), String(name));
  await chmod(path("deep/empty"), 0o700);
  await chmod(path("deep"), 0o555);

  await inGuest("mkdir /srv/in");
  await copied("tree", "box:/srv/in");
  const sent = await inGuest(`export LC_ALL=C; cd /srv/in/tree; ${describeTree}`);
  await copied("box:/srv/in/tree", "returned");
  // The same program on both sides.
  const listed = async (folder: string): Promise<string> => {
    const env = { ...process.env, LC_ALL: "C" };
    return (await execFileAsync("sh", ["-ec", describeTree], { cwd: folder, encoding: "latin1", env })).stdout;
  };
  assert.equal(sent, await listed(tree));
  assert.equal(await listed(join(here, "returned")), sent);
});

test("into a folder that is there, or as a new name: as `cp -r` does", async () => {
  await mkdir(join(here, "app"));
  await writeFile(join(here, "app/main"), "1");
  await inGuest("mkdir -p /srv/there");
  await copied("app", "box:/srv/there");
  await copied("app", "box:/srv/as-new");
  await copied("app/main", "tool", "box:/srv/there");
  assert.equal(
    await inGuest("cd /srv; find there as-new -type f | sort"),
    "as-new/main\nthere/app/main\nthere/main\nthere/tool\n",
  );
  await mkdir(join(here, "there"));
  await copied("box:/srv/as-new", "there");
  await copied("box:/srv/as-new", "brought");
  await copied("box:/srv/as-new/main", "box:/srv/there/tool", "there");
  assert.deepEqual((await readdir(join(here, "there"), { recursive: true })).sort(), [
    "as-new",
    "as-new/main",
    "main",
    "tool",
  ]);
  assert.deepEqual(await readdir(join(here, "brought")), ["main"]);
  // What was in a folder stays beside what comes.
  await writeFile(join(here, "there/as-new/mine"), "mine");
  await copied("box:/srv/as-new", "there");
  assert.deepEqual((await readdir(join(here, "there/as-new"))).sort(), ["main", "mine"]);
});

test("a sparse file stays sparse on both sides", async () => {
  const file = await open(join(here, "sparse"), "w");
  await file.truncate(300 * MB);
  await file.write("begin", 0);
  await file.write("middle", 100 * MB);
  await file.close();
  await copied("sparse", "box:/srv/sparse");
  const [size, blocks] = (await inGuest("stat -c '%s %b' /srv/sparse")).split(" ").map(Number);
  assert.equal(size, 300 * MB);
  assert.ok(Number(blocks) * 512 < MB, `${blocks} blocks in the guest`);
  await copied("box:/srv/sparse", "sparse-back");
  const back = await stat(join(here, "sparse-back"));
  assert.ok(back.blocks * 512 < MB, `${back.blocks} blocks on the host`);
  assert.equal(await sha256(join(here, "sparse-back")), await sha256(join(here, "sparse")));
});

test("`-` is stdin and stdout", async () => {
  const bytes = randomBytes(2 * MB);
  const done = await host.run(["vm", "cp", "-", "box:/srv/piped"], { input: bytes });
  assert.equal(done.status, 0, done.stderr);
  const back = await cp("box:/srv/piped", "-");
  assert.equal(back.status, 0, back.stderr);
  assert.ok(back.stdoutBytes.equals(bytes));
});

test("200 MB arrive unchanged both ways", async () => {
  await copied("big", "box:/srv/big");
  await copied("box:/srv/big", "big-back");
  assert.equal(await sha256(join(here, "big-back")), await sha256(big));
});

test("what cannot be copied is named, and nothing is made", async () => {
  await writeFile(join(here, "a"), "a");
  refused(await cp("a", "no-such", "box:/srv/both"), /there is no no-such[\s\S]*nothing was copied/);
  refused(await cp("box:/srv/no-such", "taken"), /there is no \/srv\/no-such in box/);
  refused(await cp("a", "box:/srv/missing/folder/"), /there is no folder \/srv\/missing\/folder\//);
  refused(await cp("a", "box:/srv/missing/a"), /\/srv\/missing/);
  refused(await cp("box:/etc/hostname", "missing/folder/name"), /missing\/folder/);
  refused(await cp("box:/etc/hostname", "missing/"), /there is no folder missing\//);
  refused(await cp("app", "box:/etc/hostname"), /\/etc\/hostname is no folder in the guest/);
  refused(await cp("box:/srv/as-new", "a"), /a is no folder/);
  refused(await cp("a", "bix:/srv"), /"bix"[\s\S]*did you mean box/);
  assert.equal(await inGuest("ls -d /srv/missing /srv/both 2>/dev/null || true"), "");
  assert.equal((await readdir(here)).filter((name) => /^(missing|taken|\.banger.*)$/.test(name)).join(), "");
});

test("a place that may not be written to is named on either side", async () => {
  const modules = (await inGuest("echo /usr/lib/modules/$(uname -r)")).trim();
  refused(await cp("a", `box:${modules}/a`), /Read-only file system|read-only/i);
  // Nobody may write there, root neither.
  refused(await cp("box:/etc/hostname", "/sys/kernel/hostname-copy"), /cannot write in \/sys\/kernel/);
});

for (const [what, source] of [
  ["file", "big"],
  ["sparse file", "big-sparse"],
] as const) {
  test(`Ctrl-C in the middle of a ${what}'s way into the guest leaves the old file and nothing else`, async () => {
    await inGuest("mkdir -p /srv/cut; echo old >/srv/cut/file");
    const child = host.start(["vm", "cp", source, "box:/srv/cut/file"], { cwd: here });
    const watcher = host.start([
      ...["vm", "exec", "box", "--", "sh", "-c"],
      'until [ -n "$(find /srv/cut -size +1M)" ]; do :; done; echo begun',
    ]);
    await outputHolds(watcher, "begun");
    const ended = finish(child);
    child.kill("SIGINT");
    const { status, stderr } = await ended;
    assert.equal(status, 130, stderr);
    assert.equal(await inGuest("cd /srv/cut; head -c 9 file; ls -A"), "old\nfile\n");
  });
}

test("Ctrl-C in the middle of a copy out of the guest leaves the old file and nothing else", async () => {
  const folder = join(here, "cut");
  await mkdir(folder);
  await writeFile(join(folder, "file"), "old");
  const child = host.start(["vm", "cp", "box:/srv/big", "cut/file"], { cwd: here });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  await folderHolds(folder, async () => {
    const parts = (await readdir(folder, { recursive: true, withFileTypes: true })).filter(
      (entry) => entry.isFile() && entry.name !== "file",
    );
    const sizes = await Promise.all(parts.map((part) => stat(join(part.parentPath, part.name))));
    return sizes.some(({ size }) => size > MB);
  });
  child.kill("SIGINT");
  assert.equal(await ended, 130);
  assert.equal(await readFile(join(folder, "file"), "utf8"), "old");
  assert.deepEqual(await readdir(folder), ["file"]);
});

test("a guest whose disk is full says so, and keeps the old file", async () => {
  await inGuest(
    "mkdir /srv/full; echo old >/srv/full/file; fallocate -l $(($(stat -f -c '%a*%S' /srv)-20000000)) /srv/filler",
  );
  refused(await cp("big", "box:/srv/full/file"), /no space left|disk is full/i);
  assert.equal(await inGuest("cd /srv/full; head -c 9 file; ls -A"), "old\nfile\n");
  await inGuest("rm /srv/filler");
  await copied("tool", "box:/srv/full/file");
});

test("a guest cannot make a copy leave its folder on the host", async () => {
  const outside = join(here, "outside");
  await mkdir(outside);
  await inGuest(`mkdir -p /srv/trap/up && cd /srv/trap && ln -s '${outside}' evil && ln -s ../../outside up/evil`);
  await copied("box:/srv/trap", "caught");
  assert.equal(await readlink(join(here, "caught/evil")), outside);
  // The links are on the host now. What the guest sends next goes through neither of them.
  for (const place of ["evil", "up/evil"]) {
    await inGuest(`cd /srv/trap; rm ${place}; mkdir ${place}; echo gotcha >${place}/file`);
    refused(await cp("box:/srv/trap/.", "caught"), /it is no folder here/);
    await inGuest(`cd /srv/trap; rm -r ${place}; ln -s /nowhere ${place}`);
  }
  assert.deepEqual(await readdir(outside), []);
});

test("setuid and device nodes of a guest do not reach the host", async () => {
  await inGuest("mkdir /srv/odd; cp /bin/true /srv/odd/suid; chmod 4755 /srv/odd/suid");
  await copied("box:/srv/odd", "odd");
  assert.equal((await lstat(join(here, "odd/suid"))).mode & 0o7777, 0o755);
  await inGuest("mknod /srv/odd/zero c 1 5");
  refused(await cp("box:/srv/odd", "with-device"), /zero/);
  await assert.rejects(lstat(join(here, "with-device")), /ENOENT/);
});
