/** The user's terminal as the far end of a pty in the guest. Whatever happens, it is given back as it was. */
import { onResize, terminalSize } from "./render/output.ts";

export type Pty = { cols: number; rows: number; term: string };

/** What the guest is told of this terminal. */
export const ptyRequest = (): Pty => ({ ...terminalSize(), term: process.env.TERM || "xterm" });

/** Variables that describe the terminal and that the guest's programs look at. */
export const terminalEnvironment = (): Record<string, string> =>
  process.env.COLORTERM ? { COLORTERM: process.env.COLORTERM } : {};

export const stdinIsTerminal = (): boolean => process.stdin.isTTY === true;

/**
 * Puts the terminal in raw mode: every key, Ctrl-C too, goes to the guest.
 * @param onSize is told of each new size
 * @returns how to give it back; done at process exit too, so that a crash leaves a usable terminal
 */
export const takeTerminal = (onSize: (size: { cols: number; rows: number }) => void): Disposable => {
  const { stdin } = process;
  const restore = () => {
    // The terminal may be gone (its window was closed): then there is nothing to restore.
    if (stdin.isTTY && !stdin.destroyed) stdin.setRawMode(false);
  };
  if (stdin.isTTY) stdin.setRawMode(true);
  process.on("exit", restore);
  const stopResize = onResize(onSize);
  return {
    [Symbol.dispose]() {
      stopResize();
      process.off("exit", restore);
      restore();
    },
  };
};
