/** Ctrl-C while banger itself works: the first cancels and waits until all is undone, the second leaves at once. */
import { BangerError } from "../contract/errors.ts";

/** Exit status after Ctrl-C. */
export const INTERRUPTED = 130;
/** Exit status of a program that a signal ended: 128 and its number. */
const statusOf = { SIGINT: INTERRUPTED, SIGTERM: 143, SIGHUP: 129 } as const;
type Interrupt = keyof typeof statusOf;
const interrupts = Object.keys(statusOf) as Interrupt[];

export type Interruptible = Disposable & { readonly signal: AbortSignal };

/** From now until it is disposed, SIGINT, SIGTERM and SIGHUP abort the signal. */
export const interruptible = (): Interruptible => {
  const controller = new AbortController();
  const onSignal = (name: Interrupt) => {
    if (controller.signal.aborted) process.exit(statusOf[name]);
    controller.abort(new BangerError("CANCELLED", "cancelled"));
  };
  for (const name of interrupts) process.on(name, onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of interrupts) process.off(name, onSignal);
    },
  };
};
