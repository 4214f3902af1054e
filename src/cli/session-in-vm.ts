/** A command or a shell in a VM that runs. */
import type { Workspace } from "../contract/vms.ts";
import type { Client } from "../client/client.ts";
import { printable } from "./render/table.ts";
import { paint, say } from "./render/output.ts";
import { runSession, type SessionOptions } from "./session.ts";
import type { SessionPlan } from "./vm/shared.ts";

/** @returns its exit status */
export const runInVm = async (client: Client, vm: string, plan: SessionPlan & SessionOptions): Promise<number> => {
  let moved: Promise<string | undefined> | undefined;
  const stream = await client.stream("vmExec", { vm }, plan.exec, {
    onEvent: ({ workspace }) => {
      if (workspace) moved = movedOn(vm, workspace);
    },
  });
  // Before the command's own output, and before the terminal is the guest's.
  const onOpened = async (): Promise<void> => {
    const note = await moved;
    if (note !== undefined) await say(`${paint("note:", "yellow")} ${printable(note)}`);
  };
  return await runSession(stream, { ...plan, onOpened });
};

/** A note where the host's repository is at another commit than when it was brought in. Nothing of it that fails is worth a word here. */
const movedOn = async (vm: string, { repository, head }: Workspace): Promise<string | undefined> => {
  if (head === undefined) return undefined;
  const { headOf } = await import("../workspace/head.ts");
  const now = await headOf(repository).catch(() => undefined);
  if (now === undefined || now === head) return undefined;
  return `${repository} has moved on since it was brought in (${head.slice(0, 9)}, now ${now.slice(0, 9)}): banger vm workspace prepare ${vm} ${repository}`;
};
