/** Progress: what every operation that waits takes as its last parameter. */
import { BangerError } from "./errors.ts";

/** One step of a long operation, as shown to a person or streamed to a client. */
export type ProgressEvent = {
  /** Short name of the stage: `packages`, `boot`, `download`. */
  stage: string;
  /** What is being done now, for a person. */
  message?: string | undefined;
  /** Units done so far in this stage. */
  done?: number | undefined;
  /** Units in this stage, when known. */
  total?: number | undefined;
  /** What the units are. */
  unit?: "bytes" | "packages" | "files" | undefined;
};

export type Progress = {
  /** Aborted on cancel or deadline; its reason is the error to throw. */
  readonly signal: AbortSignal;
  /** Tells whoever watches. Never throws. */
  report(event: ProgressEvent): void;
};

/** A progress that nobody watches. */
export const silentProgress = (signal: AbortSignal = new AbortController().signal): Progress => ({
  signal,
  report: () => undefined,
});

/** A timer set for longer fires at once, in ms. */
const LONGEST_TIMER = 2 ** 31 - 1;

/**
 * The same progress with a deadline.
 * @param milliseconds from now
 * @param onTimeout the error that the deadline raises
 */
export const withDeadline = (
  progress: Progress,
  milliseconds: number,
  onTimeout: () => BangerError,
): Progress & Disposable => {
  const controller = new AbortController();
  const forward = () => controller.abort(progress.signal.reason);
  if (progress.signal.aborted) forward();
  progress.signal.addEventListener("abort", forward, { once: true });
  const timer = setTimeout(() => controller.abort(onTimeout()), Math.min(milliseconds, LONGEST_TIMER));
  return {
    signal: controller.signal,
    report: progress.report,
    [Symbol.dispose]() {
      clearTimeout(timer);
      progress.signal.removeEventListener("abort", forward);
    },
  };
};

/** The error an aborted signal stands for. */
export const abortError = (signal: AbortSignal): BangerError =>
  signal.reason instanceof BangerError
    ? signal.reason
    : new BangerError("CANCELLED", "cancelled", { cause: signal.reason });

/** @throws the signal's error when it is aborted */
export const throwIfAborted = (signal: AbortSignal): void => {
  if (signal.aborted) throw abortError(signal);
};

/**
 * Waits for `promise`, but no longer than the signal lives.
 * @throws the signal's error when it aborts first
 */
export const abortable = async <T>(promise: Promise<T>, signal: AbortSignal): Promise<T> => {
  throwIfAborted(signal);
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(abortError(signal));
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (onAbort) signal.removeEventListener("abort", onAbort);
  }
};

/**
 * As `Promise.all`, but none of the works goes on behind the failure of another: what was begun has ended when this settles.
 * @throws what the first of them, in their order, has failed with
 */
export const allEnded = async <T extends readonly unknown[]>(
  works: readonly [...T],
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> => {
  await Promise.allSettled(works);
  return await Promise.all(works);
};
