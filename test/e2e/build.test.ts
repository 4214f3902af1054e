/** Real builds of the kernel and of the slim image, from Debian's archive, and everything that can go wrong on the way. */
import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import type { ErrorBody } from "../../src/contract/errors.ts";
import type { ImageInfo } from "../../src/contract/images.ts";
import type { KernelInfo } from "../../src/contract/kernels.ts";
import type { ProgressEvent } from "../../src/contract/progress.ts";
import { rootNamespace } from "../../src/host/namespace.ts";
import { eachLine, runTool, startProcess } from "../../src/host/process.ts";
import { assertClean as assertSound, catInImage, statInImage } from "../support/ext4-judge.ts";

const repository = join(import.meta.dirname, "..", "..");
let work: string;

before(async () => {
  work = await mkdtemp(join(tmpdir(), "banger-build-"));
});
after(() => rm(work, { recursive: true, force: true }));

type Line = Partial<ProgressEvent> & { result?: unknown; error?: ErrorBody };
type Build = {
  kind: "kernel" | "image" | "clean";
  name?: string;
  options?: { cancelAt?: string; debianMirror?: string };
  state: string;
  /** Default: one for all, so that packages are fetched once. */
  cache?: string;
  /** Goes before the program. */
  prefix?: readonly string[];
  env?: Record<string, string>;
  sources?: string;
  /** Ends the process with SIGKILL at the first progress of this stage. */
  killAt?: string;
};

/** Runs test/support/build-worker.ts. */
const build = async ({ kind, name = "", options = {}, sources = repository, prefix = [], ...rest }: Build) => {
  const worker = join(sources, "test/support/build-worker.ts");
  const [program, ...args] = [...prefix, process.execPath, worker, kind, name, JSON.stringify(options)];
  const started = performance.now();
  await using running = await startProcess({
    argv: [program ?? "", ...args],
    env: { XDG_STATE_HOME: rest.state, XDG_CACHE_HOME: rest.cache ?? join(work, "cache"), ...rest.env },
    cwd: "/",
    stdio: ["ignore", "pipe", "pipe"],
  });
  const lines: Line[] = [];
  if (!running.child.stdout) throw new Error("no stdout");
  eachLine(running.child.stdout, (text) => {
    const line: Line = JSON.parse(text);
    lines.push(line);
    // The process alone, not its group: what it started has to end by itself.
    if (rest.killAt !== undefined && line.stage === rest.killAt) process.kill(running.pid, "SIGKILL");
  });
  await new Promise((resolve) => running.child.once("close", resolve));
  const last = lines.at(-1);
  return {
    lines,
    stages: [...new Set(lines.flatMap(({ stage }) => stage ?? []))],
    result: last?.result,
    error: last?.error,
    seconds: (performance.now() - started) / 1000,
    stderr: running.stderrTail(),
  };
};

const ok = async <T>(call: Build): Promise<{ result: T; lines: Line[]; stages: string[]; seconds: number }> => {
  const { result, error, stderr, ...rest } = await build(call);
  assert.equal(error, undefined, stderr);
  assert.ok(result, stderr);
  return { result: result as T, ...rest };
};

const inFolder = async (path: string): Promise<string[]> =>
  (await stat(path).catch(() => undefined)) ? readdir(path) : [];

/** Processes that were started for this state folder and live. */
const processesOf = async (state: string): Promise<string[]> => {
  const found: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    // One that ends while we look is none.
    const environment = await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "");
    if (!environment.split("\0").includes(`XDG_STATE_HOME=${state}`)) continue;
    found.push(`${pid} ${(await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "")).replaceAll("\0", " ")}`);
  }
  return found;
};

const eventually = async (what: string, check: () => Promise<boolean>): Promise<void> => {
  for (let tries = 0; tries < 50; tries++) {
    if (await check()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`${what} did not happen within 5 s`);
};

const assertClean = async (state: string): Promise<void> => {
  await eventually("the end of all processes", async () => (await processesOf(state)).length === 0);
  assert.deepEqual(await inFolder(join(state, "banger/staging")), []);
};

test("the kernel installs with modules, boot modules and manifest", async (t) => {
  const state = join(work, "kernel");
  const { result, seconds } = await ok<KernelInfo>({ kind: "kernel", name: "debian-bookworm-cloud", state });
  const folder = join(state, "banger/kernels/debian-bookworm-cloud");
  assert.match(result.release, /^6\.1\..*-cloud-amd64$/);
  assert.equal(result.pvh, true);
  await assertSound(join(folder, "modules.ext4"));
  assert.match(await catInImage(join(folder, "modules.ext4"), "/modules.dep"), /overlay\.ko:/);
  assert.match(
    await statInImage(join(folder, "modules.ext4"), "/kernel/fs/overlayfs/overlay.ko"),
    /User:\s+0\s+Group:\s+0\s/,
  );
  const order = (await readFile(join(folder, "boot-modules/order"), "utf8")).trim().split("\n");
  assert.ok(order.indexOf("virtio_ring.ko") < order.indexOf("virtio_blk.ko"));
  assert.ok(order.indexOf("failover.ko") < order.indexOf("virtio_net.ko"));
  assert.ok(order.includes("overlay.ko") && order.includes("virtio_console.ko"));
  assert.equal((await stat(join(folder, "vmlinux"))).mode & 0o777, 0o444);
  await assertClean(state);
  t.diagnostic(`kernel: ${seconds.toFixed(1)} s, ${Math.round(result.diskUsed / 2 ** 20)} MiB`);
});

test("a mirror named in the config serves as well as the machine's own", async () => {
  const apt = await runTool({ argv: ["apt-get", "indextargets", "--format", "$(SITE) $(CODENAME)"] });
  const mirrors = new Map(apt.stdout.split("\n").map((line) => line.split(" ").reverse() as [string, string]));
  const main = mirrors.get("bookworm");
  const security = mirrors.get("bookworm-security");
  assert.ok(main && security, "this machine's apt knows bookworm and its security archive (run apt-get update)");
  const state = join(work, "configured");
  const debianMirror = `${main} ${security}`;
  await ok<KernelInfo>({ kind: "kernel", name: "debian-bookworm-cloud", state, options: { debianMirror } });
});

test("the slim image builds and is clean", async (t) => {
  const state = join(work, "slim");
  const { result, stages, seconds } = await ok<ImageInfo>({ kind: "image", name: "debian-bookworm-slim", state });
  // Fresh lists are not fetched again.
  const expected = ["download", "install", "file system", "digest"];
  assert.deepEqual(stages, stages[0] === "package lists" ? ["package lists", ...expected] : expected);
  assert.equal(result.init, null);
  const rootfs = join(state, "banger/images/debian-bookworm-slim/rootfs.ext4");
  await assertSound(rootfs);
  assert.equal(await catInImage(rootfs, "/etc/resolv.conf"), "");
  assert.equal(await catInImage(rootfs, "/etc/machine-id"), "");
  assert.match(await catInImage(rootfs, "/etc/apt/sources.list.d/debian.sources"), /Suites: bookworm-security/);
  await assertClean(state);
  t.diagnostic(`slim: ${seconds.toFixed(1)} s, ${Math.round(result.diskUsed / 2 ** 20)} MiB`);
});

test("an ordinary user builds an image, and it belongs to root inside", async (t) => {
  const root = userInfo().uid === 0;
  // An ordinary user's own tests have built the images above already; here a user is made where root runs the tests.
  const user = root
    ? await makeUser(join(work, "user"))
    : { prefix: [], env: {}, sources: repository, home: join(work, "user"), remove: async () => undefined };
  const state = join(user.home, "state");
  const call = { state, cache: join(user.home, "cache"), prefix: user.prefix, env: user.env, sources: user.sources };
  try {
    const { seconds } = await ok<ImageInfo>({ kind: "image", name: "debian-bookworm-slim", ...call });
    const rootfs = join(state, "banger/images/debian-bookworm-slim/rootfs.ext4");
    await assertSound(rootfs);
    assert.match(await statInImage(rootfs, "/etc/passwd"), /User:\s+0\s+Group:\s+0\s/);
    assert.match(await statInImage(rootfs, "/etc/shadow"), /User:\s+0\s+Group:\s+42\s/);
    await assertClean(state);
    t.diagnostic(`slim as an ordinary user: ${seconds.toFixed(1)} s`);
    // What a killed build leaves belongs to subordinate ids: the user cannot delete it without a namespace.
    await rm(join(state, "banger/images"), { recursive: true });
    await build({ kind: "image", name: "debian-bookworm-slim", killAt: "install", ...call });
    await eventually("the end of all processes", async () => (await processesOf(state)).length === 0);
    assert.equal((await inFolder(join(state, "banger/staging"))).length, 1);
    const { result } = await ok<string[]>({ kind: "clean", ...call });
    assert.equal(result.length, 1);
    await assertClean(state);
  } finally {
    await user.remove();
  }
});

const makeUser = async (home: string) => {
  const name = `banger-test-${process.pid}`;
  await runTool({ argv: ["useradd", "--create-home", "--home-dir", home, "--shell", "/bin/sh", name] });
  const ranges = ["--add-subuids", "300000-365535", "--add-subgids", "300000-365535"];
  if (!(await readFile("/etc/subuid", "utf8")).includes(`${name}:`))
    await runTool({ argv: ["usermod", ...ranges, name] });
  await runTool({ argv: ["chmod", "0711", work] });
  // The sources may lie where only root can read; the program, too.
  const sources = join(home, "banger");
  for (const part of ["src", "catalog", "images", "test/support", "node_modules/zod", "package.json"]) {
    await cp(join(repository, part), join(sources, part), { recursive: true, dereference: true });
  }
  await cp(process.execPath, join(home, "node"));
  await runTool({ argv: ["chown", "-R", `${name}:`, home] });
  await mkdir(join(home, "state"), { recursive: true });
  await runTool({ argv: ["chown", `${name}:`, join(home, "state")] });
  // `build` puts this test's own node next, which becomes the script's $0: the copy is run in its place.
  const script = `exec ${join(home, "node")} "$@"`;
  const prefix = ["setpriv", "--reuid", name, "--regid", name, "--init-groups", "--", "sh", "-c", script];
  const remove = () => runTool({ argv: ["userdel", name] }).then(() => undefined);
  return { home, sources, prefix, env: { HOME: home }, remove };
};

for (const stage of ["package lists", "download", "install", "file system", "digest"]) {
  test(`a cancel at "${stage}" leaves nothing behind`, async () => {
    const state = join(work, `cancel-${stage.replace(" ", "-")}`);
    // Lists count as current for a while: a cache of its own makes them load.
    const cache = stage === "package lists" || stage === "download" ? join(state, "cache") : join(work, "cache");
    const options = { cancelAt: stage };
    const cancelled = await build({ kind: "image", name: "debian-bookworm-slim", state, cache, options });
    assert.equal(cancelled.error?.code, "CANCELLED", JSON.stringify(cancelled.error));
    assert.equal(cancelled.lines.at(-2)?.stage, stage);
    await assertClean(state);
    assert.deepEqual(await inFolder(join(state, "banger/images")), []);
  });
}

test("a second run goes on from what the first one fetched", async () => {
  const state = join(work, "again");
  const cache = join(state, "cache");
  await build({ kind: "image", name: "debian-bookworm-slim", state, cache, options: { cancelAt: "install" } });
  const packages = await packagesIn(cache);
  const names = await readdir(packages);
  for (const name of names.slice(0, 10)) await rm(join(packages, name));
  const options = { cancelAt: "install" };
  const { lines } = await build({ kind: "image", name: "debian-bookworm-slim", state, cache, options });
  const [first] = lines.filter(({ stage }) => stage === "download");
  assert.ok(
    first?.done && first.total && first.done > first.total / 3 && first.done < first.total,
    JSON.stringify(first),
  );
  assert.equal((await readdir(packages)).length, names.length);
});

const packagesIn = async (cache: string): Promise<string> => {
  const [mirror = ""] = await readdir(join(cache, "banger/apt"));
  return join(cache, "banger/apt", mirror, "packages");
};

test("a package that was changed in the cache is fetched anew", async () => {
  const state = join(work, "damaged");
  const cache = join(state, "cache");
  await ok<KernelInfo>({ kind: "kernel", name: "debian-bookworm-cloud", state, cache });
  const packages = await packagesIn(cache);
  const [deb = ""] = await readdir(packages);
  const { size } = await stat(join(packages, deb));
  await runTool({ argv: ["truncate", "-s", String(size - 1000), join(packages, deb)] });
  await rm(join(state, "banger"), { recursive: true });
  await ok<KernelInfo>({ kind: "kernel", name: "debian-bookworm-cloud", state, cache });
  assert.equal((await stat(join(packages, deb))).size, size);
});

test("a killed build ends with all it started, and the next start removes its folder", async () => {
  const state = join(work, "killed");
  await build({ kind: "image", name: "debian-bookworm-slim", state, killAt: "install" });
  await eventually("the end of all processes", async () => (await processesOf(state)).length === 0);
  assert.equal((await inFolder(join(state, "banger/staging"))).length, 1);
  const { result } = await ok<string[]>({ kind: "clean", state });
  assert.equal(result.length, 1);
  await assertClean(state);
});

test("a full disk is named, and the half-made image is removed", async () => {
  // A small file system that only this build sees.
  const state = join(work, "full");
  await mkdir(state);
  const { prefix } = await rootNamespace(AbortSignal.timeout(10_000));
  const script =
    'mount -t tmpfs -o size=60m none "$0" && "$@"; status=$?; ls -A "$0"/banger/staging >&2; exit "$status"';
  const full = await build({
    kind: "image",
    name: "debian-bookworm-slim",
    state,
    prefix: [...prefix, "--mount-proc", "sh", "-c", script, state],
  });
  assert.equal(full.error?.code, "DISK_FULL", JSON.stringify(full.error));
  assert.equal(full.stderr, "", "nothing is left in staging");
  const cacheFull = await build({
    kind: "kernel",
    name: "debian-bookworm-cloud",
    state,
    cache: join(state, "cache"),
    prefix: [...prefix, "--mount-proc", "sh", "-c", script, state],
  });
  assert.equal(cacheFull.error?.code, "DISK_FULL", JSON.stringify(cacheFull.error));
});

const unreachable: Record<string, () => Promise<{ url: string; close?: () => void }>> = {
  "a closed port": async () => ({ url: "http://127.0.0.1:1/debian" }),
  "a name that does not resolve": async () => ({ url: "http://mirror.invalid/debian" }),
  "a server that never answers": async () => {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => sockets.add(socket));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    const close = () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    };
    return { url: `http://127.0.0.1:${address.port}/debian`, close };
  },
  // TEST-NET-1 (RFC 5737): packets to it vanish, or are refused on the way.
  "an address that nobody has": async () => ({ url: "http://192.0.2.1/debian" }),
};

suite("a mirror that does not answer", { concurrency: true }, () => {
  for (const [what, open] of Object.entries(unreachable)) {
    test(`${what} in place of a mirror is named within 30 s`, { timeout: 60_000 }, async () => {
      const { url, close } = await open();
      try {
        const state = join(work, `unreachable-${what.replaceAll(" ", "-")}`);
        const options = { debianMirror: url };
        const { error, seconds } = await build({ kind: "image", name: "debian-bookworm-slim", state, options });
        assert.equal(error?.code, "MIRROR_UNREACHABLE", JSON.stringify(error));
        assert.ok(error.message.includes(url));
        assert.match(error.hint ?? "", /debian_mirror/);
        assert.ok(seconds < 30, `${seconds} s`);
        await assertClean(state);
      } finally {
        close?.();
      }
    });
  }
});
