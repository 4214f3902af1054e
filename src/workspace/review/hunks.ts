/** Hunks put into a text that may have moved on: where their lines stand exactly, or not at all. Text is one character a byte. */
import type { Hunk } from "./patch.ts";

/** Both sides of a place that both have changed. */
export type Clash = {
  /** Line of the host's file, from 1. */
  line: number;
  /** What was there when the repository was brought in, what the host has there now, what the VM makes of it. */
  base: string[];
  host: string[];
  vm: string[];
};

export type Merged = { text: string; clashes: Clash[] };

/** Lines with their ends. */
export const linesOf = (text: string): string[] => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];

const side = ({ lines }: Hunk, other: "+" | "-"): string[] =>
  lines.filter((line) => line[0] !== other).map((line) => line.slice(1));

/** What a hunk takes away or leaves, and what it leaves or adds. */
export const oldLines = (hunk: Hunk): string[] => side(hunk, "+");
export const newLines = (hunk: Hunk): string[] => side(hunk, "-");

/** A hunk that begins or ends without a line that stays begins or ends its file. */
type Anchors = { atStart: boolean; atEnd: boolean };
const anchorsOf = ({ lines }: Hunk): Anchors => ({
  atStart: lines[0]?.[0] !== " ",
  atEnd: lines.at(-1)?.[0] !== " ",
});

const standsAt = (lines: readonly string[], at: number, part: readonly string[], anchors: Anchors): boolean =>
  at >= 0 &&
  at + part.length <= lines.length &&
  (!anchors.atStart || at === 0) &&
  (!anchors.atEnd || at + part.length === lines.length) &&
  part.every((line, index) => lines[at + index] === line);

/** The only place from `from` on where `part` stands; undefined where there is none or several. */
const onlyPlace = (
  lines: readonly string[],
  from: number,
  part: readonly string[],
  anchors: Anchors,
): number | undefined => {
  let found: number | undefined;
  const [first] = part;
  if (first === undefined) return undefined;
  for (let at = lines.indexOf(first, from); at >= 0; at = lines.indexOf(first, at + 1)) {
    if (!standsAt(lines, at, part, anchors)) continue;
    if (found !== undefined) return undefined;
    found = at;
  }
  return found;
};

/**
 * @param hunks in their order; any of a file's
 * @returns the text with those that fit; `clashes` says which do not, and then the text is of no use. One that is there already is left.
 */
export const putHunks = (text: string, hunks: readonly Hunk[]): Merged => {
  const crlf = text.includes("\r\n") && !/(?:^|[^\r])\n/.test(text) && !hunks.some(hasCarriageReturn);
  const merged = putLines(linesOf(crlf ? text.replaceAll("\r\n", "\n") : text), hunks);
  return { ...merged, text: crlf ? merged.text.replaceAll("\n", "\r\n") : merged.text };
};

/** git keeps such a file with other ends of lines than the working tree. */
const hasCarriageReturn = ({ lines }: Hunk): boolean => lines.some((line) => line.endsWith("\r\n"));

const putLines = (lines: readonly string[], hunks: readonly Hunk[]): Merged => {
  const parts: string[] = [];
  const clashes: Clash[] = [];
  /** The first line that no hunk has taken yet, and by how much the host's lines lie further down than the guest's old ones. */
  let taken = 0;
  let shift = 0;
  for (const hunk of hunks) {
    const before = oldLines(hunk);
    const after = newLines(hunk);
    const anchors = anchorsOf(hunk);
    // A hunk without old lines says the line before it.
    const nominal = hunk.oldStart - (before.length === 0 ? 0 : 1) + shift;
    const expected = Math.max(taken, nominal);
    const fits = standsAt(lines, expected, before, anchors);
    const place = fits ? expected : undefined;
    const there = fits ? undefined : standsAt(lines, expected, after, anchors) ? expected : undefined;
    const at = place ?? (there === undefined ? onlyPlace(lines, taken, before, anchors) : undefined);
    const done = at === undefined ? (there ?? onlyPlace(lines, taken, after, anchors)) : undefined;
    if (at !== undefined) {
      parts.push(lines.slice(taken, at).join(""), after.join(""));
      taken = at + before.length;
      shift += at - nominal;
    } else if (done !== undefined) {
      parts.push(lines.slice(taken, done + after.length).join(""));
      taken = done + after.length;
      shift += done - nominal + after.length - before.length;
    } else {
      const host = lines.slice(expected, expected + Math.max(before.length, 1));
      clashes.push({ line: Math.min(expected, lines.length) + 1, base: before, host, vm: after });
    }
  }
  return { text: [...parts, lines.slice(taken).join("")].join(""), clashes };
};
