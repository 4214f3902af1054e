/** What VMs use: the host's account of each VMM, and what its guest says of itself. */
import type { Writable } from "node:stream";
import * as z from "zod/mini";
import { abortable, silentProgress, withDeadline } from "../../contract/progress.ts";
import { BangerError } from "../../contract/errors.ts";
import type { GuestStats, StatsLine, VmStats } from "../../contract/vms.ts";
import { callGuest } from "../../guest/call.ts";
import { bytesOnDisk, exists } from "../../host/files.ts";
import { vmFiles } from "../../host/paths.ts";
import { processUse } from "../../host/proc.ts";
import type { DeviceUse } from "../../vmm/driver.ts";
import type { VmActor } from "./actor.ts";

/** How long a guest may take to tell, in ms: one that stands still must not hold up the others. */
const GUEST_LIMIT = 1000;
/** Between the two looks at the CPU time when only one answer is wanted, in ms. */
const SHORT_INTERVAL = 250;

const bytes = z.number().check(z.nonnegative());
/** The agent's `metrics` (docs/guest-protocol.md). */
const metricsSchema = z.object({
  clock_ms: z.optional(z.number()),
  load: z.array(z.number()),
  processes: z.number(),
  memory: z.object({ total: bytes, available: bytes }),
  disk: z.object({ total: bytes, free: bytes }),
  network: z.optional(z.nullable(z.object({ received: bytes, sent: bytes }))),
});

type Sample = { cpuTime: number; at: number };

const guestStats = async (actor: VmActor, gone: AbortSignal): Promise<GuestStats | undefined> => {
  using limited = withDeadline(
    silentProgress(gone),
    GUEST_LIMIT,
    () => new BangerError("GUEST_AGENT_LOST", "the guest does not answer"),
  );
  try {
    const guest = await actor.guest(limited);
    const asked = Date.now();
    const answer = metricsSchema.parse(await callGuest(guest, { op: "metrics" }, limited));
    const { clock_ms: clock, load, processes, memory, disk, network } = answer;
    return {
      ...(clock === undefined ? {} : { clockOffset: Math.round(clock - (asked + Date.now()) / 2) }),
      load: load[0] ?? 0,
      processes,
      memory,
      disk,
      ...(network ? { network } : {}),
    };
  } catch {
    // Silent, stopped meanwhile, or it says what cannot be understood: its own account is then left out.
    return undefined;
  }
};

/** What the VMM tells; a machine that does not answer at once is left out. */
const deviceUse = async (actor: VmActor, gone: AbortSignal): Promise<DeviceUse | undefined> => {
  const limit = AbortSignal.any([gone, AbortSignal.timeout(GUEST_LIMIT)]);
  try {
    return await abortable(actor.deviceUse(), limit);
  } catch {
    // It ended meanwhile, or has its hands full.
    return undefined;
  }
};

const statsOf = async (actor: VmActor, before: Map<string, Sample>, gone: AbortSignal): Promise<VmStats> => {
  const { id, name, state, memory, diskSize, pid } = actor.row();
  const { disk } = vmFiles(id);
  const [use, devices, guest, used] = await Promise.all([
    pid === undefined ? undefined : processUse(pid),
    state === "running" ? deviceUse(actor, gone) : undefined,
    state === "running" ? guestStats(actor, gone) : undefined,
    exists(disk).then((there) => (there ? bytesOnDisk(disk) : 0)),
  ]);
  const at = performance.now();
  const last = before.get(id);
  if (use) before.set(id, { cpuTime: use.cpuTime, at });
  const cpu =
    use && last && use.cpuTime >= last.cpuTime ? ((use.cpuTime - last.cpuTime) / (at - last.at)) * 100 : undefined;
  return {
    id,
    name,
    state,
    ...(cpu === undefined ? {} : { cpu: Math.round(cpu * 10) / 10 }),
    ...(use ? { cpuTime: use.cpuTime } : {}),
    memory: { size: memory, ...(use ? { rss: use.rss, pss: use.pss } : {}) },
    disk: { size: diskSize, used, ...devices?.disk },
    ...(devices?.network ? { network: devices.network } : {}),
    ...(guest ? { guest } : {}),
  };
};

/**
 * Writes a line for the VMs that `chosen` gives; with `follow` one each `interval` ms, until `gone` is aborted.
 * @param chosen is asked for each line: VMs come and go
 */
export const writeStats = async (
  chosen: () => readonly VmActor[],
  follow: boolean,
  interval: number,
  output: Writable,
  gone: AbortSignal,
): Promise<void> => {
  const before = new Map<string, Sample>();
  for (const { row } of chosen()) {
    const { id, pid } = row();
    const use = pid === undefined ? undefined : await processUse(pid);
    if (use) before.set(id, { cpuTime: use.cpuTime, at: performance.now() });
  }
  await pause(SHORT_INTERVAL, gone);
  while (!gone.aborted) {
    const vms = await Promise.all(chosen().map((actor) => statsOf(actor, before, gone)));
    const line: StatsLine = { time: Date.now(), vms };
    await new Promise<void>((resolve) => output.write(`${JSON.stringify(line)}\n`, () => resolve()));
    if (!follow) return;
    await pause(interval, gone);
  }
};

const pause = (ms: number, gone: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      gone.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, ms);
    gone.addEventListener("abort", over, { once: true });
    if (gone.aborted) over();
  });
