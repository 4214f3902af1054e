/** The life of a VM as data. Nothing else decides what may follow what. */
import { BangerError } from "../../contract/errors.ts";
import type { VmState } from "../../contract/vms.ts";

export const vmEvents = ["start", "ready", "stop", "ended", "delete"] as const;
/** `start`, `stop` and `delete` are asked for; `ready` (the guest answers) and `ended` (its VMM is gone) happen. */
export type VmEvent = (typeof vmEvents)[number];

export const transitions: Record<VmState, Partial<Record<VmEvent, VmState | "gone">>> = {
  stopped: { start: "starting", delete: "gone" },
  starting: { ready: "running", stop: "stopping", ended: "stopped" },
  running: { stop: "stopping", ended: "stopped" },
  stopping: { ended: "stopped" },
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
