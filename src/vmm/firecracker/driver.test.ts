/** The driver over a stand-in (test/fake-firecracker) that checks every request against Firecracker's own description and runs the real agent. */
import assert from "node:assert/strict";
import {
  access,
  appendFile,
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { greets, MEMORY, withFake } from "../../../test/fake-firecracker/bed.ts";
import type { RecordedRequest } from "../../../test/fake-firecracker/settings.ts";
import { silentProgress } from "../../contract/progress.ts";
import { processStartTime, processState } from "../../host/proc.ts";
import type { Machine } from "../driver.ts";
import { firecrackerDriver } from "./driver.ts";

const calls = (requests: readonly RecordedRequest[]): string[] =>
  requests.map(({ method, path }) => `${method} ${path}`);

const COLD = [
  "PUT /serial",
  "PUT /metrics",
  "PUT /machine-config",
  "PUT /cpu-config",
  "PUT /boot-source",
  "PUT /drives/disk0",
  "PUT /drives/disk1",
  "PUT /drives/disk2",
  "PUT /vsock",
  "PUT /entropy",
  "PUT /balloon",
  "PUT /actions",
];

test("a cold boot: twelve calls that the description allows, paths that hold in every VM, and an agent that answers once it has knocked", () =>
  withFake({}, async ({ root, spec, start, requests, driver, nothingLeft }) => {
    const machine = await start();
    await greets(machine, 1);
    await greets(machine, 2);
    const asked = await requests();
    assert.deepEqual(calls(asked), COLD);
    assert.deepEqual(
      asked.filter(({ fault }) => fault),
      [],
    );
    const text = JSON.stringify(asked.filter(({ path }) => path !== "/boot-source").map(({ body }) => body));
    assert.ok(!text.includes(root), `no path of this VM in what a snapshot keeps: ${text}`);
    const source = asked.find(({ path }) => path === "/boot-source")?.body as { boot_args: string };
    assert.match(source.boot_args, /\breboot=k .*\b8250\.nr_uarts=0\b.* extra=1$/);
    assert.equal((await stat(spec.sockets.folder)).mode & 0o777, 0o700);
    assert.deepEqual(await driver.running(root), [
      { identity: { ...machine.identity, helpers: [] }, disk: spec.disks[1]?.path },
    ]);
    assert.deepEqual(await driver.running(`${root}x`), []);
    await machine.kill();
    assert.equal((await machine.ended).clean, true);
    await nothingLeft();
  }));

test("once the guest answers nobody listens for its knocks any more, and it is found again without one", () =>
  withFake({}, async ({ start, spec }) => {
    const machine = await start();
    await greets(machine, 1);
    await assert.rejects(access(`${spec.sockets.agent}_1024`), { code: "ENOENT" });
    await greets(machine, 2);
  }));

test("a channel that is opened before the guest has booted waits for its knock", async () => {
  const folder = await mkdtemp(join(tmpdir(), "fire-"));
  const bootWhen = join(folder, "go");
  try {
    await withFake({ bootWhen }, async ({ start, requests }) => {
      const machine = await start();
      const greeted = greets(machine, 1);
      assert.equal((await requests()).at(-1)?.path, "/actions");
      await writeFile(bootWhen, "");
      await greeted;
    });
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a machine that ends is told of, also to whoever waits for its guest", () =>
  withFake({ silentGuest: true }, async ({ start, nothingLeft }) => {
    const machine = await start();
    const channel = machine.openAgentChannel();
    channel.catch(() => undefined);
    process.kill(machine.identity.pid, "SIGUSR1");
    await assert.rejects(channel, { code: "VM_STOPPED" });
    assert.deepEqual(await machine.ended, { reason: "the guest restarted, or its kernel stopped", clean: true });
    await nothingLeft();
  }));

test("a call that is refused undoes everything, with Firecracker's own words", async () => {
  for (const call of COLD)
    await withFake({ refuse: [call] }, async ({ start, requests, nothingLeft }) => {
      await assert.rejects(start(), { code: "TOOL_FAILED", message: `Firecracker refused ${call}: told to refuse` });
      assert.deepEqual(calls(await requests()), COLD.slice(0, COLD.indexOf(call) + 1));
      await nothingLeft();
    });
});

test("a death at any stage undoes everything, and says how it died", async () => {
  for (const stage of ["spawn", ...COLD])
    await withFake({ dieAt: stage }, async ({ start, nothingLeft }) => {
      const how = stage === "spawn" ? /ended with status 1: .*FailedToBind/ : /SIGABRT/;
      await assert.rejects(start(), { code: "VM_BOOT_FAILED", message: how });
      await nothingLeft();
    });
});

test("a death right after the start ends the machine", () =>
  withFake({ dieAt: "start" }, async ({ start, nothingLeft }) => {
    const machine = await start();
    const { reason, clean } = await machine.ended;
    assert.match(reason, /SIGABRT/);
    assert.equal(clean, false);
    await nothingLeft();
  }));

test("a start that is cancelled while Firecracker does not answer undoes everything", () =>
  withFake({ hangAt: "PUT /vsock" }, async ({ start, requests, nothingLeft, root }) => {
    const cancel = new AbortController();
    const { watch } = await import("node:fs");
    const asked = Promise.withResolvers<void>();
    const watcher = watch(root, () => void requests().then((all) => all.at(-1)?.path === "/vsock" && asked.resolve()));
    const started = start({}, cancel.signal);
    started.catch(() => undefined);
    await asked.promise;
    watcher.close();
    cancel.abort(new Error("enough"));
    await assert.rejects(started, /enough|cancelled/);
    await nothingLeft();
  }));

test("an identity that cannot be written down undoes everything", () =>
  withFake({}, async ({ driver, spec, nothingLeft }) => {
    const failing = async () => {
      throw new Error("no room");
    };
    await assert.rejects(driver.start(spec, failing, silentProgress()), /no room/);
    await nothingLeft();
  }));

test("what an earlier machine left in its folder is in nobody's way", () =>
  withFake({}, async ({ start, spec }) => {
    await mkdir(spec.sockets.folder, { mode: 0o700 });
    for (const path of [spec.sockets.agent, spec.sockets.control, `${spec.sockets.agent}_1024`])
      await writeFile(path, "");
    await symlink("/nowhere", join(spec.sockets.folder, "disk1"));
    await greets(await start(), 1);
  }));

test("a socket path that is too long is refused before anything is started", () =>
  withFake({}, async ({ start, spec, requests, root, nothingLeft }) => {
    const folder = join(root, "l".repeat(80));
    const sockets = { folder, agent: join(folder, "a"), control: join(folder, "c"), console: join(folder, "s") };
    await assert.rejects(start({ sockets }), { code: "FILE_REFUSED" });
    assert.deepEqual(await requests(), []);
    await assert.rejects(access(folder));
    assert.ok(spec);
    await nothingLeft();
  }));

test("a daemon that comes later takes the machine up: it answers, is watched and can be ended", () =>
  withFake({}, async ({ driver, start, spec, nothingLeft }) => {
    const first = await start();
    await greets(first, 1);
    first.detach();
    const machine = await driver.adopt(first.identity, spec.sockets);
    assert.ok(machine);
    await greets(machine, 2);
    // Of one that is gone the helpers are ended, with which this one would end too.
    const gone = { ...first.identity, startTime: "1", helpers: [] };
    assert.equal(await driver.adopt(gone, spec.sockets), undefined);
    await machine.kill();
    assert.equal((await machine.ended).clean, true);
    await nothingLeft();
  }));

test("a machine whose sockets are gone can be ended, and nothing else", () =>
  withFake({}, async ({ driver, start, spec }) => {
    const first = await start();
    first.detach();
    await rm(spec.sockets.folder, { recursive: true });
    const machine = await driver.adopt(first.identity, spec.sockets);
    assert.ok(machine);
    await assert.rejects(machine.openAgentChannel(), { code: "GUEST_AGENT_LOST" });
    await machine.kill();
    assert.equal(await processStartTime(first.identity.pid), undefined);
  }));

test("releases whose pause cuts vsock off are stopped as a process, others by their API; a later daemon sees both", async () => {
  for (const [version, whole] of [
    ["1.16.1", true],
    ["1.17.0", false],
  ] as const)
    await withFake({ version }, async ({ driver, start, spec, requests }) => {
      const first = await start();
      const { pid } = first.identity;
      for (let times = 0; times < 2; times++) await first.pause();
      assert.equal((await processState(pid)) === "T", whole);
      first.detach();
      const machine = await driver.adopt(first.identity, spec.sockets);
      assert.ok(machine);
      for (let times = 0; times < 2; times++) await machine.resume();
      assert.notEqual(await processState(pid), "T");
      await greets(machine, 1);
      const patches = (await requests()).filter(({ path }) => path === "/vm").map(({ body }) => body);
      assert.deepEqual(patches, whole ? [] : [{ state: "Paused" }, { state: "Resumed" }]);
      await machine.kill();
    });
});

test("what its devices have moved is added up, also by a later daemon for itself, whatever else comes through the pipe", () =>
  withFake({}, async ({ start, driver, spec }) => {
    const first = await start();
    const pipe = join(spec.sockets.folder, "metrics");
    assert.equal((await stat(pipe)).mode & 0o777, 0o600);
    assert.deepEqual(await first.deviceUse(), {
      disk: { read: 4096, written: 512 },
      network: { received: 60, sent: 42 },
    });
    await appendFile(
      pipe,
      `{"block_disk1": {"read_bytes": "x", "write_bytes": -1}}\n{"block_dis\n[]\nnull\n${"x".repeat(60_000)}`,
    );
    await appendFile(pipe, "\n");
    assert.deepEqual((await first.deviceUse())?.disk, { read: 8192, written: 1024 });
    first.detach();
    const machine = await driver.adopt(first.identity, spec.sockets);
    assert.deepEqual((await machine?.deviceUse())?.disk, { read: 4096, written: 512 });
  }));

test("with a serial line its guest's console comes through a pipe, to a later daemon too; without one there is none", () =>
  withFake({}, async ({ start, driver, spec, program, requests }) => {
    const silent = await start();
    assert.equal(await text(silent.console), "");
    await silent.kill();
    const before = (await requests()).length;
    const loud = firecrackerDriver({ firecracker: program, qemu: "qemu", kvm: async () => undefined, serial: true });
    const first = await loud.start(spec, async () => undefined, silentProgress());
    const asked = (await requests()).slice(before);
    assert.deepEqual(asked.find(({ path }) => path === "/serial")?.body, {
      serial_out_path: "console",
      rate_limiter: { size: 1_048_576, refill_time: 1000 },
    });
    const source = asked.find(({ path }) => path === "/boot-source")?.body as { boot_args: string };
    assert.match(source.boot_args, /console=ttyS0/);
    assert.doesNotMatch(source.boot_args, /nr_uarts/);
    const shape = { ...spec, nic: undefined };
    assert.notEqual(await loud.signature(shape), await driver.signature(shape));
    const pipe = join(spec.sockets.folder, "console");
    assert.equal((await stat(pipe)).mode & 0o777, 0o600);
    const hears = async (machine: Machine, words: string) => {
      await appendFile(pipe, words);
      const [heard] = (await once(machine.console, "data")) as [Buffer];
      assert.equal(String(heard), words);
    };
    await hears(first, "first");
    first.detach();
    const machine = await driver.adopt(first.identity, spec.sockets);
    assert.ok(machine);
    await hears(machine, "later");
    await machine.kill();
    assert.ok(machine.console.destroyed);
  }));

test("a disk grows while the guest runs", () =>
  withFake({}, async ({ start, requests, spec }) => {
    const machine = await start();
    await machine.growDisk(1, 1_048_576);
    assert.equal((await stat(spec.disks[1]?.path ?? "")).size, 1_048_576);
    assert.deepEqual((await requests()).at(-1)?.body, { drive_id: "disk1", path_on_host: "disk1" });
  }));

const saveInto = async (root: string, name: string) => {
  const folder = join(root, name);
  await mkdir(folder);
  return { state: join(folder, "state"), memory: join(folder, "memory"), disk: join(folder, "disk.ext4") };
};
const request = ({ state, memory, disk }: { state: string; memory: string; disk: string }) => ({
  memorySize: MEMORY,
  base: undefined,
  target: { state, memory },
  disk: { index: 1, target: disk },
  goOn: true,
});

test("a snapshot goes on, and another machine goes on from it in three calls", () =>
  withFake({}, async ({ root, start, driver, spec, requests }) => {
    const source = await start();
    const channel = await source.openAgentChannel();
    const saved = await saveInto(root, "saved");
    await source.save(request(saved), silentProgress());
    assert.ok(channel.destroyed, "it would go on to nowhere");
    assert.equal(await readFile(saved.disk, "utf8"), "disk.ext4");
    for (const path of [saved.state, saved.memory]) assert.equal((await stat(path)).mode & 0o777, 0o600);
    await greets(source, 1);
    await source.kill();
    const before = (await requests()).length;
    const clone = await start({ restore: saved });
    await greets(clone, 2);
    assert.deepEqual(calls((await requests()).slice(before)), ["PUT /serial", "PUT /metrics", "PUT /snapshot/load"]);
    const again = await saveInto(root, "again");
    await clone.save({ ...request(again), base: saved.memory }, silentProgress());
    assert.equal((await stat(again.memory)).size, MEMORY);
    const shape = { vcpu: 2, memory: MEMORY, nested: false, kernelArguments: [], disks: spec.disks, nic: undefined };
    const signature = await driver.signature(shape);
    assert.equal(
      await driver.signature({ ...shape, disks: spec.disks.map((disk) => ({ ...disk, path: "/x" })) }),
      signature,
    );
    assert.notEqual(await driver.signature({ ...shape, vcpu: 1 }), signature);
  }));

test("a paused machine is saved as it is and stays paused", () =>
  withFake({}, async ({ root, start, requests }) => {
    const machine = await start();
    await machine.pause();
    await machine.save(request(await saveInto(root, "saved")), silentProgress());
    assert.deepEqual(
      (await requests()).filter(({ path }) => path === "/vm").map(({ body }) => body),
      [{ state: "Paused" }],
    );
    await machine.resume();
    await greets(machine, 1);
  }));

test("a snapshot that fails loses nothing: the machine goes on", () =>
  withFake({ refuse: ["PUT /snapshot/create"] }, async ({ root, start }) => {
    const machine = await start();
    await assert.rejects(machine.save(request(await saveInto(root, "saved")), silentProgress()), {
      code: "TOOL_FAILED",
    });
    await greets(machine, 1);
  }));

test("a snapshot of another release, of a disk that is gone, or that is damaged, is refused and leaves nothing", () =>
  withFake({}, async ({ root, start, nothingLeft, spec }) => {
    const source = await start();
    const saved = await saveInto(root, "saved");
    await source.save(request(saved), silentProgress());
    await source.kill();
    const kept = await readFile(saved.state, "utf8");
    await writeFile(saved.state, kept.replace("1.16.1", "1.15.0"));
    await assert.rejects(start({ restore: saved }), /incompatible/);
    await writeFile(saved.state, kept);
    const disks = spec.disks.map((disk) => ({ ...disk, path: join(root, "gone") }));
    await assert.rejects(start({ restore: saved, disks }), /backing file/);
    await writeFile(saved.state, "{");
    await assert.rejects(start({ restore: saved }), /CRC64/);
    await nothingLeft();
  }));

test("a Firecracker that is missing, not executable, no program, too old or of another signature is named before anything exists", () =>
  withFake({ version: "1.13.1" }, async ({ start, root, requests, program }) => {
    await assert.rejects(start(), { code: "TOOL_MISSING", message: /1\.13\.1, and 1\.14 or newer/ });
    const of = (firecracker: string) =>
      firecrackerDriver({ firecracker, qemu: "qemu", kvm: async () => undefined }).host();
    await assert.rejects(of(join(root, "none")), { code: "TOOL_MISSING", message: /not installed/ });
    await assert.rejects(of("no-such-firecracker"), { code: "TOOL_MISSING", message: /not installed/ });
    await chmod(program, 0o644);
    // Root may execute only what somebody may.
    await assert.rejects(of(program), { code: "TOOL_MISSING", message: /is not executable/ });
    const foreign = join(root, "foreign");
    await writeFile(foreign, Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0]), { mode: 0o755 });
    await assert.rejects(of(foreign), { code: "TOOL_MISSING", message: /does not run on this machine/ });
    await assert.rejects(of("/bin/true"), { code: "TOOL_MISSING", message: /does not say which/ });
    assert.deepEqual(await requests(), []);
    assert.deepEqual((await readdir(root)).includes("run"), false);
  }));
