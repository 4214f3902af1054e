/** `delete` of what the daemon removes by one operation. */
import { type Client, openClient } from "../client/client.ts";
import type { Outcome } from "./command.ts";
import { interruptible } from "./interrupt.ts";
import { actOnEach, type Named } from "./several.ts";

/**
 * Deletes what is named, all at the same time; Ctrl-C cancels what has not begun.
 * @param list what there is
 * @param resolve which of it a name means
 */
export const deleteEach = async (
  names: readonly string[],
  operation: "imageDelete" | "kernelDelete" | "snapshotDelete",
  list: (client: Client) => Promise<readonly Named[]> | readonly Named[],
  resolve: (given: string, things: readonly Named[]) => Named,
): Promise<Outcome> => {
  using client = openClient();
  using interrupt = interruptible();
  const progress = { signal: interrupt.signal, report: () => undefined };
  const remove = ({ name }: Named) => client.operation(operation, { name }, {}, progress);
  return await actOnEach(names, await list(client), remove, resolve);
};
