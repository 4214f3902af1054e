/** Counts bytes on their way, for the progress display. */
import type { ProgressEvent } from "../../contract/progress.ts";

export type Meter = {
  /** Passes `source` on. */
  count(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>;
};

/**
 * @param what is copied, for a person
 * @param total in bytes, where it is known
 */
export const byteMeter = (report: (event: ProgressEvent) => void, what: string, total?: number): Meter => {
  let done = 0;
  return {
    async *count(source) {
      for await (const chunk of source) {
        done += chunk.length;
        report({ stage: "copy", message: what, done, ...(total === undefined ? {} : { total }), unit: "bytes" });
        yield chunk;
      }
    },
  };
};
