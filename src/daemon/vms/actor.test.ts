/** One VM's actor over a machine of the test's own: what no real QEMU does on demand. */
import assert from "node:assert/strict";
import { mkdtemp, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { nextFrame, type ScriptedGuest, scriptedGuest } from "../../../test/support/scripted-guest.ts";
import { vmRow as row } from "../../../test/support/vm-row.ts";
import { encodeFrame, encodeJson, frameType } from "../../contract/frames.ts";
import { savedFiles, vmFiles } from "../../host/paths.ts";
import type { Machine, MachineEnd } from "../../vmm/driver.ts";
import { operations as operationRegistry } from "../operations.ts";
import type { VmRow, VmStore } from "../store/vms.ts";
import { unattended, vmActor, type VmActor } from "./actor.ts";
import { startCrowd } from "./crowd.ts";
import { secretService } from "../secrets/service.ts";
import type { BootServices } from "./services.ts";
import { runVm } from "./run.ts";
import { type VmService, vmService } from "./service.ts";

const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  close: async () => undefined,
};

/** A machine whose guest never says a word. */
const silentMachine = () => {
  const ended = Promise.withResolvers<MachineEnd>();
  const full = new Set<() => void>();
  const machine: Machine = {
    identity: { pid: 1, startTime: "1", helpers: [] },
    console: new PassThrough(),
    openAgentChannel: async () => new PassThrough({ readableHighWaterMark: 1024 * 1024 }),
    onAgentPort: () => undefined,
    onDiskFull: (listener) => void full.add(listener),
    deviceUse: async () => undefined,
    growDisk: async () => undefined,
    pause: async () => undefined,
    resume: () => new Promise<void>(() => undefined),
    save: async () => ({ pause: 0, memoryWritten: 0 }),
    ended: ended.promise,
    kill: async () => ended.resolve({ reason: "killed", clean: true }),
    detach: () => undefined,
  };
  return {
    machine,
    end: (reason: string) => ended.resolve({ reason, clean: false }),
    diskFull: () => {
      for (const tell of full) tell();
    },
  };
};

const storeOf = (rows: VmRow[], update: VmStore["update"] = () => undefined): VmStore => ({
  all: () => rows,
  insert: () => undefined,
  update,
  remove: () => undefined,
});

const servicesOf = (machine: Machine | undefined): BootServices =>
  ({
    log,
    crowd: startCrowd(),
    bootTimeout: 60_000,
    secrets: secretService({
      images: { defaults: async () => undefined },
      log,
      networkOf: (vm) => ({ ...vm, team: [] }),
    }),
    ssh: { guestKeys: async () => ({}), restore: async () => undefined, unpin: async () => undefined },
    driver: { name: "qemu", adopt: async () => machine, running: async () => [], host: async () => ({}) },
  }) as unknown as BootServices;

const inState = async (use: () => Promise<void>): Promise<void> => {
  const root = await mkdtemp(join(tmpdir(), "banger-actor-"));
  const before = { XDG_STATE_HOME: process.env.XDG_STATE_HOME, XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR };
  Object.assign(process.env, { XDG_STATE_HOME: root, XDG_RUNTIME_DIR: join(root, "run") });
  try {
    await use();
  } finally {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    await rm(root, { recursive: true, maxRetries: 5 });
  }
};

const actorOf = (machine: Machine | undefined, recorded = row(), update?: VmStore["update"]): VmActor =>
  vmActor({
    row: recorded,
    store: storeOf([], update),
    services: servicesOf(machine),
    admit: async () => [],
    publish: async () => [],
    onChanged: () => undefined,
    onRemoved: () => undefined,
  });

test("a guest that does not answer a new daemon holds up neither the daemon nor a delete", { timeout: 10_000 }, () =>
  inState(async () => {
    const actor = actorOf(silentMachine().machine);
    await actor.adopt(unattended);
    assert.equal(actor.row().state, "running");
    await actor.remove(unattended);
    assert.equal(actor.row().state, "stopped");
  }),
);

test("the end of a machine is known also where it cannot be written down", { timeout: 10_000 }, () =>
  inState(async () => {
    const { machine, end, diskFull } = silentMachine();
    let broken = false;
    const actor = actorOf(machine, row(), () => {
      if (broken) throw new Error("database or disk is full");
    });
    await actor.adopt(unattended);
    broken = true;
    diskFull();
    assert.match(actor.row().reason ?? "", /disk is full/);
    end("QEMU was ended by SIGKILL");
    await machine.ended;
    await new Promise(setImmediate);
    assert.equal(actor.row().state, "stopped");
    assert.equal(actor.row().pid, undefined);
  }),
);

test("waiting for a QEMU that stands still can be cancelled", { timeout: 10_000 }, () =>
  inState(async () => {
    const actor = actorOf(silentMachine().machine);
    await actor.adopt(unattended);
    const controller = new AbortController();
    const starting = actor.start({ report: () => undefined, signal: controller.signal });
    controller.abort();
    await assert.rejects(starting, { code: "CANCELLED" });
    await actor.remove(unattended);
  }),
);

test("the machine of an ephemeral VM ends with the daemon that ran it", { timeout: 10_000 }, () =>
  inState(async () => {
    const { machine } = silentMachine();
    const recorded = row({ ephemeral: true });
    const service = vmService(storeOf([recorded]), servicesOf(machine), async () => ({}) as never);
    await service.adoptAll();
    await machine.ended;
    assert.deepEqual(service.list(), []);
  }),
);

test("what a VM sleeps with outlives a daemon until its guest goes on, and no longer", () =>
  inState(async () => {
    const { folder, asleep, waking } = vmFiles(row().id);
    const after = async (state: VmRow["state"], ...there: string[]): Promise<[string, string[]]> => {
      await rm(folder, { recursive: true, force: true });
      for (const path of there) await mkdir(path, { recursive: true });
      const actor = actorOf(undefined, row({ state }));
      await actor.adopt(unattended);
      return [actor.row().state, await readdir(folder)];
    };
    assert.deepEqual(await after("asleep", asleep), ["asleep", ["asleep"]]);
    assert.deepEqual(await after("starting", asleep), ["asleep", ["asleep"]]);
    assert.deepEqual(await after("starting", waking), ["stopped", []]);
    // The daemon died between the save and its record, and the machine after it.
    assert.deepEqual(await after("running", asleep), ["stopped", []]);
  }));

test("a VM is in use while it is saved", { timeout: 10_000 }, () =>
  inState(async () => {
    const { machine } = silentMachine();
    const services = servicesOf({
      ...machine,
      resume: async () => undefined,
      openAgentChannel: () => Promise.reject(new Error("no agent")),
    });
    const asked = Promise.withResolvers<void>();
    const never = () => {
      asked.resolve();
      return new Promise<never>(() => undefined);
    };
    Object.assign(services, { images: { ensure: never }, kernels: { ensure: never } });
    const actor = vmActor({
      row: row(),
      store: storeOf([]),
      services,
      admit: async () => [],
      publish: async () => [],
      onChanged: () => undefined,
      onRemoved: () => undefined,
    });
    await actor.adopt(unattended);
    assert.notEqual(actor.idleSince(), undefined);
    void actor.save(savedFiles("/nowhere"), unattended);
    await asked.promise;
    assert.equal(actor.idleSince(), undefined);
  }),
);

test("a disk without a record survives a daemon's start, an empty folder does not", () =>
  inState(async () => {
    const [kept, gone] = ["a".repeat(32), "b".repeat(32)];
    for (const id of [kept, gone]) await mkdir(vmFiles(id).folder, { recursive: true });
    await writeFile(vmFiles(kept).disk, "somebody's work");
    await vmService(storeOf([]), servicesOf(undefined), async () => ({}) as never).adoptAll();
    assert.deepEqual(await readdir(join(vmFiles(kept).folder, "..")), [kept]);
  }));

test("what a killed daemon was writing in a VM's folder goes, and nothing else", () =>
  inState(async () => {
    const vm = row({ id: "c".repeat(32), state: "stopped" });
    const { folder, disk, networkRules } = vmFiles(vm.id);
    await mkdir(folder, { recursive: true });
    // No process has this number.
    for (const path of [disk, networkRules, `${networkRules}.4194305-0123456789ab.tmp`]) await writeFile(path, "x");
    await vmService(storeOf([vm]), servicesOf(undefined), async () => ({}) as never).adoptAll();
    assert.deepEqual((await readdir(folder)).sort(), [disk, networkRules].map((path) => basename(path)).sort());
  }));

test("a daemon that ends waits until a cancelled run has removed its VM", { timeout: 10_000 }, async () => {
  const registry = operationRegistry(log);
  const started = Promise.withResolvers<void>();
  let removed = false;
  const actor = {
    row: () => row({ state: "stopped" }),
    start: ({ signal }: { signal: AbortSignal }) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        started.resolve();
      }),
    remove: async () => {
      await new Promise((resolve) => setTimeout(resolve, 100));
      removed = true;
    },
  };
  const vms = {
    create: async () => actor,
    view: () => ({}),
    imageDefaults: async () => undefined,
  } as unknown as VmService;
  const client = { event: () => undefined, gone: new AbortController().signal } as never;
  const run = assert.rejects(runVm(client, { vm: {}, exec: { argv: ["true"] } }, vms, registry), { code: "CANCELLED" });
  await started.promise;
  await registry.drain();
  assert.ok(removed);
  await run;
});

test("an operation that does not end does not keep the daemon", { timeout: 10_000 }, async () => {
  const registry = operationRegistry(log);
  void registry.run("stuck", { progress: () => undefined }, () => new Promise(() => undefined));
  await registry.drain(50);
});

test("a guest whose connection broke is greeted again by the next who asks for it", { timeout: 20_000 }, () =>
  inState(async () => {
    const guests: ScriptedGuest[] = [];
    const { machine } = silentMachine();
    const open = async () => {
      const guest = await scriptedGuest();
      guests.push(guest);
      void nextFrame(guest, frameType.sync).then((sync) => guest.socket.write(guest.hello(sync)));
      return guest.channel;
    };
    const actor = actorOf({ ...machine, openAgentChannel: open, resume: async () => undefined });
    await actor.adopt(unattended);
    const first = await actor.guest(unattended);
    const body = encodeJson({ event: "protocol_error", message: "not a frame" });
    guests[0]?.socket.write(encodeFrame(frameType.event, 0, body, 0, actor.row().epoch));
    assert.equal((await first.closed).code, "GUEST_PROTOCOL");
    const [second, same] = await Promise.all([actor.guest(unattended), actor.guest(unattended)]);
    assert.equal(second, same);
    assert.notEqual(second, first);
    assert.equal(guests.length, 2);
    assert.equal(actor.row().reason, undefined);
    await actor.remove(unattended);
    for (const guest of guests) await guest[Symbol.asyncDispose]();
  }),
);

test("a delete ends what a start that came first has brought up", { timeout: 10_000 }, () =>
  inState(async () => {
    const { machine } = silentMachine();
    const actor = actorOf(machine);
    // An adoption holds the VM while the delete is asked for.
    const adopted = actor.adopt(unattended);
    const removed = actor.remove(unattended);
    await adopted;
    await removed;
    await machine.ended;
    assert.equal(actor.row().state, "stopped");
  }),
);
