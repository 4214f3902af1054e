/** Makes a template: boots a VM of its own that belongs to nobody, waits until it has come to rest, and saves it. */
import { randomBytes, randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { performance } from "node:perf_hooks";
import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress, throwIfAborted } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { savedFiles, vmFilesIn, vmSockets } from "../../host/paths.ts";
import { publish } from "../artifacts/published.ts";
import { stagingTree } from "../artifacts/staging.ts";
import { describeSaved, SAVED_MODE, type SavedManifest } from "../saved/saved.ts";
import { throwawayKeys } from "../ssh/service.ts";
import { type Bootable, type GuestServices, greetGuest, startMachine } from "../vms/boot.ts";
import type { MachinePlan, Shape } from "../vms/plan.ts";

/** How long a guest that is up may take to come to rest before it is saved as it is, in ms. */
const REST_LIMIT = 20_000;
/** Between two looks at how busy the guest is, in ms. */
const LOOK = 500;
/** A guest is at rest when its CPUs do less than this, as a share of one CPU, for two looks. */
const REST = 0.05;

/**
 * @param target folder the template is published as
 * @returns its manifest
 */
export const buildTemplate = async (
  { shape, plan, signature, target }: { shape: Shape; plan: MachinePlan; signature: string; target: string },
  services: GuestServices,
  progress: Progress,
): Promise<SavedManifest> => {
  await using staging = await stagingTree("template");
  const files = vmFilesIn(staging.path);
  const vm: Bootable = { ...shape, ...nobody() };
  const keys = throwawayKeys();
  keys.catch(() => undefined);
  const machine = await startMachine(
    vm,
    services,
    // Not recorded: a QEMU whose daemon dies is found by its disk (artifacts/staging.ts).
    { files, background: true, onIdentity: async () => undefined },
    progress,
  );
  try {
    const { connection } = await greetGuest(vm, machine, services, { origin: "boot", epoch: 1, files, keys }, progress);
    progress.report({ stage: "template", message: "waiting until it is at rest" });
    await comeToRest(connection, progress);
    connection.close();
    progress.report({ stage: "template", message: "saving" });
    const saved = savedFiles(staging.path);
    await machine.save({ memorySize: shape.memory, base: undefined, target: saved, goOn: false }, progress);
    await machine.kill();
    for (const path of [files.console, files.consoleTimes, files.vmmLog, files.networkLog, files.networkRules])
      await rm(path, { force: true });
    const manifest = await describeSaved(saved, { shape, plan, signature, vmm: services.driver.name, disk: true });
    await publish(staging.path, target, SAVED_MODE);
    return manifest;
  } finally {
    await machine.kill();
    await rm(vmSockets(vm.id).folder, { recursive: true, force: true });
  }
};

/** No clone keeps anything of it. */
const nobody = (): Pick<Bootable, "id" | "name" | "mac" | "env" | "rules" | "team" | "startedAt"> => ({
  id: randomBytes(16).toString("hex"),
  name: "template",
  mac: "02:00:00:00:00:01",
  env: {},
  rules: [],
  team: undefined,
  startedAt: undefined,
});

type Metrics = { cpu_ns: { user: number; system: number } };

/**
 * Waits until nothing of the boot goes on any more: a clone would do it again. What is asked here also brings the agent and a first program into the
 * guest's memory.
 */
const comeToRest = async (connection: GuestConnection, progress: Progress): Promise<void> => {
  const busy = async () => {
    const { cpu_ns: cpu } = (await callGuest(connection, { op: "metrics" }, progress)) as Metrics;
    return { cpu: cpu.user + cpu.system, at: performance.now() };
  };
  for (let round = 0; round < 3; round++) await tryOut(connection, progress);
  const until = performance.now() + REST_LIMIT;
  let last = await busy();
  for (let quiet = 0; quiet < 2 && performance.now() < until; ) {
    await new Promise((resolve) => setTimeout(resolve, LOOK));
    const now = await busy();
    quiet = (now.cpu - last.cpu) / 1e6 / (now.at - last.at) < REST ? quiet + 1 : 0;
    last = now;
  }
  // What each clone is told is then there already, and only written over.
  await callGuest(connection, { op: "configure", boot_id: randomUUID(), start_init: false }, progress);
  await callGuest(connection, { op: "sync" }, progress);
  await callGuest(connection, { op: "hold" }, progress).catch((error: unknown) => {
    throwIfAborted(progress.signal);
    // A kernel without fanotify: its clones write down who they are before they are handed out.
    if (!(error instanceof BangerError) || error.code !== "GUEST_ERROR") throw error;
  });
};

/** An image without `true` is as good a template. */
const tryOut = async (connection: GuestConnection, progress: Progress): Promise<void> => {
  const stream = connection.open({ op: "exec", argv: ["true"] });
  stream.output.resume();
  stream.errors.resume();
  await abortable(stream.result, progress.signal).catch(() => throwIfAborted(progress.signal));
};
