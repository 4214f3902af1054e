/** A review as text: for `--stat`, for `--json`, and of what could not be applied. */
import { shown } from "../../../workspace/git.ts";
import type { Conflict } from "../../../workspace/review/plan-change.ts";
import { countsOf, type Entry, kindOf, type Review, risksIn } from "../../../workspace/review/review.ts";
import { riskText } from "../../../workspace/review/risk.ts";
import { visible } from "../../render/plain.ts";
import { table } from "../../render/table.ts";

const letters = { new: "A", gone: "D", changed: "M", mode: "M", retyped: "T" } as const;

/** A name of one character a byte for a terminal. */
export const nameOf = (path: string): string => visible(shown(path));

export const letterOf = (entry: Entry): string => letters[kindOf(entry)];

export const countText = (entry: Entry): string => {
  const { change } = entry;
  if (!change) return "";
  if (change.binary) return `${change.binary.size} bytes`;
  const { added, removed } = countsOf(entry);
  return [added > 0 ? `+${added}` : "", removed > 0 ? `-${removed}` : ""].filter(Boolean).join(" ");
};

export const statText = (review: Review): string => {
  const entries = review.entries();
  if (entries.length === 0) return emptyText(review);
  const rows = entries.map((entry) => [
    letterOf(entry),
    countText(entry),
    risksIn(entry).join(","),
    nameOf(entry.path),
  ]);
  const named = new Set(entries.flatMap(risksIn));
  const legend = [...named].map((risk) => `  ${risk}: ${riskText[risk]}`);
  return [
    table(["", "LINES", "RISK", "FILE"], rows),
    ...(legend.length > 0 ? ["", "worth a second look:", ...legend] : []),
    ...(review.onHost() > 0 ? ["", onHostText(review)] : []),
  ].join("\n");
};

const onHostText = (review: Review): string => {
  const count = review.onHost();
  return `${count === 1 ? "1 other file is" : `${count} other files are`} on the host already as the VM has made ${count === 1 ? "it" : "them"}`;
};

export const emptyText = (review: Review): string =>
  review.onHost() > 0 ? `nothing to review: ${onHostText(review)}` : "the VM has changed nothing";

/** Lines of a hunk and its place, for programs. */
export const reviewData = (review: Review) => ({
  repository: review.root,
  onHost: review.onHost(),
  files: review.entries().map((entry) => {
    const { path, oldMode, newMode, change, parts } = entry;
    const text = shown(path);
    return {
      path: text,
      // A name that is no text.
      ...(Buffer.from(text, "utf8").toString("latin1") === path
        ? {}
        : { pathBytes: Buffer.from(path, "latin1").toString("base64") }),
      kind: kindOf(entry),
      oldMode,
      newMode,
      ...countsOf(entry),
      risks: risksIn(entry),
      applicable: parts.length > 0,
      ...(change?.binary ? { binary: change.binary.size } : {}),
      hunks: change?.hunks.map(({ oldStart, newStart, heading, lines }) => ({
        oldStart,
        newStart,
        heading: shown(heading),
        lines: lines.map(shown),
      })),
    };
  }),
});

const MOST_LINES = 20;

/** Both sides of a conflict. */
export const conflictLines = ({ path, why, clashes }: Conflict): string[] => [
  `${nameOf(path)}: ${why}`,
  ...clashes.flatMap(({ line, base, host, vm }) => [
    `  line ${line}, when it was brought in:`,
    ...sideLines(base),
    "  on the host now:",
    ...sideLines(host),
    "  in the VM:",
    ...sideLines(vm),
  ]),
];

const sideLines = (lines: readonly string[]): string[] => {
  const all = lines.slice(0, MOST_LINES).map((line) => `    | ${visible(shown(line.replace(/\n$/, "")))}`);
  if (lines.length > MOST_LINES) all.push(`    | ... ${lines.length - MOST_LINES} more lines`);
  return all.length > 0 ? all : ["    (nothing)"];
};
