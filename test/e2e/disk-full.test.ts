/** The host's disk fills up under a running VM: it pauses with a reason, and goes on where it was when there is room again. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readdir, rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";

const run = promisify(execFile);
const SLIM = "debian-bookworm-slim";
const MiB = 2 ** 20;
/** Of the small file system: kernel and image take about half of it. */
const SIZE = 600;
/** What the guest writes, and what is left for it at first, in MiB. */
const WRITTEN = 150;
const ROOM = 60;
/** Less than a saved VM needs, in MiB. */
const LEFT = 20;

/** Mounting needs root; set-up has made sure that sudo works where the tests run as somebody else. */
const asRoot = (...argv: string[]) => {
  const [program = "", ...args] = process.getuid?.() === 0 ? argv : ["sudo", "-n", ...argv];
  return run(program, args);
};

let host: Host;
let small: string;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "256M"\n`);
  small = join(host.env.XDG_STATE_HOME, "banger");
  await mkdir(small, { recursive: true, mode: 0o700 });
  await asRoot(
    "mount",
    "-t",
    "tmpfs",
    "-o",
    `size=${SIZE}M,mode=0700,uid=${process.getuid?.()},gid=${process.getgid?.()}`,
    "none",
    small,
  );
  await installFixture(host, [SLIM]);
});
after(async () => {
  for (const { pid } of await host.processes()) process.kill(pid, "SIGKILL");
  await asRoot("umount", "--lazy", small);
  await host[Symbol.asyncDispose]();
});

const freeMiB = async () => {
  const { bavail, bsize } = await statfs(small);
  return Math.floor((bavail * bsize) / MiB);
};

/** The daemon learns of it from QEMU; the test can only ask. */
const reasonIs = async (wanted: RegExp | undefined): Promise<void> => {
  for (let ask = 0; ask < 600; ask++) {
    const { reason } = await host.json<Vm>("vm", "show", "box");
    if (wanted ? wanted.test(reason ?? "") : reason === undefined) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`the reason did not become ${wanted}`);
};

test("a VM that finds the host's disk full pauses, says so, and goes on after `vm start` with nothing lost", async () => {
  assert.equal((await host.banger("vm", "run", "-d", "--name", "box")).status, 0);
  const filler = join(small, "filler");
  await writeFile(filler, Buffer.alloc(((await freeMiB()) - ROOM) * MiB, 1));
  const writing = host.run(
    [
      "vm",
      "exec",
      "box",
      "--",
      "sh",
      "-c",
      `head -c ${WRITTEN}M /dev/zero | tr '\\0' x >/root/big && sync && sha256sum </root/big`,
    ],
    { timeout: 300_000 },
  );
  await reasonIs(/paused: the host's disk is full/);
  assert.equal((await host.json<Vm>("vm", "show", "box")).state, "running");
  await rm(filler);
  const resumed = await host.banger("vm", "start", "box");
  assert.equal(resumed.status, 0, resumed.stderr);
  const done = await writing;
  assert.equal(done.status, 0, done.stderr);
  const { stdout: expected } = await run("sh", ["-c", `head -c ${WRITTEN}M /dev/zero | tr '\\0' x | sha256sum`]);
  assert.equal(done.stdout, expected);
  await reasonIs(undefined);
});

test("a save for which there is no room leaves nothing, and its VM goes on", async () => {
  const filler = join(small, "filler");
  await writeFile(filler, Buffer.alloc(((await freeMiB()) - LEFT) * MiB, 1));
  for (const args of [
    ["vm", "snapshot", "box", "--as", "one"],
    ["vm", "fork", "box", "-n", "2"],
    ["vm", "sleep", "box"],
  ]) {
    const done = await host.banger(...args);
    assert.equal(done.status, 1, args.join(" "));
    assert.match(done.stderr, /disk is full[\s\S]*hint: free some space/);
    assert.equal((await host.banger("vm", "exec", "box", "--", "true")).status, 0);
  }
  assert.deepEqual(await host.json("snapshot", "list"), []);
  assert.deepEqual(await readdir(join(small, "staging")), []);
  const { id, state } = await host.json<Vm>("vm", "show", "box");
  assert.equal(state, "running");
  assert.deepEqual(
    (await readdir(join(small, "vms", id))).filter((name) => /asleep|waking/.test(name)),
    [],
  );
  assert.ok((await freeMiB()) >= LEFT - 2);
  await rm(filler);
});

test("with no room left a new VM is refused with what to do, and nothing is left of it", async () => {
  const filler = join(small, "filler");
  await writeFile(filler, Buffer.alloc(((await freeMiB()) + 1) * MiB, 1)).catch((error: unknown) => {
    assert.equal((error as { code?: string }).code, "ENOSPC");
  });
  const done = await host.banger("vm", "run", "--rm", "--name", "late", "--", "true");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /disk is full[\s\S]*hint: free some space/);
  await rm(filler);
  assert.deepEqual(
    (await host.json<Vm[]>("vm", "list")).map(({ name }) => name),
    ["box"],
  );
});
