/** VMs that stand ready: handed over as machines of their own, and never left behind. */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { exists } from "../../src/host/files.ts";
import { installFixture } from "../support/fixture.ts";
import { type Done, type Host, testHost } from "../support/host.ts";
import { folderHolds, processEnds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;

before(async () => {
  host = await testHost(
    `default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "192M"\ndisk_size = "1G"\n[templates]\nenabled = true\npool = 1\n`,
  );
  await installFixture(host, [SLIM]);
  await ok("image", "warm");
});
after(() => host[Symbol.asyncDispose]());

const ok = async (...args: string[]): Promise<Done> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, done.stderr);
  return done;
};
const state = () => join(host.env.XDG_STATE_HOME, "banger");
const vmsFolder = () => join(state(), "vms");
/** A VM that stands ready, once there is one: the daemon says so, and its mark is there until it is handed over. */
const oneIsReady = async (): Promise<string> => {
  let found = "";
  await folderHolds(state(), async () => {
    const log = await readFile(join(state(), "daemon.log"), "utf8");
    const ids = [...log.matchAll(/vm is ready.*?([0-9a-f]{32})/g)].map(([, id = ""]) => id);
    for (const id of ids) if (await exists(join(vmsFolder(), id, "ready"))) found = id;
    return found !== "";
  });
  return found;
};

test("a VM is handed over as one of its own, and another takes its place", async () => {
  await ok("vm", "run", "--rm", "--", "true");
  const first = await oneIsReady();
  const told = await ok("vm", "run", "-d", "--name", "handed");
  assert.equal(told.stdout, "handed\n");
  const vm = await host.json<Vm>("vm", "show", "handed");
  assert.deepEqual([vm.id, vm.restored], [first, "template"]);
  const looks = (await ok("vm", "exec", "handed", "--", "cat", "/etc/hostname", "/etc/machine-id")).stdout;
  assert.equal(looks, `handed\n${vm.id}\n`);
  const second = await oneIsReady();
  assert.notEqual(second, first);
  assert.deepEqual(
    (await host.json<Vm[]>("vm", "list")).map(({ name }) => name),
    ["handed"],
  );
  assert.deepEqual(
    (await host.json<{ name: string; status: string }[]>("doctor").catch(() => [])).filter(
      ({ name, status }) => /stray/.test(name) && status !== "pass",
    ),
    [],
  );
});

test("a VM that was changed before its first start, and one from a snapshot, are machines of their own", async () => {
  const id = await oneIsReady();
  const created = JSON.parse((await ok("vm", "create", "--name", "changed", "--json")).stdout) as Vm;
  assert.equal(created.id, id);
  await ok("vm", "set", "changed", "--memory", "208M");
  await ok("vm", "start", "changed");
  assert.match((await ok("vm", "exec", "changed", "--", "cat", "/etc/hostname")).stdout, /changed/);
  await ok("vm", "snapshot", "handed", "--as", "saved");
  await ok("vm", "restore", "saved", "--name", "again");
  assert.equal((await host.json<Vm>("vm", "show", "again")).restored, "snapshot");
  // One with rules is started with them in force.
  const unruled = await oneIsReady();
  await ok("vm", "run", "-d", "--name", "ruled", "--deny", "192.0.2.0/24");
  const ruled = await host.json<Vm>("vm", "show", "ruled");
  assert.equal(ruled.rules.length, 1);
  assert.notEqual(ruled.id, unruled);
  await ok("vm", "delete", "changed", "again", "handed", "ruled");
});

test("what stands ready ends with its daemon, however that ends", async () => {
  await ok("vm", "run", "--rm", "--", "true");
  const id = await oneIsReady();
  const daemon = await host.daemonPid();
  process.kill(daemon, "SIGKILL");
  await processEnds(daemon);
  assert.deepEqual(await host.json<Vm[]>("vm", "list"), []);
  assert.ok(!(await readdir(vmsFolder())).includes(id));
  assert.equal((await host.processes()).filter(({ command }) => command.includes(id)).length, 0);
  // One that had become a VM which nobody had started yet: the VM is there, and starts as others do.
  await ok("vm", "run", "--rm", "--", "true");
  const taken = await oneIsReady();
  await ok("vm", "create", "--name", "unstarted");
  const last = await host.daemonPid();
  process.kill(last, "SIGKILL");
  await processEnds(last);
  await ok("vm", "start", "unstarted");
  const unstarted = await host.json<Vm>("vm", "show", "unstarted");
  assert.deepEqual([unstarted.id, unstarted.restored], [taken, "template"]);
  assert.equal(await exists(join(vmsFolder(), taken, "ready")), false);
  assert.match((await ok("vm", "exec", "unstarted", "--", "cat", "/etc/hostname")).stdout, /unstarted/);
  await ok("vm", "delete", "unstarted");
  await ok("vm", "run", "--rm", "--", "true");
  await oneIsReady();
  await ok("daemon", "stop");
  assert.deepEqual(await readdir(vmsFolder()), []);
  assert.equal((await host.processes()).filter(({ command }) => command.includes("banger-ready")).length, 0);
});
