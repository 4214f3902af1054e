import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { followFile } from "../cli/follow-file.ts";
import { BangerError } from "../contract/errors.ts";
import { type Log, type LogLevel, logScope, openLog } from "./log.ts";
import { operations } from "./operations.ts";

const inFolder = async (use: (path: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-log-"));
  try {
    await use(join(folder, "daemon.log"));
  } finally {
    await rm(folder, { recursive: true, maxRetries: 5 });
  }
};
type Line = {
  level: string;
  message: string;
  operation?: string;
  error?: { code: string; cause?: { message: string } };
};
const linesOf = async (path: string): Promise<Line[]> =>
  (await readFile(path, "utf8"))
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);

test("only what is loud enough is written, and the level may change", () =>
  inFolder(async (path) => {
    let level: LogLevel = "warn";
    const log = await openLog(path, () => level);
    log.info("quiet");
    log.warn("loud");
    level = "debug";
    log.debug("now");
    await log.close();
    assert.deepEqual(
      (await linesOf(path)).map(({ message }) => message),
      ["loud", "now"],
    );
  }));

test("errors are written with their code and cause", () =>
  inFolder(async (path) => {
    const log = await openLog(path, () => "info");
    log.error("failed", { error: new BangerError("DISK_FULL", "no room", { cause: new Error("ENOSPC") }) });
    await log.close();
    const [line] = await linesOf(path);
    assert.deepEqual([line?.error?.code, line?.error?.cause?.message], ["DISK_FULL", "ENOSPC"]);
  }));

test("a full log is put aside once, nothing of it is lost, and who follows it reads on", { timeout: 30_000 }, () =>
  inFolder(async (path) => {
    const log = await openLog(path, () => "info", 4096);
    log.info("line 0");
    const gone = new AbortController();
    const seen: string[] = [];
    const following = (async () => {
      let rest = "";
      for await (const chunk of followFile(path, gone.signal)) {
        const lines = (rest + String(chunk)).split("\n");
        rest = lines.pop() ?? "";
        seen.push(...lines.map((line) => (JSON.parse(line) as Line).message));
        if (seen.at(-1) === "line 79") gone.abort();
      }
    })().catch((error: unknown) => error);
    for (let line = 1; line < 80; line++) {
      log.info(`line ${line}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(await following, undefined);
    await log.close();
    assert.deepEqual(
      seen,
      Array.from({ length: 80 }, (_, line) => `line ${line}`),
    );
    // How many lines still reach the old file depends on how long its renaming takes.
    assert.ok((await stat(`${path}.1`)).size > 4096);
    const kept = [...(await linesOf(`${path}.1`)), ...(await linesOf(path))];
    assert.deepEqual(
      kept.map(({ message }) => message),
      seen,
    );
  }),
);

test("one id leads through an operation's log lines and its error", () =>
  inFolder(async (path) => {
    const log: Log = await openLog(path, () => "debug");
    const registry = operations(log);
    let started = "";
    const watch = { started: ({ id }: { id: string }) => (started = id), progress: () => undefined };
    const work = async () => {
      await new Promise((resolve) => setImmediate(resolve));
      log.debug("deep inside");
      throw new BangerError("DISK_FULL", "no room", { hint: "make some", details: { path: "x" } });
    };
    await assert.rejects(registry.run("try", watch, work), (error) => {
      assert.ok(error instanceof BangerError);
      assert.deepEqual(
        [error.code, error.hint, error.details],
        ["DISK_FULL", "make some", { operation: started, path: "x" }],
      );
      return true;
    });
    await log.close();
    const lines = await linesOf(path);
    assert.deepEqual(
      lines.map(({ message, operation }) => [message, operation]),
      [
        ["operation started", started],
        ["deep inside", started],
        ["operation failed", started],
      ],
    );
    assert.equal(logScope.getStore(), undefined);
  }));
