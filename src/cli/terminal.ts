/** The user's terminal as the far end of a pty in the guest. Whatever happens, it is given back as it was. */
import type { RunningProcess } from "../host/process.ts";
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
export const takeTerminal = async (onSize: (size: { cols: number; rows: number }) => void): Promise<Disposable> => {
  const { stdin } = process;
  let changing: RunningProcess | undefined;
  const restore = () => {
    changing?.signal("SIGKILL");
    // The terminal may be gone (its window was closed): then there is nothing to restore.
    if (stdin.isTTY && !stdin.destroyed) stdin.setRawMode(false);
  };
  process.on("exit", restore);
  const stopResize = onResize(onSize);
  if (stdin.isTTY) {
    stdin.setRawMode(true);
    // Node's raw mode still makes CR LF of each LF, but the guest's pty has done that where its program wants it: vim moves down
    // by a bare LF. What setRawMode(false) restores is from before both.
    const { startProcess } = await import("../host/process.ts");
    changing = await startProcess({ argv: ["stty", "-opost"], stdio: [0, "ignore", "ignore"] });
    await changing.exited;
    changing = undefined;
  }
  return {
    [Symbol.dispose]() {
      stopResize();
      process.off("exit", restore);
      restore();
    },
  };
};
