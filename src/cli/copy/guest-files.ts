/** Files of the guest through the daemon. */
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BangerError } from "../../contract/errors.ts";
import { abortError } from "../../contract/progress.ts";
import type { FileRequest, GuestFileStat } from "../../contract/vms.ts";
import type { Client } from "../../client/client.ts";

export type GuestFiles = {
  /** Undefined when there is nothing. @param follow whether a link is followed; default: yes */
  stat(path: string, follow?: boolean): Promise<GuestFileStat | undefined>;
  /** Sends `source` as the data of a request, and publishes what it made. */
  send(request: FileRequest, source: AsyncIterable<Uint8Array>): Promise<void>;
  /** Hands the data of a request to `take`. @returns the request's result */
  receive(request: FileRequest, take: (data: Readable) => Promise<void>): Promise<Record<string, unknown>>;
};

/** @param signal aborts whatever runs; nothing half done is published */
export const guestFiles = (client: Client, vm: string, signal: AbortSignal): GuestFiles => {
  const open = async (request: FileRequest) => {
    const stream = await client.stream("vmFile", { vm }, request, { signal });
    stream.stderr.resume();
    return stream;
  };
  return {
    stat: async (path, follow = true) => {
      try {
        const stream = await open({ op: "stat", path, follow });
        stream.stdin.end();
        stream.stdout.resume();
        return (await stream.closed).ok as GuestFileStat;
      } catch (error) {
        if (error instanceof BangerError && error.code === "FILE_NOT_FOUND") return undefined;
        throw error;
      }
    },
    send: async (request, source) => {
      const stream = await open(request);
      stream.stdout.resume();
      // The guest's own reason for not taking more says more than our broken pipe.
      const sent = pipeline(source, stream.stdin).then(
        () => undefined,
        (error: unknown) => {
          stream.abort();
          return error;
        },
      );
      const ended = await stream.closed.then(
        () => undefined,
        (error: unknown) => error,
      );
      const failed = await sent;
      // After Ctrl-C both only say that the copy was cut off.
      if (signal.aborted && (failed ?? ended) !== undefined) throw abortError(signal);
      if (failed !== undefined && isOwnFailure(failed)) throw failed;
      if (ended !== undefined) throw ended;
    },
    receive: async (request, take) => {
      const stream = await open(request);
      stream.stdin.end();
      const ended = stream.closed.then(
        () => undefined,
        (error: unknown) => error,
      );
      try {
        await take(stream.stdout);
      } catch (error) {
        // Where the stream failed or was cancelled first, its reader only saw an early end.
        const streamError = await Promise.race([ended, undefined]);
        stream.abort();
        await ended;
        throw signal.aborted ? abortError(signal) : (streamError ?? error);
      }
      return (await stream.closed).ok as Record<string, unknown>;
    },
  };
};

/** Whether sending failed on our side; otherwise the stream was closed under it, and `closed` says why. */
const isOwnFailure = (error: unknown): boolean => {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code !== "ERR_STREAM_PREMATURE_CLOSE" && code !== "ERR_STREAM_DESTROYED" && code !== "ABORT_ERR";
};
