/**
 * Line coverage of `src/`: a table per folder and in total, the total as a number, and a page per file.
 *
 *   node test/coverage.ts coverage-total | coverage-html      reads coverage/summary.json, which `make coverage` wrote
 */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";

/** `path` from the project's root; `missed` holds line numbers from 1. */
export type CoverageFile = { path: string; lines: number; covered: number; missed: number[] };

/** The part of node:test's coverage summary that is used here. */
type Summary = {
  files: { path: string; totalLineCount: number; coveredLineCount: number; lines: { line: number; count: number }[] }[];
};

export const coverageOf = (summary: Summary, root: string): CoverageFile[] =>
  summary.files.map((file) => ({
    path: relative(root, file.path),
    lines: file.totalLineCount,
    covered: file.coveredLineCount,
    missed: file.lines.filter((line) => line.count === 0).map((line) => line.line),
  }));

/** Adds the files that no test so much as loaded: without them, deleting a test would raise the total. */
export const withUntested = async (files: CoverageFile[], root: string): Promise<CoverageFile[]> => {
  const known = new Set(files.map((file) => file.path));
  const untested: CoverageFile[] = [];
  for (const entry of await readdir(join(root, "src"), { recursive: true, withFileTypes: true })) {
    const path = relative(root, join(entry.parentPath, entry.name));
    if (!entry.isFile() || !/(?<!\.test)\.ts$/.test(path) || known.has(path)) continue;
    const lines = (await readFile(join(root, path), "utf8")).split("\n").length - 1;
    untested.push({ path, lines, covered: 0, missed: Array.from({ length: lines }, (_, index) => index + 1) });
  }
  return [...files, ...untested];
};

const percent = (files: CoverageFile[]): string => {
  const lines = files.reduce((sum, file) => sum + file.lines, 0);
  const covered = files.reduce((sum, file) => sum + file.covered, 0);
  return lines === 0 ? "0.0" : ((100 * covered) / lines).toFixed(1);
};

export const coverageTable = (files: CoverageFile[]): string => {
  const folders = Map.groupBy(files, (file) => dirname(file.path));
  const rows = [...folders].sort(([left], [right]) => (left < right ? -1 : 1));
  const row = (name: string, group: CoverageFile[]): string => {
    const lines = group.reduce((sum, file) => sum + file.lines, 0);
    return `${name.padEnd(32)} ${String(group.length).padStart(6)} ${String(lines).padStart(7)} ${percent(group).padStart(7)} %`;
  };
  const head = `${"folder".padEnd(32)} ${"files".padStart(6)} ${"lines".padStart(7)} ${"covered".padStart(9)}`;
  return [head, ...rows.map(([name, group]) => row(name, group)), row("total", files)].join("\n");
};

const escapeHtml = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const page = (file: CoverageFile, source: string): string => {
  const missed = new Set(file.missed);
  const lines = source
    .split("\n")
    .map(
      (line, index) => `<li${missed.has(index + 1) ? ' style="background:#fdd"' : ""}>${escapeHtml(line) || " "}</li>`,
    );
  return `<!doctype html><meta charset="utf-8"><title>${file.path}</title>
<h1>${file.path} ${percent([file])} %</h1><ol style="font-family:monospace;white-space:pre">${lines.join("")}</ol>\n`;
};

const writePages = async (files: CoverageFile[], root: string): Promise<string> => {
  const folder = join(root, "coverage/html");
  for (const file of files) {
    const target = join(folder, `${file.path}.html`);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, page(file, await readFile(join(root, file.path), "utf8")));
  }
  const items = files.map((file) => `<tr><td><a href="${file.path}.html">${file.path}</a><td>${percent([file])} %`);
  const index = join(folder, "index.html");
  await mkdir(folder, { recursive: true });
  await writeFile(
    index,
    `<!doctype html><meta charset="utf-8"><title>coverage</title><h1>${percent(files)} %</h1><table>${items.join("")}</table>\n`,
  );
  return index;
};

if (import.meta.main) {
  const root = join(import.meta.dirname, "..");
  const files: CoverageFile[] = JSON.parse(await readFile(join(root, "coverage/summary.json"), "utf8"));
  const answer = process.argv[2] === "coverage-html" ? await writePages(files, root) : percent(files);
  process.stdout.write(`${answer}\n`);
}
