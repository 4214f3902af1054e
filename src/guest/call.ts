/** Guest operations that stream nothing: a request and its result. */
import { abortable, type Progress } from "../contract/progress.ts";
import { BangerError } from "../contract/errors.ts";
import type { GuestConnection } from "./connection.ts";

/**
 * Runs one operation of docs/guest-protocol.md in the guest.
 * @returns its `ok`
 * @throws GUEST_ERROR, GUEST_AGENT_LOST, GUEST_PROTOCOL, or the signal's error
 */
export const callGuest = async (
  connection: GuestConnection,
  request: Record<string, unknown>,
  progress: Progress,
): Promise<unknown> => {
  const stream = connection.open(request);
  stream.output.resume();
  stream.errors.resume();
  try {
    const result = await abortable(stream.result, progress.signal);
    if ("ok" in result) return result.ok;
    throw new BangerError("GUEST_PROTOCOL", `the guest answered ${String(request.op)} with an exit status`);
  } catch (error) {
    stream.abort();
    throw error;
  }
};
