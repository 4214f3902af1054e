/**
 * VMs that stand ready before anybody asks: restored from a template, warmed up by a first command, and paused. They belong to nobody and have no record,
 * and their guests have not been told who they are. A mark in their folder says so: a later daemon removes what an earlier one left (orphans.ts). It is
 * gone, also after a power cut, before anything that a user did in one counts as done.
 */
import { randomBytes } from "node:crypto";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress, silentProgress, throwIfAborted, withDeadline } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import { connectGuest, type GuestConnection } from "../../guest/connection.ts";
import { exists, syncDirectory } from "../../host/files.ts";
import { vmFiles, vmSockets } from "../../host/paths.ts";
import type { Machine } from "../../vmm/driver.ts";
import { needsFilter } from "../network/rules-file.ts";
import { cloneSaved } from "../saved/saved.ts";
import type { FoundTemplate, TemplateService } from "../templates/service.ts";
import { type GuestServices, present, startMachine } from "./boot.ts";
import type { MachinePlan, Shape } from "./plan.ts";

/** A machine that waits. */
type Waiting = {
  shape: Shape;
  id: string;
  mac: string;
  plan: MachinePlan;
  machine: Machine;
  connection: GuestConnection;
};

/** One that waits for the first start of the VM that it became. */
export type ReadyVm = Waiting & {
  /** Takes the machine, which from then on is the VM's to end. False where it was taken before, or has ended and nothing of it is left. */
  claim(): Promise<boolean>;
  /** Removes its mark. */
  unmark(): Promise<void>;
  /** Ends it and removes what it had, unless it was taken. */
  discard(): Promise<void>;
};

export type Pool = {
  /** One of this shape, the caller's from now on; undefined where none is ready. */
  take(shape: Shape, progress: Progress): Promise<ReadyVm | undefined>;
  /** VMs of this shape are in demand: as many as the settings say are made in the background. */
  want(shape: Shape): void;
  /** Ends all that nobody has started. */
  close(): Promise<void>;
};

/** Shapes that are kept ready at most; that of the longest ago goes first. */
const MAX_SHAPES = 4;
/** How long whoever has just got a VM has the CPUs before the next is made, in ms. */
const REFILL_DELAY = 300;
/** How long one may take to be ready, in ms. */
const READY_LIMIT = 30_000;
/** How long the VM that one became may wait for its first start, in ms. */
const LENT_LIMIT = 30_000;
/** No VM's first connection has this number, so that each greeting is told from the one here. */
const EPOCH = 65535;

/** Locally administered, unicast. */
export const newMac = (): string => `02:${randomBytes(5).toString("hex").match(/../g)?.join(":")}`;

type Kept = { shape: Shape; key: string | undefined; waiting: Waiting[]; filling: boolean };

/** @param size how many are kept of each shape, as the settings say at that moment */
export const vmPool = (services: GuestServices, templates: () => TemplateService, size: () => number): Pool => {
  const { log } = services;
  const kept = new Map<string, Kept>();
  const ending = new AbortController();
  const works = new Set<Promise<void>>();
  const lent = new Set<ReadyVm>();

  const track = (work: Promise<void>) => {
    works.add(work);
    void work.finally(() => works.delete(work));
  };

  const drop = (entry: Kept, gone: readonly Waiting[]) => {
    entry.waiting = entry.waiting.filter((ready) => !gone.includes(ready));
    for (const ready of gone)
      track(end(ready).catch((error: unknown) => log.warn("a ready VM was not ended", { id: ready.id, error })));
  };

  const lend = (waiting: Waiting): ReadyVm => {
    let ending: Promise<void> | undefined;
    let claimed = false;
    const discard = async () => {
      lent.delete(ready);
      clearTimeout(timer);
      if (claimed) return;
      ending ??= end(waiting);
      await ending;
    };
    const ready: ReadyVm = {
      ...waiting,
      claim: async () => {
        const first = !claimed && ending === undefined;
        claimed ||= first;
        await discard();
        return first;
      },
      unmark: async () => {
        await rm(vmFiles(waiting.id).ready, { force: true });
        await syncDirectory(vmFiles(waiting.id).folder);
      },
      discard,
    };
    const giveUp = () =>
      track(discard().catch((error: unknown) => log.warn("a ready VM was not ended", { id: waiting.id, error })));
    const timer = setTimeout(giveUp, LENT_LIMIT).unref();
    void waiting.machine.ended.then(giveUp);
    lent.add(ready);
    return ready;
  };

  const fill = async (entry: Kept): Promise<void> => {
    if (entry.filling) return;
    entry.filling = true;
    const isWanted = () => !ending.signal.aborted && kept.get(shapeKey(entry.shape)) === entry;
    try {
      const progress = silentProgress(ending.signal);
      while (isWanted() && entry.waiting.length < size()) {
        const template = await templates().find(entry.shape, progress);
        // Nothing is booted cold for it: a template is being made, or will be.
        if (!template) return;
        if (template.key !== entry.key) drop(entry, entry.waiting);
        entry.key = template.key;
        const ready = await makeReady(entry.shape, template, services, progress);
        if (!isWanted()) return await end(ready);
        entry.waiting.push(ready);
        log.info("vm is ready", { id: ready.id, image: entry.shape.image });
        void ready.machine.ended.then(() => {
          if (entry.waiting.includes(ready)) drop(entry, [ready]);
        });
      }
      drop(entry, entry.waiting.slice(size()));
    } catch (error) {
      if (!ending.signal.aborted) log.warn("a VM was not made ready", { image: entry.shape.image, error });
    } finally {
      entry.filling = false;
    }
  };

  return {
    take: async (shape, progress) => {
      const entry = kept.get(shapeKey(shape));
      if (!entry || entry.waiting.length === 0) return undefined;
      const template = await templates().find(shape, progress);
      const waiting = template?.key === entry.key ? entry.waiting.shift() : undefined;
      return waiting && lend(waiting);
    },
    want: (shape) => {
      const key = shapeKey(shape);
      const known = kept.get(key);
      // With none wanted, what was kept under earlier settings goes.
      if (ending.signal.aborted || (size() === 0 && !known)) return;
      // What is judged or noted from the first packet on starts anew.
      if (needsFilter({ network: shape.network, rules: [], team: undefined })) return;
      const entry = known ?? { shape, key: undefined, waiting: [], filling: false };
      kept.delete(key);
      kept.set(key, entry);
      for (const [other, oldest] of kept) {
        if (kept.size <= MAX_SHAPES) break;
        kept.delete(other);
        drop(oldest, oldest.waiting);
      }
      setTimeout(() => track(fill(entry)), REFILL_DELAY).unref();
    },
    close: async () => {
      ending.abort();
      for (const entry of kept.values()) drop(entry, entry.waiting);
      await Promise.all([...lent].map((ready) => ready.discard()));
      while (works.size > 0) await Promise.all(works);
    },
  };
};

const end = async ({ id, machine, connection }: Waiting): Promise<void> => {
  connection.close();
  await machine.kill();
  await rm(vmFiles(id).folder, { recursive: true, force: true });
  await rm(vmSockets(id).folder, { recursive: true, force: true });
};

const shapeKey = (shape: Shape): string => JSON.stringify(Object.entries(shape).sort());

export const isSameShape = (one: Shape, other: Shape): boolean => shapeKey(one) === shapeKey(other);

/** Removes the disk and memory of what stood ready for a VM that never ran: nobody has put anything in them. */
export const removeReady = async (id: string): Promise<void> => {
  const { disk, memory, ready } = vmFiles(id);
  if (!(await exists(ready))) return;
  // The mark goes last: a crash in between is met again.
  for (const path of [disk, memory, ready]) await rm(path, { force: true });
};

/** Restores one and runs a program in it, so that the code of a start and of a command is translated where that takes time. */
const makeReady = async (
  shape: Shape,
  { files: saved, manifest, plan }: FoundTemplate,
  services: GuestServices,
  progress: Progress,
): Promise<Waiting> => {
  const [id, mac] = [randomBytes(16).toString("hex"), newMac()];
  const files = vmFiles(id);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(files.folder, { recursive: true, force: true }));
  undo.defer(() => rm(vmSockets(id).folder, { recursive: true, force: true }));
  await mkdir(files.folder, { recursive: true, mode: 0o700 });
  await writeFile(files.ready, "", { mode: 0o600 });
  await cloneSaved(saved, manifest.files, files, progress);
  const machine = await startMachine(
    { ...shape, id, name: "ready", mac, env: {}, rules: [], team: undefined, startedAt: undefined },
    services,
    { from: { state: saved.state, memory: files.memory }, plan, onIdentity: async () => undefined },
    progress,
  );
  undo.defer(() => machine.kill());
  const late = () => new BangerError("VM_BOOT_TIMEOUT", "it was not ready in time");
  using limited = withDeadline(progress, READY_LIMIT, late);
  const channel = await abortable(machine.openAgentChannel(), limited.signal);
  const connection = await connectGuest({ channel, epoch: EPOCH, onEvent: () => undefined }, limited);
  undo.defer(() => connection.close());
  // No two have the same randomness, whatever goes on in them before they become somebody.
  await callGuest(connection, { op: "configure", ...present(), lazy: true, start_init: false }, limited);
  const stream = connection.open({ op: "exec", argv: ["true"] });
  stream.input.end();
  stream.output.resume();
  stream.errors.resume();
  // An image without `true` is as good.
  await abortable(stream.result, limited.signal).catch(() => throwIfAborted(limited.signal));
  await machine.pause();
  undo.move();
  return { shape, id, mac, plan, machine, connection };
};
