/** A lock in the order of asking; waiting for it can be cancelled. */
import { abortable } from "../../contract/progress.ts";

export type Mutex = { run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> };

export const mutex = (): Mutex => {
  let last: Promise<unknown> = Promise.resolve();
  return {
    run: async (work, signal) => {
      const before = last;
      const mine = Promise.withResolvers<void>();
      last = before.then(() => mine.promise);
      try {
        await abortable(before, signal);
        return await work();
      } finally {
        mine.resolve();
      }
    },
  };
};
