/** The guests' clocks: the host's time, as well as a message can tell it. */
import { performance } from "node:perf_hooks";
import type { Progress } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";

/** A guest that has confirmed the time within this, in ms, is off by less. */
export const HEARD_AT_ONCE = 100;
const MOST_TELLINGS = 5;

/** As the agent's `clock` and `configure` take it. */
export const hostTime = () => ({ clock_ns: String(BigInt(Date.now()) * 1_000_000n) });

/** Tells a guest the time; one that is so busy that it hears it late is told again. */
export const tellHostTime = async (guest: GuestConnection, progress: Progress): Promise<void> => {
  for (let told = 0; told < MOST_TELLINGS; told++) {
    const asked = performance.now();
    await callGuest(guest, { op: "clock", ...hostTime() }, progress);
    if (performance.now() - asked < HEARD_AT_ONCE) return;
  }
};
