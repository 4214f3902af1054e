/** The whole terminal for a program with keys. Whatever happens, it is given back as it was. */
import { onResize, terminalSize, write } from "./output.ts";

const ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/** Between these a terminal shows nothing half drawn. */
const [BEGIN, END] = ["\x1b[?2026h", "\x1b[?2026l"];
// biome-ignore lint/suspicious/noControlCharactersInRegex: keys are escape sequences
const KEY = /\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|./gsu;

const names: Record<string, string> = {
  "\x1b[A": "up",
  "\x1bOA": "up",
  "\x1b[B": "down",
  "\x1bOB": "down",
  "\x1b[C": "right",
  "\x1bOC": "right",
  "\x1b[D": "left",
  "\x1bOD": "left",
  "\x1b[5~": "page-up",
  "\x1b[6~": "page-down",
  "\x1b[H": "home",
  "\x1b[1~": "home",
  "\x1b[F": "end",
  "\x1b[4~": "end",
  "\r": "enter",
  "\n": "enter",
  " ": "page-down",
  "\x03": "interrupt",
};

export type Screen = Disposable & {
  /** Shows lines from the top; what does not fit is cut off by the terminal. Each may hold colours, and nothing else that moves a cursor. */
  draw(lines: readonly string[]): void;
};

/**
 * @param on `key` gets a name (`up`) or the character typed; `closed`: the terminal is gone
 */
export const openScreen = (on: { key(name: string): void; resize(): void; closed(): void }): Screen => {
  const { stdin } = process;
  const leave = (): void => {
    if (!stdin.isTTY || stdin.destroyed) return;
    stdin.setRawMode(false);
    void write(1, LEAVE).catch(() => undefined);
  };
  const onData = (chunk: Buffer): void => {
    for (const [key] of chunk.toString("utf8").matchAll(KEY)) on.key(names[key] ?? key);
  };
  process.on("exit", leave);
  stdin.setRawMode(true);
  stdin.on("data", onData).on("end", on.closed).on("error", on.closed);
  const stopResize = onResize(on.resize);
  void write(1, ENTER).catch(on.closed);
  return {
    draw: (lines) => {
      const { rows } = terminalSize();
      const text = lines
        .slice(0, rows)
        .map((line, index) => `\x1b[${index + 1};1H${line}\x1b[0m\x1b[K`)
        .join("");
      void write(1, `${BEGIN}${text}\x1b[0m\x1b[J${END}`).catch(on.closed);
    },
    [Symbol.dispose]() {
      stopResize();
      process.off("exit", leave);
      stdin.off("data", onData).off("end", on.closed).off("error", on.closed).pause();
      leave();
    },
  };
};
