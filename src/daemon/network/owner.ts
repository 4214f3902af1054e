/** Which process of a guest has a socket, as its agent says. */
import * as z from "zod/mini";
import { BangerError } from "../../contract/errors.ts";
import { type Progress, silentProgress, withDeadline } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";

/** Neither the filter nor the proxy of secrets waits longer, in ms. */
const LIMIT = 300;
/** Of a process, in characters. */
const MAX_NAME = 32;

/** By its own port, and the one that it is connected to, where it is. */
export type GuestSocket = { proto: "tcp" | "udp"; port: number; to: number };

const ownerSchema = z.object({
  pid: z.optional(z.number().check(z.int(), z.minimum(1), z.maximum(2 ** 31 - 1))),
  process: z.optional(z.string()),
});

/** As it is written into a log: a process calls itself what it likes. @param answer of the agent's `whose` (docs/guest-protocol.md) */
export const ownerIn = (answer: unknown): string => {
  const { success, data } = z.safeParse(ownerSchema, answer);
  if (!success || data.pid === undefined || !data.process) return "";
  return `${data.process.replace(/[^\w.+:@/-]/g, "_").slice(0, MAX_NAME)}(${data.pid})`;
};

/** @returns `NAME(PID)`, or nothing where the guest knows of none */
export const askGuest = async (
  guest: GuestConnection,
  { proto, port, to }: GuestSocket,
  progress: Progress,
): Promise<string> =>
  guest.hello.features?.includes("whose")
    ? ownerIn(await callGuest(guest, { op: "whose", proto, port, to }, progress))
    : "";

/** A refusal does not wait longer for it. */
export const soon = () =>
  withDeadline(silentProgress(), LIMIT, () => new BangerError("CANCELLED", "the guest took too long"));
