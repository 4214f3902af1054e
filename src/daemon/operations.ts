/** Long work with an id, watchers and a cancel. */
import { randomBytes } from "node:crypto";
import type { OperationInfo } from "../contract/api.ts";
import { BangerError, toBangerError } from "../contract/errors.ts";
import type { Progress, ProgressEvent } from "../contract/progress.ts";
import { type Log, logScope } from "./log.ts";

export type Operations = {
  list(): OperationInfo[];
  /** @throws OPERATION_NOT_FOUND */
  cancel(id: string): void;
  /** Cancels everything and waits until all of it has undone what it made, but no longer than `limitMs`. */
  drain(limitMs?: number): Promise<void>;
  /**
   * Runs `work` as an operation.
   * @param what for people: `start box`
   * @param watch is told of its start and of each step
   * @param signal cancels it too: the client that waits for it went away
   */
  run<T>(what: string, watch: Watcher, work: (progress: Progress) => Promise<T>, signal?: AbortSignal): Promise<T>;
};

export type Watcher = { started?(info: OperationInfo): void; progress(event: ProgressEvent): void };

/** How long undoing may hold up a daemon that is to end, in ms: below what a client waits for it. What is left then, the next daemon finds. */
const DRAIN_LIMIT = 8000;

/** The id leads from an error to what the log says of it. */
const withOperation = (thrown: unknown, operation: string): BangerError => {
  const error = toBangerError(thrown);
  const { code, message, hint, details } = error;
  return new BangerError(code, message, { hint, details: { operation, ...details }, cause: thrown });
};

const cancelled = (what: string) => new BangerError("CANCELLED", `cancelled: ${what}`);

export const operations = (log: Log): Operations => {
  const running = new Map<string, { info: OperationInfo; controller: AbortController; over: Promise<unknown> }>();

  const run: Operations["run"] = async (what, watch, work, signal) => {
    const info = { id: randomBytes(6).toString("hex"), what, startedAt: Date.now() };
    const controller = new AbortController();
    const abort = () => controller.abort(cancelled(what));
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    watch.started?.(info);
    log.info("operation started", { operation: info.id, what });
    const progress = { signal: controller.signal, report: watch.progress };
    const result = logScope.run({ operation: info.id }, () => work(progress));
    running.set(info.id, { info, controller, over: result.catch(() => undefined) });
    try {
      const value = await result;
      log.info("operation done", { operation: info.id, what, ms: Date.now() - info.startedAt });
      return value;
    } catch (error) {
      log.warn("operation failed", { operation: info.id, what, ms: Date.now() - info.startedAt, error });
      throw withOperation(error, info.id);
    } finally {
      running.delete(info.id);
      signal?.removeEventListener("abort", abort);
    }
  };

  const cancel = (id: string) => {
    const found = running.get(id);
    if (!found) throw new BangerError("OPERATION_NOT_FOUND", `there is no running operation ${id}`);
    found.controller.abort(cancelled(found.info.what));
  };

  return {
    list: () => [...running.values()].map(({ info }) => info),
    cancel,
    drain: async (limitMs = DRAIN_LIMIT) => {
      for (const id of [...running.keys()]) cancel(id);
      const late = Promise.withResolvers<void>();
      const timer = setTimeout(late.resolve, limitMs);
      await Promise.race([Promise.all([...running.values()].map(({ over }) => over)), late.promise]);
      clearTimeout(timer);
      for (const { info } of running.values())
        log.warn("operation did not end in time", { operation: info.id, what: info.what });
    },
    run,
  };
};
