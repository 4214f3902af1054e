/** One piece of work per name, shared by all who ask for it while it runs. */
import { abortable, type Progress, type ProgressEvent, throwIfAborted } from "../../contract/progress.ts";

type Flight<T> = {
  controller: AbortController;
  result: Promise<T>;
  watchers: Set<Progress>;
  last: ProgressEvent | undefined;
};

export type SingleFlight<T> = {
  /**
   * Joins the work under `name`, or starts it. Progress goes to all who wait. A waiter that is cancelled leaves; when the
   * last one leaves, the work is cancelled, and whoever asks next starts anew after its clean-up.
   */
  run(name: string, progress: Progress, work: (progress: Progress) => Promise<T>): Promise<T>;
};

export const singleFlight = <T>(): SingleFlight<T> => {
  const flights = new Map<string, Flight<T>>();

  const start = (name: string, work: (progress: Progress) => Promise<T>): Flight<T> => {
    const controller = new AbortController();
    const watchers = new Set<Progress>();
    const report = (event: ProgressEvent) => {
      flight.last = event;
      for (const watcher of watchers) watcher.report(event);
    };
    const flight: Flight<T> = {
      controller,
      watchers,
      last: undefined,
      result: Promise.resolve()
        .then(() => work({ signal: controller.signal, report }))
        .finally(() => flights.delete(name)),
    };
    // Each waiter gets the failure; where none is left, the work was cancelled on purpose.
    flight.result.catch(ignore);
    flights.set(name, flight);
    return flight;
  };

  return {
    run: async (name, progress, work) => {
      throwIfAborted(progress.signal);
      for (;;) {
        const running = flights.get(name);
        if (!running?.controller.signal.aborted) break;
        await abortable(running.result.then(ignore, ignore), progress.signal);
      }
      const flight = flights.get(name) ?? start(name, work);
      flight.watchers.add(progress);
      if (flight.last) progress.report(flight.last);
      let left = false;
      try {
        return await abortable(flight.result, progress.signal);
      } catch (error) {
        left = progress.signal.aborted;
        throw error;
      } finally {
        flight.watchers.delete(progress);
        if (left && flight.watchers.size === 0) {
          flight.controller.abort(progress.signal.reason);
          // Cancelled means gone: what was half made is removed before the caller hears of it.
          await flight.result.then(ignore, ignore);
        }
      }
    },
  };
};

const ignore = (): void => undefined;
