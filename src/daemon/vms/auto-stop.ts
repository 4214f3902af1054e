/** Stops VMs that nobody has used for as long as their setting, or the config's, allows. One timer, for the next that is due. */
import type { Log } from "../log.ts";
import type { VmActor } from "./actor.ts";

/** A timer set for longer fires at once, in ms. */
const LONGEST_TIMER = 2 ** 31 - 1;

export type AutoStop = {
  /** When a VM will be stopped unless somebody uses it, in ms since 1970; undefined: it will not. */
  at(actor: VmActor): number | undefined;
  /** A VM or a setting has changed. */
  plan(): void;
  close(): void;
};

export type AutoStopParts = {
  actors(): Iterable<VmActor>;
  /** The config's `auto_stop_stale_after`, in ms; undefined: never. */
  staleAfter(): number | undefined;
  /** Stops a VM, if `due` still holds at the last moment. */
  stop(actor: VmActor, after: number, due: () => boolean): Promise<void>;
  log: Log;
  now?: () => number;
};

export const autoStop = ({ actors, staleAfter, stop, log, now = Date.now }: AutoStopParts): AutoStop => {
  let timer: NodeJS.Timeout | undefined;
  let planned = false;
  let closed = false;
  /** Being stopped: due for long, and not to be stopped twice. */
  const stopping = new Set<VmActor>();

  const limitOf = (actor: VmActor): number | undefined => actor.row().autoStop ?? staleAfter();

  const at = (actor: VmActor): number | undefined => {
    const since = actor.idleSince();
    const limit = limitOf(actor);
    return since === undefined || limit === undefined || limit === 0 ? undefined : since + limit;
  };

  const stopDue = (actor: VmActor, limit: number) => {
    const due = () => (at(actor) ?? Number.POSITIVE_INFINITY) <= now();
    stopping.add(actor);
    log.info("vm is not used and is stopped", { vm: actor.row().name, after: limit });
    stop(actor, limit, due)
      .catch((error: unknown) => log.error("vm not stopped", { vm: actor.row().name, error }))
      .finally(() => {
        stopping.delete(actor);
        plan();
      });
  };

  const look = () => {
    timer = undefined;
    let next = Number.POSITIVE_INFINITY;
    for (const actor of actors()) {
      const time = stopping.has(actor) ? undefined : at(actor);
      if (time === undefined) continue;
      if (time <= now()) stopDue(actor, limitOf(actor) ?? 0);
      else next = Math.min(next, time);
    }
    if (next < Number.POSITIVE_INFINITY) timer = setTimeout(look, Math.min(next - now(), LONGEST_TIMER)).unref();
  };

  // Many changes at once are looked at together.
  const plan = () => {
    if (planned || closed) return;
    planned = true;
    setImmediate(() => {
      planned = false;
      clearTimeout(timer);
      if (!closed) look();
    });
  };

  return {
    at,
    plan,
    close: () => {
      closed = true;
      clearTimeout(timer);
    },
  };
};
