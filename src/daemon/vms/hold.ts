/** A guest that is to be saved and goes on: held meanwhile, so that copies of it start as clones of a template do. */
import { BangerError } from "../../contract/errors.ts";
import { type Progress, silentProgress, throwIfAborted, withDeadline } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";

/** How long a guest that nobody releases stands held, in ms: long enough for copies of it to be told who they are on a busy host. */
const HOLD_LIMIT = 10_000;
/** How long it may take to hold itself, in ms. A guest that does not answer is saved as it is. */
const HOLD_PATIENCE = 2000;

const knowsHold = (connection: GuestConnection | undefined): connection is GuestConnection =>
  connection?.hello.features?.includes("hold_limit") === true;

/**
 * Makes copies of a guest that runs start as clones of a template do: `hold` in docs/guest-protocol.md.
 * @param connection undefined where the guest stands still
 * @returns whether it is to be released once it is saved
 */
export const holdForCopies = async (connection: GuestConnection | undefined, progress: Progress): Promise<boolean> => {
  if (!knowsHold(connection)) return false;
  using limited = withDeadline(progress, HOLD_PATIENCE, () => new BangerError("GUEST_ERROR", "it does not answer"));
  try {
    await callGuest(connection, { op: "hold", limit_ms: HOLD_LIMIT }, limited);
  } catch (error) {
    releaseGuest(connection);
    throwIfAborted(progress.signal);
    // Its copies take longer, then: a kernel without fanotify, or a guest that hangs.
    if (!(error instanceof BangerError) || !error.code.startsWith("GUEST_")) throw error;
  }
  return true;
};

/** Lets a guest go on that was held. Nobody waits for it: it would do so by itself. */
export const releaseGuest = (connection: GuestConnection | undefined): void => {
  if (!knowsHold(connection)) return;
  callGuest(connection, { op: "release" }, silentProgress()).catch(() => undefined);
};
