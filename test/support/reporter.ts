/** Prints a run of `node:test`: each failure in full, one line per test file. Returns the counts of the whole run. */
import { relative } from "node:path";
import type { TestsStream } from "node:test";
import { inspect, stripVTControlCharacters, styleText } from "node:util";

/** Numbers of tests, suites not counted. */
export type Counts = { passed: number; failed: number; skipped: number };

export const add = (left: Counts, right: Counts): Counts => ({
  passed: left.passed + right.passed,
  failed: left.failed + right.failed,
  skipped: left.skipped + right.skipped,
});

/** The closing line that `.ci/run` and everything that reads our test output looks for. */
export const total = (counts: Counts): string =>
  `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;

const colour = (format: "green" | "red" | "yellow" | "dim", text: string): string =>
  process.stdout.isTTY && !process.env.NO_COLOR ? styleText(format, text, { validateStream: false }) : text;

const indent = (text: string): string => text.replaceAll(/^/gm, "    ");

/**
 * Node wraps what a test threw: the cause is what the reader wants. An assertion's text holds its difference already; any
 * other error is shown with its fields and its own cause. Frames inside Node say nothing about the test.
 */
const describe = (error: Error): string => {
  const thrown = error.cause ?? error;
  const text =
    thrown instanceof Error && thrown.name === "AssertionError"
      ? (thrown.stack ?? thrown.message)
      : inspect(thrown, { depth: 8 });
  return stripVTControlCharacters(
    typeof thrown === "string" ? thrown : text.replaceAll(/\n +at .*node:internal.*/g, ""),
  );
};

type FileResult = Counts & { seconds: number };

/**
 * @param root folder that file names are printed relative to
 * @param print takes one piece of text, line ends included
 */
export const report = async (stream: TestsStream, root: string, print: (text: string) => void): Promise<Counts> => {
  const files = new Map<string, FileResult>();
  const resultOf = (file: string | undefined): FileResult => {
    const key = file ?? "(no file)";
    const found = files.get(key) ?? { passed: 0, failed: 0, skipped: 0, seconds: 0 };
    files.set(key, found);
    return found;
  };
  const path: string[] = [];

  for await (const event of stream) {
    if (event.type === "test:start") {
      path.length = event.data.nesting;
      path.push(event.data.name);
    } else if (event.type === "test:pass") {
      if (event.data.details.type === "suite") continue;
      const result = resultOf(event.data.file);
      // A test marked `todo` has proved nothing, whatever its result.
      if (event.data.skip !== undefined || event.data.todo !== undefined) result.skipped += 1;
      else result.passed += 1;
      if (event.data.skip !== undefined) {
        const reason = typeof event.data.skip === "string" && event.data.skip !== "" ? `: ${event.data.skip}` : "";
        print(`  ${colour("yellow", "skipped")} ${event.data.name}${reason}\n`);
      }
    } else if (event.type === "test:fail") {
      const { details, file, line, nesting, name } = event.data;
      // A suite fails because a test in it did, which has been printed; only its own failure (a hook, say) is news.
      if (details.error.failureType === "subtestsFailed") {
        if (details.type !== "suite") resultOf(file).failed += 1;
        continue;
      }
      resultOf(file).failed += 1;
      const place = file === undefined ? "" : `${relative(root, file)}${line === undefined ? "" : `:${line}`}`;
      print(`\n${colour("red", "FAILED")} ${[...path.slice(0, nesting), name].join(" > ")}  ${colour("dim", place)}\n`);
      print(`${indent(describe(details.error))}\n\n`);
    } else if (event.type === "test:diagnostic" && event.data.level !== "info") {
      print(`  ${event.data.level}: ${event.data.message}\n`);
    } else if (event.type === "test:stdout" || event.type === "test:stderr") {
      print(event.data.message);
    } else if (event.type === "test:summary" && event.data.file !== undefined) {
      const result = resultOf(event.data.file);
      const mark = result.failed > 0 ? colour("red", "not ok") : colour("green", "ok");
      const seconds = (event.data.duration_ms / 1000).toFixed(1);
      print(`${mark} ${relative(root, event.data.file)}  ${total(result)}  ${colour("dim", `${seconds} s`)}\n`);
    }
  }
  return [...files.values()].reduce(add, { passed: 0, failed: 0, skipped: 0 });
};
