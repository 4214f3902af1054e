/** First bytes of a guest connection: SYNC out, HELLO in. See docs/guest-protocol.md, "Start of a connection". */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import * as z from "zod/mini";
import { BangerError } from "../contract/errors.ts";
import { decodeJson, encodeFrame, frameType, HEADER_BYTES, MAX_FRAME } from "../contract/frames.ts";

export const NONCE_BYTES = 16;

const helloSchema = z.object({
  version: z.literal(1),
  agent: z.string().check(z.maxLength(64)),
  boot_id: z.string().check(z.maxLength(64)),
  kernel: z.string().check(z.maxLength(128)),
  /** `configure`: waits for its configuration. `running`: has it. */
  phase: z.enum(["configure", "running"]),
  /** What the first agents of this version did not know. */
  features: z.optional(z.array(z.string().check(z.maxLength(64))).check(z.maxLength(64))),
  /** The image's own init: its path, or null when the agent is process 1. */
  init: z.nullish(z.string().check(z.maxLength(256))),
});
export type Hello = z.infer<typeof helloSchema>;

/** @throws GUEST_PROTOCOL when the guest's HELLO is not one */
export const parseHello = (payload: Uint8Array): Hello => {
  const parsed = helloSchema.safeParse(decodeJson(payload.subarray(NONCE_BYTES)));
  if (parsed.success) return parsed.data;
  throw new BangerError(
    "GUEST_PROTOCOL",
    `the guest agent's greeting is not understood: ${z.prettifyError(parsed.error)}`,
  );
};

/** What the host writes first: padding that ends any half frame in the guest, then SYNC. */
export const greeting = (epoch: number): { nonce: Uint8Array; bytes: Uint8Array } => {
  const nonce = randomBytes(NONCE_BYTES);
  return { nonce, bytes: Buffer.concat([Buffer.alloc(MAX_FRAME), encodeFrame(frameType.sync, 0, nonce, 0, epoch)]) };
};

/**
 * Finds the HELLO that answers `nonce` in a stream that may start with leftovers of an older connection.
 * @returns a function that takes each chunk; it answers undefined until the HELLO's header has been seen, then the bytes from that header on
 */
export const helloFinder = (nonce: Uint8Array, epoch: number): ((chunk: Uint8Array) => Uint8Array | undefined) => {
  let kept: Uint8Array = new Uint8Array(0);
  const wanted = Buffer.from(nonce);
  return (chunk) => {
    const seen = Buffer.concat([kept, chunk]);
    for (let at = seen.indexOf(wanted); at >= 0; at = seen.indexOf(wanted, at + 1)) {
      const header = at - HEADER_BYTES;
      if (header < 0) continue;
      if (
        seen[header] === frameType.hello &&
        seen.readUInt16LE(header + 2) === epoch &&
        seen.readUInt32LE(header + 4) === 0
      ) {
        return seen.subarray(header);
      }
    }
    kept = seen.subarray(Math.max(0, seen.length - (HEADER_BYTES + NONCE_BYTES - 1)));
    return undefined;
  };
};

/** Waits until the channel is closed or failed, for whoever races it with the handshake. */
export const whenClosed = (channel: Duplex): Promise<void> =>
  new Promise((resolve) => {
    if (channel.destroyed) return resolve();
    channel.once("close", resolve);
    channel.once("end", resolve);
    channel.once("error", () => resolve());
  });
