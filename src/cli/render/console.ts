/** A guest's console on a terminal. */
import { type Transform, type TransformCallback, Transform as TransformStream } from "node:stream";

/** Longest escape sequence that is waited for when a chunk ends in one, in characters. */
const MAX_SEQUENCE = 4096;
/** Colours, and any other sequence; an unfinished one at the end. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what this looks for
const COLOUR = /^\x1b\[[0-9;:]*m$/;
const COLOUR_NEXT = /^.\[[0-9;:]*m/s;
const SEQUENCE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what this looks for
  /\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][\s\S]*?(?:\x07|\x1b\\)|\x1b[ -/]*[0-OQ-WYZ\\`-~]|[^\P{Cc}\n\t\x1b]/gu;
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what this looks for
const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?$/;

/** A console's bytes for a terminal: text, newlines and colours pass, everything else that a terminal would obey is dropped. */
export const consoleFilter = (): Transform => {
  const decoder = new TextDecoder();
  let held = "";
  const clean = (text: string): string =>
    text
      .replace(SEQUENCE, (found) => (COLOUR.test(found) ? found : ""))
      .replaceAll("\x1b", (found, at: number, all: string) => (COLOUR_NEXT.test(all.slice(at, at + 32)) ? found : ""));
  return new TransformStream({
    transform: (chunk: Buffer, _encoding, done: TransformCallback) => {
      const text = held + decoder.decode(chunk, { stream: true });
      const start = UNFINISHED.exec(text)?.index ?? text.length;
      // What never ends is not waited for: without its escape character it is plain text.
      const cut = text.length - start > MAX_SEQUENCE ? text.length : start;
      held = text.slice(cut);
      done(null, clean(text.slice(0, cut)));
    },
    flush: (done: TransformCallback) => done(null, clean(held)),
  });
};
