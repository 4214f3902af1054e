/** Lines of JSON from the daemon, and a screen that is drawn anew. */
import type { Readable } from "node:stream";
import { isTerminal, write } from "./output.ts";
import { asciiJson } from "./plain.ts";

/** Each line of `source` as a value. */
export async function* jsonLines<T>(source: Readable): AsyncGenerator<T> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of source) {
    const lines = (rest + decoder.decode(chunk as Buffer, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") yield JSON.parse(line) as T;
  }
}

/** A value on one line, for programs. */
export const printJsonLine = (value: unknown): Promise<void> => write(1, `${asciiJson(value)}\n`);

/** Shows `text` in place of what was shown before; where stdout is no terminal, below it. */
export const redraw = (text: string): Promise<void> =>
  write(1, isTerminal(1) ? `\x1b[H\x1b[2J\x1b[3J${text}\n` : `${text}\n`);
