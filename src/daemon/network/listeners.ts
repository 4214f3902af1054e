/** Hears of sockets in a guest that wait for connections or datagrams, as they come and go. */
import * as z from "zod/mini";
import { BangerError } from "../../contract/errors.ts";
import type { GuestConnection } from "../../guest/connection.ts";

/** More than so many from one guest are not believed. */
const MAX_LISTENERS = 4096;
/** A line about all of them is no longer than this, in bytes. */
const MAX_LINE = 2 * 1024 * 1024;

/** The agent's `listeners` (docs/guest-protocol.md). */
export const listenersSchema = z.object({
  listeners: z
    .array(
      z.object({
        proto: z.enum(["tcp", "tcp6", "udp", "udp6"]),
        address: z.string().check(z.maxLength(64)),
        port: z.number().check(z.int(), z.minimum(1), z.maximum(65535)),
        pid: z.optional(z.number()),
        process: z.optional(z.string().check(z.maxLength(64))),
      }),
    )
    .check(z.maxLength(MAX_LISTENERS)),
});
export type Listener = z.infer<typeof listenersSchema>["listeners"][number];

/** An earlier agent passes over `udp`, and tells of TCP alone. */
export const LISTENERS = { op: "listeners", udp: true } as const;

export const protocolOf = ({ proto }: Pick<Listener, "proto">): "tcp" | "udp" =>
  proto === "udp" || proto === "udp6" ? "udp" : "tcp";

/** @throws GUEST_PROTOCOL when the guest's answer makes no sense */
export const parseListeners = (value: unknown): Listener[] => {
  const parsed = z.safeParse(listenersSchema, value);
  if (parsed.success) return parsed.data.listeners;
  throw new BangerError(
    "GUEST_PROTOCOL",
    `the guest's list of sockets makes no sense: ${z.prettifyError(parsed.error)}`,
  );
};

/**
 * Calls `onChange` with all of them now and after each change.
 * @returns when the signal is aborted
 * @throws GUEST_PROTOCOL, GUEST_AGENT_LOST, or GUEST_ERROR from an agent that does not know how
 */
export const watchListeners = async (
  guest: GuestConnection,
  onChange: (listeners: Listener[]) => void,
  signal: AbortSignal,
): Promise<void> => {
  if (signal.aborted) return;
  const stream = guest.open({ ...LISTENERS, watch: true });
  const stop = () => stream.abort();
  signal.addEventListener("abort", stop, { once: true });
  stream.errors.resume();
  try {
    let text = "";
    for await (const chunk of stream.output) {
      text += String(chunk);
      if (text.length > MAX_LINE) throw new BangerError("GUEST_PROTOCOL", "the guest's list of sockets does not end");
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      const latest = lines.at(-1);
      if (latest !== undefined) onChange(parseListeners(parse(latest)));
    }
    await stream.result;
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener("abort", stop);
    stream.abort();
  }
};

const parse = (line: string): unknown => {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new BangerError("GUEST_PROTOCOL", "the guest's list of sockets is not JSON", { cause: error });
  }
};
