/** What a review looks like: rows of the terminal from its state. Everything that a guest wrote goes through `visible`. */
import { shown } from "../../../workspace/git.ts";
import type { Part } from "../../../workspace/review/plan-change.ts";
import { accepted, type Entry, kindOf, type Review, risksIn } from "../../../workspace/review/review.ts";
import { riskText } from "../../../workspace/review/risk.ts";
import { paint } from "../../render/output.ts";
import { visible } from "../../render/plain.ts";
import { conflictLines, countText, letterOf, nameOf } from "./text.ts";

export type Cursor = {
  /** Which of the entries shown, and which part of it. */
  index: number;
  part: number;
  /** First line shown of its changes. */
  scroll: number;
  /** Only what deserves a second look. */
  risky: boolean;
  /** Said in the last row, in place of the keys. */
  message: string | undefined;
};

export type Size = { cols: number; rows: number };
type Line = { text: string; part?: number };
type Style = Parameters<typeof paint>[1];

/** Of one file, more lines are not shown. */
const MOST_LINES = 5000;
const KEYS =
  "↑↓ file  ←→ hunk  space page  a/r accept, reject file  y/n hunk  A all without risk  f only risky  w apply  q leave";

export const entriesShown = (review: Review, { risky }: Cursor): readonly Entry[] =>
  risky ? review.entries().filter((entry) => entry.risks.size > 0) : review.entries();

const plural = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`;

/** How the rows are shared: title, files, a rule, changes, keys. */
export const layout = ({ rows }: Size): { files: number; changes: number } => {
  const files = Math.max(1, Math.min(12, Math.floor((rows - 3) / 3)));
  return { files, changes: Math.max(1, rows - 3 - files) };
};

export const screenOf = (vm: string, review: Review, cursor: Cursor, size: Size): string[] => {
  const { files, changes } = layout(size);
  const shownEntries = entriesShown(review, cursor);
  const entry = shownEntries[cursor.index];
  const first = Math.max(0, Math.min(cursor.index - Math.floor(files / 2), shownEntries.length - files));
  const rows = Array.from({ length: files }, (_, row) => {
    const at = first + row;
    const found = shownEntries[at];
    return found ? fileRow(found, at === cursor.index, size.cols) : "";
  });
  const body = entry ? bodyOf(entry) : [];
  const bodyRows = Array.from({ length: changes }, (_, row) => {
    const line = body[cursor.scroll + row];
    return line ? changeRow(line, line.part === cursor.part, size.cols) : "";
  });
  const rule = entry ? nameOf(entry.path) : "";
  return [
    titleRow(vm, review, size.cols),
    ...rows,
    paint(`── ${rule} ${"─".repeat(size.cols)}`.slice(0, size.cols), "dim", 1),
    ...bodyRows,
    cursor.message === undefined
      ? paint(KEYS.slice(0, size.cols), "dim", 1)
      : paint(cursor.message.slice(0, size.cols), "bold", 1),
  ];
};

const titleRow = (vm: string, review: Review, cols: number): string => {
  const all = review.entries();
  const risky = all.filter(({ risks }) => risks.size > 0).length;
  const taken = all.filter((entry) => accepted(entry).length > 0).length;
  const loading = review.isComplete() ? "" : ", still reading";
  // The path last: it may be longer than the terminal is wide.
  const text = ` ${plural(all.length, "file")}, ${risky} with a risk, ${taken} accepted${loading}   ${vm} → ${visible(review.root)}`;
  return paint(text.slice(0, cols), "bold", 1);
};

/** `+` accepted, `-` rejected, `~` in part, `!` in conflict, `x` never. */
export const markOf = (entry: Entry): string => {
  const { change, parts, verdicts, conflict } = entry;
  if (conflict) return "!";
  if (!change) return ".";
  if (parts.length === 0) return "x";
  if (verdicts.every((verdict) => verdict === true)) return "+";
  if (verdicts.every((verdict) => verdict === false)) return "-";
  return verdicts.some((verdict) => verdict !== undefined) ? "~" : " ";
};

const fileRow = (entry: Entry, current: boolean, cols: number): string => {
  const risk = risksIn(entry).join(",");
  const counts = countText(entry).padEnd(12);
  const head = `${current ? ">" : " "} [${markOf(entry)}] ${letterOf(entry)} ${counts} `;
  const name = nameOf(entry.path);
  const text = `${head}${risk ? `!${risk} ` : ""}${name}`.slice(0, cols);
  const style: Style | undefined = risk ? "yellow" : current ? "bold" : undefined;
  return style ? paint(text, style, 1) : text;
};

const changeRow = ({ text }: Line, current: boolean, cols: number): string => {
  // Cut before it is made visible: a line may have megabytes.
  const line = `${current ? "▌" : " "}${visible(shown(text.slice(0, 4 * cols)))}`.slice(0, cols);
  const style: Style | undefined = { "+": "green", "-": "red", "@": "bold" }[text[0] ?? ""] as Style | undefined;
  return style ? paint(line, style, 1) : line;
};

const verdictText = (verdict: boolean | undefined): string =>
  verdict === undefined ? "" : verdict ? " [accepted]" : " [rejected]";

const cache = new WeakMap<Entry, { key: string; lines: Line[] }>();

/** All that is said of a file: what to look at, then its parts. */
export const bodyOf = (entry: Entry): Line[] => {
  const key = JSON.stringify([entry.verdicts, entry.conflict?.why, [...entry.risks]]);
  const known = cache.get(entry);
  if (known?.key === key) return known.lines;
  const lines = [...describe(entry), ...changesOf(entry)];
  const cut = lines.length > MOST_LINES;
  const result = cut ? lines.slice(0, MOST_LINES) : lines;
  if (cut) result.push({ text: `@ ${lines.length - MOST_LINES} more lines: banger vm workspace export` });
  cache.set(entry, { key, lines: result });
  return result;
};

const utf8 = (text: string): string => Buffer.from(text, "utf8").toString("latin1");

const describe = (entry: Entry): Line[] => [
  ...(entry.conflict ? conflictLines(entry.conflict).map((text) => ({ text: `! ${utf8(text)}` })) : []),
  ...risksIn(entry).map((risk) => ({ text: `! ${risk}: ${riskText[risk]}` })),
];

const changesOf = (entry: Entry): Line[] => {
  const { change, parts, verdicts } = entry;
  if (!change) return [{ text: "  being read from the VM" }];
  if (parts.length === 0) return [{ text: "  not applied by banger" }, ...hunkLines(entry, undefined)];
  return parts.flatMap((part, index) => [
    { text: `@ ${titleOf(entry, part)}${verdictText(verdicts[index])}`, part: index },
    ...(part.kind === "hunk"
      ? linesWith(part.hunk.lines, index)
      : part.kind === "whole"
        ? hunkLines(entry, index)
        : []),
  ]);
};

const linesWith = (lines: readonly string[], part: number | undefined): Line[] =>
  lines.map((line) => ({
    text: line.endsWith("\n") ? line.slice(0, -1) : `${line}  (no newline at the end)`,
    ...(part === undefined ? {} : { part }),
  }));

const hunkLines = ({ change }: Entry, part: number | undefined): Line[] => [
  ...(change?.replaces
    ? linesWith(
        change.replaces.hunks.flatMap(({ lines }) => lines),
        part,
      )
    : []),
  ...linesWith(change?.hunks.flatMap(({ lines }) => lines) ?? [], part),
];

const modeText = (mode: string | undefined): string =>
  mode === "120000" ? "link" : mode === "100755" ? "executable file" : "file";

const titleOf = (entry: Entry, part: Part): string => {
  const { oldMode, newMode, change } = entry;
  if (part.kind === "mode") return `${modeText(oldMode)} becomes ${modeText(newMode)}`;
  if (part.kind === "hunk") return `line ${part.hunk.newStart}  ${part.hunk.heading}`;
  const size = change?.binary ? `, ${change.binary.size} bytes` : "";
  return {
    new: `new ${modeText(newMode)}${size}`,
    gone: `${modeText(oldMode)} is deleted`,
    retyped: `${modeText(oldMode)} becomes ${modeText(newMode)}${size}`,
    changed: `${modeText(newMode)} is another${size}`,
    mode: `${modeText(newMode)}`,
  }[kindOf(entry)];
};
