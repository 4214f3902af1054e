/**
 * Runs every test of the project and closes with one line, `N passed, N failed, N skipped`.
 *
 *   node test/run.ts [--filter TEXT] [--coverage]
 *
 * In order: the agent's own tests (cargo), then TypeScript tests in two groups: quick ones (src, test/unit, test/law,
 * test/fuzz), then those that start real VMs (test/e2e). Two files at a time: an emulated VM keeps one core busy, and waits a lot.
 * `--filter` keeps the test files whose path holds TEXT, and the agent's tests where TEXT begins with "agent".
 */
import { spawn } from "node:child_process";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { run } from "node:test";
import { parseArgs } from "node:util";
import { type CoverageFile, coverageOf, coverageTable, withUntested } from "./coverage.ts";
import { add, type Counts, report, total } from "./support/reporter.ts";

const root = join(import.meta.dirname, "..");
const print = (text: string): void => void process.stdout.write(text);
const none: Counts = { passed: 0, failed: 0, skipped: 0 };

/** A test file may take this long, in ms: what hangs must leave the others time. The whole of `.ci/run` has 40 minutes. */
const timeLimits = { quick: 3 * 60_000, e2e: 12 * 60_000 };

const testFiles = async (folder: string): Promise<string[]> => {
  const entries = await readdir(join(root, folder), { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".test.ts"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
};

/** Runs `cargo test` and adds up its "test result:" lines. A build that fails counts as one failed test. */
const cargoTests = async (name: string): Promise<Counts> => {
  const child = spawn("cargo", ["test", "--quiet", "--locked", ...(name ? [name] : [])], {
    cwd: join(root, "agent"),
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  const status = await new Promise<number | null>((resolve, reject) => child.on("error", reject).on("close", resolve));
  let counts = none;
  for (const [, passed, failed, ignored] of output.matchAll(
    /^test result: .*? (\d+) passed; (\d+) failed; (\d+) ignored/gm,
  ))
    counts = add(counts, { passed: Number(passed), failed: Number(failed), skipped: Number(ignored) });
  if (status !== 0 && counts.failed === 0) counts = add(counts, { ...none, failed: 1 });
  if (status !== 0) print(output);
  print(`${status === 0 ? "ok" : "not ok"} agent (cargo test)  ${total(counts)}\n`);
  return counts;
};

const nodeTests = async (
  files: string[],
  options: { timeout: number; coverage: boolean },
): Promise<{ counts: Counts; covered: CoverageFile[] }> => {
  if (files.length === 0) return { counts: none, covered: [] };
  const stream = run({
    files: files.map((file) => join(root, file)),
    cwd: root,
    // One run with coverage has to be one process after the other, since only then it adds up what its files covered.
    concurrency: options.coverage ? 1 : 2,
    timeout: options.timeout,
    coverage: options.coverage,
    coverageIncludeGlobs: ["src/**/*.ts"],
    coverageExcludeGlobs: ["**/*.test.ts"],
  });
  let covered: CoverageFile[] = [];
  stream.on("test:coverage", ({ summary }) => {
    covered = coverageOf(summary, root);
  });
  return { counts: await report(stream, root, print), covered };
};

const { values } = parseArgs({
  options: { filter: { type: "string" }, coverage: { type: "boolean", default: false } },
});
const { filter, coverage } = values;
const kept = (files: string[]): string[] => files.filter((file) => filter === undefined || file.includes(filter));

let counts = none;
const agentFilter = /^agent(?:\/|$)/.exec(filter ?? "agent");
if (agentFilter !== null) counts = add(counts, await cargoTests((filter ?? "agent").slice(agentFilter[0].length)));

const quick = kept((await Promise.all(["src", "test/unit", "test/law", "test/fuzz"].map(testFiles))).flat());
const slow = kept(await testFiles("test/e2e"));
if (coverage) {
  // One run, since only one run can add up what its files covered.
  const all = await nodeTests([...quick, ...slow], { timeout: timeLimits.e2e, coverage });
  counts = add(counts, all.counts);
  const covered = await withUntested(all.covered, root);
  await mkdir(join(root, "coverage"), { recursive: true });
  await writeFile(join(root, "coverage/summary.json"), `${JSON.stringify(covered)}\n`);
  print(`\n${coverageTable(covered)}\n`);
} else {
  counts = add(counts, (await nodeTests(quick, { timeout: timeLimits.quick, coverage })).counts);
  counts = add(counts, (await nodeTests(slow, { timeout: timeLimits.e2e, coverage })).counts);
}

const ran = counts.passed + counts.failed + counts.skipped;
if (ran === 0) print(filter === undefined ? "no test was found\n" : `no test was found for FILTER=${filter}\n`);
print(`${total(counts)}\n`);
// Set, not exit(): what is still on its way to a pipe must arrive. A test left something open where this does not end.
process.exitCode = counts.failed > 0 || ran === 0 ? 1 : 0;
