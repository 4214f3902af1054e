/** `banger ssh-config` on real files, judged by the real ssh. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, link, lstat, mkdir, readdir, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { promisify } from "node:util";
import { type Host, testHost } from "../support/host.ts";

let host: Host;
let folder: string;
let file: string;
let ours: string;

before(async () => {
  host = await testHost();
  folder = join(host.env.HOME, ".ssh");
  file = join(folder, "config");
  ours = join(host.env.XDG_CONFIG_HOME, "banger", "ssh_config");
  await mkdir(join(host.env.XDG_CONFIG_HOME, "banger"));
  // What the daemon writes is tested with real VMs (test/e2e/ssh.test.ts).
  await writeFile(ours, "Host *.vm\n  ProxyCommand it-is-banger\n");
});
beforeEach(async () => {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { mode: 0o700 });
});
after(() => host[Symbol.asyncDispose]());

const ok = async (...args: string[]): Promise<string> => {
  const done = await host.banger("ssh-config", ...args);
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
};
const refused = async (...args: string[]): Promise<string> => {
  const done = await host.banger("ssh-config", ...args);
  assert.equal(done.status, 1);
  return done.stderr;
};
/** Whether ssh, with the user's config, goes through banger to a VM, and to nothing else. */
const takesEffect = async (): Promise<boolean> => {
  const effective = async (name: string) => (await promisify(execFile)("ssh", ["-G", "-F", file, name])).stdout;
  assert.doesNotMatch(await effective("example.org"), /it-is-banger/);
  return /^proxycommand it-is-banger$/m.test(await effective("box.vm"));
};
/** The folder's names, with no half-written file among them. */
const names = () => readdir(folder);

describe("whatever the file holds, it is there once, takes effect, and comes out without a trace", () => {
  const contents: [what: string, content: string | Buffer][] = [
    ["nothing", ""],
    ["settings for every host", "ServerAliveInterval 30\nUser me\n"],
    ["a block of a host", "Host work\n  User me\n"],
    ["a block of a host at the end, without a final newline", "User x\nHost work\n  User me"],
    ["a Match block", "Match host work exec true\n  User me\n"],
    ["line ends of Windows", "User me\r\nHost work\r\n  Port 23\r\n"],
    ["empty lines at the top", "\n\nUser me\n"],
    ["bytes that are no UTF-8", Buffer.from("# caf\xe9\nUser me\n", "latin1")],
    ["an Include of something else", "Include other\nHost *\n  User me\n"],
    ["an Include of ours that does not count", `Host work\n  Include ${"OURS"}\n`],
    ["a comment of ours that was left alone", "# Include ~/.config/banger/ssh_config\nUser me\n"],
  ];
  for (const [what, content] of contents) {
    test(what, async () => {
      const before = Buffer.from(content.toString("latin1").replace("OURS", ours), "latin1");
      await writeFile(file, before, { mode: 0o640 });
      await chmod(file, 0o640);
      assert.match(await ok(), /does not include it|counts for few/);
      await ok("--install");
      assert.ok(await takesEffect());
      const once = await readFile(file);
      assert.ok(once.subarray(-before.length || once.length).equals(before) || before.length === 0);
      assert.equal((await stat(file)).mode & 0o7777, 0o640);
      assert.match(await ok("--install"), /is there already/);
      assert.deepEqual(await readFile(file), once);
      assert.match(await ok(), /line 2, put there by banger/);
      await ok("--uninstall");
      assert.deepEqual(await readFile(file), before);
      assert.match(await ok("--uninstall"), /there was nothing of banger/);
      assert.deepEqual(await readFile(file), before);
      assert.deepEqual(await names(), ["config"]);
    });
  }
});

test("a file and folder that are not there are made for the user alone", async () => {
  await rm(folder, { recursive: true });
  assert.match(await ok("--uninstall"), /there was nothing of banger/);
  await assert.rejects(stat(folder));
  await ok("--install");
  assert.equal((await stat(folder)).mode & 0o777, 0o700);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.ok(await takesEffect());
  await ok("--uninstall");
  assert.equal(await readFile(file, "utf8"), "");
});

test("an Include of the user's own is enough, and stays", async () => {
  const own = `Include "${ours}"\nUser me\n`;
  await writeFile(file, own);
  assert.match(await ok(), /line 1, a line of your own/);
  assert.match(await ok("--install"), /is there already, in line 1/);
  assert.match(await ok("--uninstall"), /line 1, which is your own, stays/);
  assert.equal(await readFile(file, "utf8"), own);
});

test("one that was moved into a block, or that names another folder, is put right", async () => {
  await ok("--install");
  const [mark = "", include = ""] = (await readFile(file, "utf8")).split("\n");
  await writeFile(file, `Host work\n${mark}\n${include}\n`);
  assert.match(await ok(), /counts for few/);
  await ok("--install");
  assert.equal(await readFile(file, "utf8"), `${mark}\n${include}\nHost work\n`);
  await writeFile(file, `${mark}\nInclude "/old/banger/ssh_config"\nHost work\n`);
  await ok("--install");
  assert.equal(await readFile(file, "utf8"), `${mark}\n${include}\nHost work\n`);
});

describe("links", () => {
  const dotfiles = () => join(host.env.HOME, "dotfiles");
  beforeEach(async () => {
    await rm(dotfiles(), { recursive: true, force: true });
    await mkdir(dotfiles());
  });

  test("a dotfile that is a link is written where it leads, and stays a link", async () => {
    await writeFile(join(dotfiles(), "ssh"), "Host work\n", { mode: 0o644 });
    await symlink("../dotfiles/ssh", file);
    await ok("--install");
    assert.equal(await readlink(file), "../dotfiles/ssh");
    assert.match(await readFile(join(dotfiles(), "ssh"), "utf8"), /^# Added by .*\nInclude .*\nHost work\n$/);
    assert.equal((await stat(file)).mode & 0o777, 0o644);
    assert.ok(await takesEffect());
    await ok("--uninstall");
    assert.equal(await readFile(file, "utf8"), "Host work\n");
    assert.deepEqual(await readdir(dotfiles()), ["ssh"]);
  });

  test("a folder that is a link", async () => {
    await rm(folder, { recursive: true });
    await symlink(dotfiles(), folder);
    await ok("--install");
    assert.ok((await lstat(folder)).isSymbolicLink());
    assert.ok(await takesEffect());
    await rm(folder);
  });

  test("one that leads nowhere, in a circle or to no file is not written through", async () => {
    for (const [target, why] of [
      [join(dotfiles(), "missing"), /leads nowhere/],
      [file, /in a circle/],
      [dotfiles(), /is not a file/],
    ] as const) {
      await symlink(target, file);
      const message = await refused("--install");
      assert.match(message, why);
      assert.ok(message.includes(`add this line at its top by hand: Include "${ours}"`));
      assert.ok((await lstat(file)).isSymbolicLink());
      assert.deepEqual(await readdir(dotfiles()), []);
      await rm(file);
    }
  });

  test("one of several names of a file is not parted from the others", async () => {
    await writeFile(file, "Host work\n");
    await link(file, join(dotfiles(), "ssh"));
    assert.match(await refused("--install"), /several names/);
    assert.equal(await readFile(file, "utf8"), "Host work\n");
  });

  test("what belongs to somebody else is left to them", async (t) => {
    // As root the file is given away; without rights one that is root's anyway is taken.
    const theirs = process.getuid?.() === 0 ? join(dotfiles(), "theirs") : "/etc/hosts";
    if (process.getuid?.() === 0) {
      await writeFile(theirs, "Host work\n");
      await promisify(execFile)("chown", ["65534", theirs]);
    }
    t.diagnostic(theirs);
    const before = await readFile(theirs);
    await symlink(theirs, file);
    assert.match(await refused("--install"), /belongs to user/);
    assert.deepEqual(await readFile(theirs), before);
  });
});

test("both flags at once, and words, are wrong usage", async () => {
  assert.equal((await host.banger("ssh-config", "--install", "--uninstall")).status, 2);
  assert.equal((await host.banger("ssh-config", "install")).status, 2);
  assert.deepEqual(await names(), []);
});

test("a folder whose name ssh cannot include is refused before anything is written", async () => {
  const odd = join(host.env.HOME, 'a"b');
  await mkdir(odd, { recursive: true });
  const done = await host.run(["ssh-config", "--install"], { env: { XDG_CONFIG_HOME: odd } });
  assert.equal(done.status, 1);
  assert.match(done.stderr, /ssh cannot include/);
  assert.deepEqual(await names(), []);
});
