/** Kernels from a bundle and from files, up to a guest that runs them; and the scripts that publish them. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import type { KernelInfo } from "../../src/contract/kernels.ts";
import { installFixture } from "../support/fixture.ts";
import { bangerBinary, type Host, testHost } from "../support/host.ts";

const SLIM = "debian-bookworm-slim";
const DEBIAN = "debian-bookworm-cloud";
const execFileAsync = promisify(execFile);
let host: Host;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "256M"\n`);
  await installFixture(host, [SLIM]);
});
after(() => host[Symbol.asyncDispose]());

const banger = async (...args: string[]): Promise<string> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
};

test("publish-kernel.sh makes a bundle, proves that it installs, and prints an entry that a catalog takes", async () => {
  const folder = join(host.env.HOME, "bundles");
  const script = join(import.meta.dirname, "../../scripts/publish-kernel.sh");
  const env = { ...process.env, ...host.env, BANGER: bangerBinary };
  const { stdout } = await execFileAsync(script, [DEBIAN, folder], { env, timeout: 240_000 });
  const entry = JSON.parse(stdout);
  assert.equal(entry.sources[0].type, "bundle");
  assert.deepEqual(await readdir(folder), [`${DEBIAN}-${entry.sources[0].sha256}.tar.zst`]);
  const catalog = join(host.env.HOME, "catalog.json");
  const mine = { ...entry, name: "mine", description: "mine, from a bundle" };
  await writeFile(catalog, JSON.stringify({ version: 1, kernels: [mine] }));
  const config = join(host.env.XDG_CONFIG_HOME, "banger", "config.toml");
  await writeFile(config, `catalogs = ["${catalog}"]\n${await readFile(config, "utf8")}`);
  assert.match(await banger("kernel", "list", "--available"), /mine +no +mine, from a bundle/);
  assert.equal(await banger("kernel", "pull", "mine"), "mine\n");
  const [found, origin] = await Promise.all(
    ["mine", DEBIAN].map((name) => host.json<KernelInfo>("kernel", "show", name)),
  );
  assert.equal(found?.digest, origin?.digest);
  const missing = await execFileAsync(script, ["no-such", folder], { env }).catch((error: { stderr: string }) => error);
  assert.match(missing.stderr, /there is no kernel "no-such"/);
});

test("a guest runs a kernel from a folder, with its modules; the kernel stays while the VM is there", async () => {
  const release = (await host.json<KernelInfo>("kernel", "show", DEBIAN)).release;
  const installed = join(host.env.XDG_STATE_HOME, "banger", "kernels", DEBIAN);
  // A folder as a build of a kernel leaves it: the modules out of the disk, and the disk made anew from them.
  const folder = join(host.env.HOME, "kernel");
  await mkdir(join(folder, "lib", "modules"), { recursive: true });
  await execFileAsync("cp", [join(installed, "bzImage"), join(folder, "bzImage")]);
  const dump = `rdump / ${join(folder, "lib/modules")}`;
  await host.tool("debugfs", "-R", dump, join(installed, "modules.ext4"));
  // debugfs puts the root's content into the folder itself.
  const modules = join(folder, "lib/modules");
  await execFileAsync("sh", [
    "-ec",
    'cd "$1" && mkdir ../new && mv * ../new && rm -rf ../new/lost+found && mv ../new "$2"',
    "sh",
    modules,
    release,
  ]);
  assert.equal(await banger("kernel", "import", "rebuilt", folder), "rebuilt\n");
  assert.match(await banger("kernel", "show", "rebuilt"), new RegExp(`release: +${release}[\\s\\S]*from: +${folder}`));
  const disk = join(host.env.XDG_STATE_HOME, "banger", "kernels", "rebuilt", "modules.ext4");
  assert.equal((await host.tool("e2fsck", "-fn", disk)).status, 0);

  await banger("vm", "create", "--name", "box", "--kernel", "rebuilt");
  await banger("vm", "start", "box");
  const script = `uname -r; findmnt -n -o FSTYPE,OPTIONS /lib/modules/${release} 2>/dev/null || grep modules /proc/mounts
    test -s /lib/modules/${release}/modules.dep && cksum </lib/modules/${release}/modules.builtin`;
  const inGuest = await banger("vm", "exec", "box", "--", "sh", "-ec", script);
  assert.match(inGuest, new RegExp(`^${release}\n.*ext4.*\\bro\\b`));
  const { stdout } = await execFileAsync("sh", ["-c", 'cksum <"$1"', "sh", join(modules, release, "modules.builtin")]);
  assert.ok(inGuest.endsWith(stdout), inGuest);

  const refused = await host.banger("kernel", "delete", "rebuilt");
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /kernel rebuilt is used by box[\s\S]*banger vm delete box/);
  await banger("vm", "delete", "box");
  await banger("kernel", "delete", "rebuilt");
  assert.ok(!(await banger("kernel", "list")).includes("rebuilt"));
});

test("what is no kernel is refused by name, and what is there already is not replaced", async () => {
  const file = join(host.env.HOME, "notes.txt");
  await writeFile(file, "no kernel\n");
  const wrong = await host.banger("kernel", "import", "notes", file);
  assert.equal(wrong.status, 1);
  assert.match(wrong.stderr, /notes.txt cannot be used: it is no kernel[\s\S]*vmlinuz, bzImage or vmlinux/);
  const taken = await host.banger("kernel", "import", DEBIAN, file);
  assert.match(taken.stderr, new RegExp(`there is a kernel ${DEBIAN} already[\\s\\S]*kernel delete ${DEBIAN}`));
  const name = await host.banger("kernel", "import", "../x", file);
  assert.equal(name.status, 2);
  const folder = await host.banger("kernel", "export", DEBIAN, join(host.env.HOME, "nowhere"));
  assert.match(folder.stderr, /there is no folder .*nowhere/);
});
