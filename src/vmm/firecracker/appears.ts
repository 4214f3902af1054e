/** Waiting for a socket that a child makes. */
import { watch } from "node:fs";
import { setImmediate } from "node:timers/promises";
import type { Socket } from "node:net";
import { errnoOf } from "../../contract/errors.ts";
import { connectTo } from "../../host/sockets.ts";

export type Appearance = Disposable & {
  /** @throws what `failed` or `signal` says, when that comes first */
  connect(failed: Promise<never>, signal: AbortSignal): Promise<Socket>;
};

/** Call it before the child is started. @param name of the socket in `folder` */
export const socketAppears = (folder: string, name: string, path: string): Appearance => {
  const there = Promise.withResolvers<void>();
  const watcher = watch(folder, (_, file) => {
    if (file === name) there.resolve();
  });
  watcher.on("error", there.reject);
  there.promise.catch(() => undefined);
  return {
    connect: async (failed, signal) => {
      const aborted = Promise.withResolvers<never>();
      const onAbort = () => aborted.reject(signal.reason);
      if (signal.aborted) onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      const givenUp = Promise.race([failed, aborted.promise]);
      givenUp.catch(() => undefined);
      try {
        await Promise.race([there.promise, givenUp]);
        for (;;) {
          try {
            return await connectTo(path);
          } catch (error) {
            // Its name is there some microseconds before it listens.
            if (errnoOf(error) !== "ECONNREFUSED") throw error;
            await Promise.race([setImmediate(), givenUp]);
          }
        }
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
    [Symbol.dispose]: () => watcher.close(),
  };
};
