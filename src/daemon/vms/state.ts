/** The life of a VM as data. Nothing else decides what may follow what. */
import { BangerError } from "../../contract/errors.ts";
import type { VmState } from "../../contract/vms.ts";

export const vmEvents = ["start", "ready", "pause", "resume", "sleep", "stop", "ended", "delete"] as const;
/** `ready` (the guest answers) and `ended` (its VMM is gone) happen; all others are asked for. */
export type VmEvent = (typeof vmEvents)[number];

export const transitions: Record<VmState, Partial<Record<VmEvent, VmState | "gone">>> = {
  stopped: { start: "starting", delete: "gone" },
  starting: { ready: "running", stop: "stopping", ended: "stopped" },
  running: { pause: "paused", sleep: "asleep", stop: "stopping", ended: "stopped" },
  paused: { resume: "running", sleep: "asleep", stop: "stopping", ended: "stopped" },
  stopping: { ended: "stopped" },
  // Its memory is a file: no machine of it can end.
  asleep: { start: "starting", delete: "gone" },
};

/**
 * The state after `event`.
 * @throws VM_WRONG_STATE when the event has no place in this state
 */
export const nextState = (name: string, state: VmState, event: VmEvent): VmState | "gone" => {
  const next = transitions[state][event];
  if (next) return next;
  throw new BangerError("VM_WRONG_STATE", `VM ${name} is ${state}; it cannot ${event} now`, {
    hint: `see its state with: banger vm show ${name}`,
    details: { state, event },
  });
};
