/** Connections to servers in a guest. */
import { Duplex } from "node:stream";
import { BangerError } from "../contract/errors.ts";
import { abortable } from "../contract/progress.ts";
import type { GuestConnection } from "./connection.ts";
import type { GuestStream } from "./stream.ts";

export type GuestTarget = {
  port: number;
  udp: boolean;
  /** Addresses in the guest that are tried in this order. */
  hosts: readonly string[];
  /** Bytes each side may have on the way; the protocol's own window where it is left out. */
  window?: number | undefined;
};

/** Nothing listens there, or the guest has no such address. */
const NOT_THERE = ["ECONNREFUSED", "EADDRNOTAVAIL", "EAFNOSUPPORT", "ENETUNREACH", "EHOSTUNREACH"];

const notThere = (error: unknown): boolean =>
  error instanceof BangerError && error.code === "GUEST_ERROR" && NOT_THERE.includes(String(error.details?.code));

/**
 * Connects to the first of the target's addresses that something listens on.
 * @returns the stream, both its outputs still to be read, and the address
 * @throws GUEST_ERROR (of the first address) when nothing listens on any, GUEST_AGENT_LOST, or the signal's error
 */
export const dialGuest = async (
  guest: GuestConnection,
  { port, udp, hosts, window }: GuestTarget,
  signal: AbortSignal,
): Promise<{ stream: GuestStream; host: string }> => {
  let first: unknown;
  for (const host of hosts) {
    const stream = guest.open({ op: "dial", port, host, ...(udp ? { udp } : {}) }, window);
    stream.errors.resume();
    try {
      await abortable(stream.opened, signal);
      return { stream, host };
    } catch (error) {
      stream.abort();
      stream.output.resume();
      if (!notThere(error)) throw error;
      first ??= error;
    }
  }
  throw first;
};

/** Bytes of the length before each datagram, a little-endian u16. */
const PREFIX = 2;

export const encodeDatagram = (datagram: Uint8Array): Uint8Array => {
  const framed = Buffer.allocUnsafe(PREFIX + datagram.length);
  framed.writeUInt16LE(datagram.length);
  framed.set(datagram, PREFIX);
  return framed;
};

/** @returns a function that takes bytes in pieces of any size and calls `onDatagram` for each datagram that is whole */
export const datagramDecoder = (onDatagram: (datagram: Uint8Array) => void): ((chunk: Buffer) => void) => {
  let kept: Buffer = Buffer.alloc(0);
  return (chunk) => {
    let rest = kept.length === 0 ? chunk : Buffer.concat([kept, chunk]);
    while (rest.length >= PREFIX && rest.length >= PREFIX + rest.readUInt16LE()) {
      const end = PREFIX + rest.readUInt16LE();
      onDatagram(rest.subarray(PREFIX, end));
      rest = rest.subarray(end);
    }
    kept = rest.length === 0 ? rest : Buffer.from(rest);
  };
};

/** A stream that is a connection in the guest, as one object for what speaks with sockets. Destroying it before both sides have ended resets the connection. */
export const guestDuplex = (stream: GuestStream): Duplex => {
  let failure: Error | undefined;
  stream.result.catch((error: unknown) => {
    failure = error instanceof Error ? error : new Error(String(error));
  });
  const duplex = new Duplex({
    read: () => void stream.output.resume(),
    write: (chunk: Buffer, _encoding, done) => void stream.input.write(chunk, done),
    final: (done) => void stream.input.end(done),
    destroy: (error, done) => {
      // After both ends the guest closes it by itself, once the last of it is delivered there.
      if (error || !duplex.readableEnded || !duplex.writableFinished) stream.abort();
      stream.output.resume();
      done(error);
    },
  });
  stream.output.on("data", (chunk: Buffer) => {
    if (!duplex.destroyed && !duplex.push(chunk)) stream.output.pause();
  });
  // After a failure of the stream its outputs end too, and its result is known one microtask later.
  stream.output.once("end", () =>
    queueMicrotask(() => {
      if (failure) duplex.destroy(failure);
      else if (!duplex.destroyed) duplex.push(null);
    }),
  );
  return duplex;
};
