/** Sockets in a guest that wait for connections. */
import * as z from "zod/mini";
import { BangerError } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import { type GuestPort, portSchema } from "../../contract/vms.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";

/** The agent's `listeners` (docs/guest-protocol.md). More than so many from one guest are not believed. */
const listenersSchema = z.object({ listeners: z.array(portSchema).check(z.maxLength(4096)) });

/**
 * @returns by port; what listens on one port with several sockets is told once
 * @throws GUEST_PROTOCOL when the guest's answer makes no sense
 */
export const guestPorts = async (guest: GuestConnection, progress: Progress): Promise<GuestPort[]> => {
  const parsed = z.safeParse(listenersSchema, await callGuest(guest, { op: "listeners" }, progress));
  if (!parsed.success)
    throw new BangerError(
      "GUEST_PROTOCOL",
      `the guest's list of sockets makes no sense: ${z.prettifyError(parsed.error)}`,
    );
  const seen = new Map<string, GuestPort>();
  for (const port of parsed.data.listeners) {
    const key = `${port.proto} ${port.address} ${port.port}`;
    if (!seen.has(key)) seen.set(key, port);
  }
  return [...seen.values()].sort((a, b) => a.port - b.port || a.proto.localeCompare(b.proto));
};
