/** A real terminal in a test's hand: what is typed, what is on its screen, its size and its modes. */
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { bangerBinary, type Host } from "./host.ts";

const helper = join(import.meta.dirname, "terminal.py");

export type TerminalEnd = { status: number | null; signal: number | null; modes: string | null };

export type Terminal = AsyncDisposable & {
  /** The terminal's modes before the program started, all that tcgetattr tells. */
  before: string;
  pid: number;
  type(text: string): void;
  resize(columns: number, rows: number): void;
  signal(name: NodeJS.Signals): void;
  /** Closes the window: the program gets SIGHUP, and its terminal is gone. */
  close(): Promise<void>;
  /** The modes now. */
  modes(): Promise<string>;
  /** Resolves once `text` is written after what was last waited for; rejects when the program ends before. @returns what was written up to there */
  shows(text: string | RegExp, ms?: number): Promise<string>;
  /** The end of the program; its last output has been received. */
  end(ms?: number): Promise<TerminalEnd>;
  /** All output so far, control sequences included. */
  output(): string;
};

type Line = { start?: string; pid?: number; data?: string; modes?: string; closed?: true; end?: TerminalEnd };
type Size = { columns: number; rows: number };

/** Starts the built program, or another, in a terminal of its own. */
export const startInTerminal = async (
  host: Host,
  args: readonly string[],
  options: { size?: Size; env?: Record<string, string>; program?: string } = {},
): Promise<Terminal> => {
  const { columns, rows } = options.size ?? { columns: 100, rows: 30 };
  const child = spawn(
    "python3",
    [helper, String(columns), String(rows), "--", options.program ?? bangerBinary, ...args],
    {
      env: {
        ...process.env,
        TERM: "xterm-256color",
        COLORTERM: "truecolor",
        NO_COLOR: "",
        ...host.env,
        ...options.env,
      },
      stdio: ["pipe", "pipe", "inherit"],
    },
  );
  child.stdin.on("error", () => child.stdin.destroy());
  let output = "";
  let at = 0;
  let end: TerminalEnd | undefined;
  let gone = false;
  const waiting = new Set<() => void>();
  const answers: string[] = [];
  let start: { before: string; pid: number } | undefined;
  let closed = false;
  const text = new TextDecoder();
  const take = (line: Line) => {
    if (line.start !== undefined) start = { before: line.start, pid: line.pid ?? 0 };
    if (line.data !== undefined) output += text.decode(Buffer.from(line.data, "base64"), { stream: true });
    if (line.modes !== undefined) answers.push(line.modes);
    if (line.closed) closed = true;
    if (line.end) ({ end } = line);
    for (const look of waiting) look();
  };
  createInterface({ input: child.stdout }).on("line", (line) => take(JSON.parse(line) as Line));
  child.once("close", () => {
    gone = true;
    for (const look of waiting) look();
  });
  const send = (command: Record<string, unknown>) => void child.stdin.write(`${JSON.stringify(command)}\n`);

  /** @param find gives the value once it is there */
  const until = async <T>(what: () => string, ms: number, find: () => T | undefined): Promise<T> => {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const look = () => {
      const found = find();
      if (found !== undefined) resolve(found);
      else if (end || gone)
        reject(new Error(`the program ended; no ${what()} in: ${JSON.stringify(output.slice(at))}`));
    };
    const timer = setTimeout(
      () => reject(new Error(`waited ${ms} ms for ${what()}; the terminal shows: ${JSON.stringify(output.slice(at))}`)),
      ms,
    );
    waiting.add(look);
    try {
      look();
      return await promise;
    } finally {
      clearTimeout(timer);
      waiting.delete(look);
    }
  };

  const { before, pid } = await until(
    () => "start",
    10_000,
    () => start,
  );
  return {
    before,
    pid,
    type: (keys) => send({ write: keys }),
    resize: (width, height) => send({ resize: [width, height] }),
    signal: (name) => send({ signal: constants.signals[name] }),
    close: async () => {
      send({ close: true });
      await until(
        () => "close",
        10_000,
        () => closed || undefined,
      );
    },
    modes: () => {
      const index = answers.length;
      send({ modes: true });
      return until(
        () => "modes",
        10_000,
        () => answers[index],
      );
    },
    shows: (wanted, ms = 60_000) =>
      until(String.bind(undefined, wanted), ms, () => {
        const rest = output.slice(at);
        const match = typeof wanted === "string" ? undefined : wanted.exec(rest);
        const index = typeof wanted === "string" ? rest.indexOf(wanted) : (match?.index ?? -1);
        if (index < 0) return undefined;
        const length = index + (match ? match[0].length : String(wanted).length);
        at += length;
        return rest.slice(0, length);
      }),
    end: (ms = 60_000) =>
      until(
        () => "end",
        ms,
        () => end,
      ),
    output: () => output,
    [Symbol.asyncDispose]: async () => {
      child.stdin.end();
      if (!gone) await new Promise((resolve) => child.once("close", resolve));
    },
  };
};
