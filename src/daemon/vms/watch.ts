/** Tells clients of VMs as they change. What a slow client has not read yet is kept once per VM, not once per change. */
import type { Writable } from "node:stream";
import { logScope } from "../log.ts";
import type { Vm, VmWatchLine } from "../../contract/vms.ts";

export type VmFeed = {
  /** A VM has changed or is gone. */
  changed(id: string): void;
  /**
   * Writes a line for all VMs, then one for each that changes.
   * @returns when the client is gone
   */
  watch(output: Writable, gone: AbortSignal): Promise<void>;
};

/** @param view the VM as it is now; undefined when it is gone */
export const vmFeed = (all: () => Vm[], view: (id: string) => Vm | undefined): VmFeed => {
  const listeners = new Set<(id: string) => void>();

  const watch: VmFeed["watch"] = async (output, gone) => {
    const names = new Map<string, string>();
    /** With the operation that last changed it. */
    const changed = new Map<string, string | undefined>();
    let wake = (): void => undefined;
    const listener = (id: string) => {
      changed.set(id, logScope.getStore()?.operation);
      wake();
    };
    listeners.add(listener);
    gone.addEventListener("abort", () => wake(), { once: true });
    const put = (line: VmWatchLine) =>
      new Promise<void>((resolve) => output.write(`${JSON.stringify(line)}\n`, () => resolve()));
    try {
      const vms = all();
      for (const { id, name } of vms) names.set(id, name);
      await put({ vms });
      while (!gone.aborted) {
        const [entry] = changed;
        if (!entry) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
          continue;
        }
        const [id, operation] = entry;
        changed.delete(id);
        const vm = view(id);
        const name = vm?.name ?? names.get(id);
        if (name === undefined) continue;
        await put({ ...(vm ? { vm } : { gone: { id, name } }), ...(operation === undefined ? {} : { operation }) });
        if (vm) names.set(id, name);
        else names.delete(id);
      }
    } finally {
      listeners.delete(listener);
    }
  };

  return {
    changed: (id) => {
      for (const tell of listeners) tell(id);
    },
    watch,
  };
};
