/** The driver over a stand-in (test/fake-firecracker) that checks every request against Firecracker's own description and runs the real agent. */
import assert from "node:assert/strict";
import { access, chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { installFake } from "../../../test/fake-firecracker/install.ts";
import type { FakeSettings, RecordedRequest } from "../../../test/fake-firecracker/settings.ts";
import { processEnds } from "../../../test/support/wait.ts";
import { silentProgress } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import { connectGuest } from "../../guest/connection.ts";
import { agentBinary } from "../../host/paths.ts";
import { processesNaming, processStartTime, processState } from "../../host/proc.ts";
import { signalGroup } from "../../host/process.ts";
import type { Driver, Machine, MachineIdentity, MachineSpec } from "../driver.ts";
import { firecrackerDriver } from "./driver.ts";

type Bed = {
  root: string;
  driver: Driver;
  spec: MachineSpec;
  program: string;
  requests(): Promise<RecordedRequest[]>;
  start(spec?: Partial<MachineSpec>, signal?: AbortSignal): Promise<Machine>;
  /** Everything that a start may leave is gone. */
  nothingLeft(): Promise<void>;
};

const MEMORY = 64 * 2 ** 20;

const withFake = async (settings: Partial<FakeSettings>, use: (bed: Bed) => Promise<void>): Promise<void> => {
  const root = await mkdtemp(join(tmpdir(), "fire-"));
  const { path, requests } = await installFake(root, { agent: agentBinary(), ...settings });
  const place = (name: string) => join(root, name);
  for (const name of ["kernel", "initramfs", "image", "disk.ext4", "modules"]) await writeFile(place(name), name);
  const folder = place("run");
  const spec: MachineSpec = {
    name: "box",
    vcpu: 2,
    memory: MEMORY,
    kernel: place("kernel"),
    initramfs: place("initramfs"),
    kernelArguments: ["extra=1"],
    disks: [
      { path: place("image"), readonly: true },
      { path: place("disk.ext4"), readonly: false },
      { path: place("modules"), readonly: true },
    ],
    nic: undefined,
    sockets: {
      folder,
      agent: join(folder, "a.sock"),
      control: join(folder, "c.sock"),
      console: join(folder, "s.sock"),
    },
    log: place("vmm.log"),
    networkLog: place("network.log"),
  };
  const driver = firecrackerDriver({ firecracker: path, qemu: "qemu", kvm: async () => undefined });
  const pids: number[] = [];
  const onIdentity = async ({ pid }: MachineIdentity) => void pids.push(pid);
  try {
    await use({
      root,
      driver,
      spec,
      program: path,
      requests,
      start: (more = {}, signal) => driver.start({ ...spec, ...more }, onIdentity, silentProgress(signal)),
      nothingLeft: async () => {
        await assert.rejects(access(folder), { code: "ENOENT" });
        for (const pid of pids) await processEnds(pid);
        assert.deepEqual(await processesNaming(spec.disks[1]?.path ?? ""), []);
      },
    });
  } finally {
    for (const pid of pids) {
      signalGroup(pid, "SIGKILL");
      await processEnds(pid);
    }
    await rm(root, { recursive: true });
  }
};

const calls = (requests: readonly RecordedRequest[]): string[] =>
  requests.map(({ method, path }) => `${method} ${path}`);

/** The agent behind a machine answers. */
const greets = async (machine: Machine, epoch: number): Promise<void> => {
  const channel = await machine.openAgentChannel();
  const guest = await connectGuest({ channel, epoch, onEvent: () => undefined }, silentProgress());
  assert.equal(guest.hello.version, 1);
  const found = (await callGuest(guest, { op: "stat", path: "/proc" }, silentProgress())) as { type: string };
  assert.equal(found.type, "dir");
  guest.close();
};

const COLD = [
  "PUT /serial",
  "PUT /machine-config",
  "PUT /boot-source",
  "PUT /drives/disk0",
  "PUT /drives/disk1",
  "PUT /drives/disk2",
  "PUT /vsock",
  "PUT /entropy",
  "PUT /balloon",
  "PUT /actions",
];

test("a cold boot: ten calls that the description allows, paths that hold in every VM, and an agent that answers once it has knocked", () =>
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
    assert.equal(await driver.adopt({ ...first.identity, startTime: "1" }, spec.sockets), undefined);
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

test("a snapshot goes on, and another machine goes on from it in two calls", () =>
  withFake({}, async ({ root, start, driver, spec, requests }) => {
    const source = await start();
    const saved = await saveInto(root, "saved");
    await source.save(request(saved), silentProgress());
    assert.equal(await readFile(saved.disk, "utf8"), "disk.ext4");
    for (const path of [saved.state, saved.memory]) assert.equal((await stat(path)).mode & 0o777, 0o600);
    await greets(source, 1);
    await source.kill();
    const before = (await requests()).length;
    const clone = await start({ restore: saved });
    await greets(clone, 2);
    assert.deepEqual(calls((await requests()).slice(before)), ["PUT /serial", "PUT /snapshot/load"]);
    const again = await saveInto(root, "again");
    await clone.save({ ...request(again), base: saved.memory }, silentProgress());
    assert.equal((await stat(again.memory)).size, MEMORY);
    const shape = { vcpu: 2, memory: MEMORY, kernelArguments: [], disks: spec.disks, nic: undefined };
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
