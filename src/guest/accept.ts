/** Connections that programs in a guest make to a port of its loopback, as they come (`accept` in docs/guest-protocol.md). */
import type { Duplex } from "node:stream";
import * as z from "zod/mini";
import { BangerError } from "../contract/errors.ts";
import { silentProgress } from "../contract/progress.ts";
import { callGuest } from "./call.ts";
import type { GuestConnection } from "./connection.ts";
import { guestDuplex } from "./dial.ts";
import type { GuestStream } from "./stream.ts";

export type Accepting = {
  /** Rejects when the guest cannot listen there, or no longer: GUEST_ERROR, or the connection's end. */
  readonly ended: Promise<never>;
  /** Nobody is accepted any more, and what is open is reset. */
  close(): void;
};

/** Streams that wait for a connection at once: so many programs may connect in the time that it takes to open another. */
const AHEAD = 8;
/** So many connections have the usual window, the others a small one, in bytes. */
const WIDE = 32;
const SMALL_WINDOW = 32 * 1024;

const openedSchema = z.object({ peer: z.number().check(z.int(), z.minimum(1), z.maximum(65_535)) });
const peerIn = (said: unknown): number | undefined => z.safeParse(openedSchema, said).data?.peer;

/**
 * @param most connections at once; others wait in the guest's kernel
 * @param serve owns the connection, which may be half closed by either side; destroying it resets it in the guest. `peer` is the port that whoever has
 * connected has of its own, unknown with an earlier agent
 */
export const acceptFromGuest = (
  guest: GuestConnection,
  { port, most, serve }: { port: number; most: number; serve(connection: Duplex, peer: number | undefined): void },
): Accepting => {
  const ended = Promise.withResolvers<never>();
  ended.promise.catch(() => undefined);
  const streams = new Set<GuestStream>();
  let waiting = 0;
  let closed = false;

  const close = () => {
    if (closed) return;
    closed = true;
    for (const stream of streams) stream.abort();
    // Where the connection has gone, the next greeting closes it.
    callGuest(guest, { op: "accept", port, stop: true }, silentProgress()).catch(() => undefined);
  };
  const fail = (error: unknown) => {
    if (closed) return;
    ended.reject(error);
    close();
  };

  const openOne = () => {
    const stream = guest.open({ op: "accept", port }, streams.size < WIDE ? undefined : SMALL_WINDOW);
    stream.errors.resume();
    streams.add(stream);
    waiting++;
    const over = () => {
      streams.delete(stream);
      fill();
    };
    const opened = (said: unknown) => {
      waiting--;
      if (closed) stream.abort();
      else serve(guestDuplex(stream), peerIn(said));
      fill();
    };
    stream.opened.then(opened, (error: unknown) => {
      waiting--;
      stream.output.resume();
      fail(error);
    });
    stream.result.then(over, over);
  };

  const fill = () => {
    try {
      while (!closed && waiting < AHEAD && streams.size < most) openOne();
    } catch (error) {
      // The connection has gone.
      fail(error instanceof BangerError ? error : new BangerError("INTERNAL", String(error)));
    }
  };

  fill();
  return { ended: ended.promise, close };
};
