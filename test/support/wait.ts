/** Waiting for what a program says or does, by event, with a limit that fails the test. */
import type { ChildProcess } from "node:child_process";
import { watch } from "node:fs";
import { processStartTime } from "../../src/host/proc.ts";

const failAfter = (ms: number, what: () => string): { promise: Promise<never>; clear(): void } => {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what()}`)), ms);
  return { promise, clear: () => clearTimeout(timer) };
};

/** Resolves once the program's output (stdout or stderr) holds `text`; rejects when it ends before. */
export const outputHolds = async (child: ChildProcess, text: string | RegExp, ms = 60_000): Promise<string> => {
  let seen = "";
  const found = Promise.withResolvers<string>();
  const look = (chunk: Buffer) => {
    seen += chunk.toString("utf8");
    if (typeof text === "string" ? seen.includes(text) : text.test(seen)) found.resolve(seen);
  };
  child.stdout?.on("data", look);
  child.stderr?.on("data", look);
  child.once("close", () => found.reject(new Error(`it ended without saying ${text}: ${seen}`)));
  const limit = failAfter(ms, () => `${text}; it said: ${seen}`);
  try {
    return await Promise.race([found.promise, limit.promise]);
  } finally {
    limit.clear();
    child.stdout?.off("data", look);
    child.stderr?.off("data", look);
  }
};

/** Resolves once `holds` is true; asked anew at each change in `folder`. */
export const folderHolds = async (folder: string, holds: () => Promise<boolean>, ms = 60_000): Promise<void> => {
  const found = Promise.withResolvers<void>();
  const look = () => {
    holds().then((yes) => yes && found.resolve(), found.reject);
  };
  const watcher = watch(folder, { recursive: true }, look);
  const limit = failAfter(ms, () => `a change in ${folder}`);
  try {
    look();
    await Promise.race([found.promise, limit.promise]);
  } finally {
    limit.clear();
    watcher.close();
  }
};

/** Resolves when a process that is not our child has ended. The kernel tells only parents, so this looks again and again. */
export const processEnds = async (pid: number, ms = 30_000): Promise<void> => {
  const limit = Date.now() + ms;
  while ((await processStartTime(pid)) !== undefined) {
    if (Date.now() > limit) throw new Error(`process ${pid} did not end within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

/** How a child of this process ends, or has ended. */
export const childEnds = async (
  child: ChildProcess,
  ms = 120_000,
): Promise<{ status: number | null; signal: NodeJS.Signals | null }> => {
  const limit = failAfter(ms, () => `the end of ${child.spawnargs.join(" ")}`);
  try {
    if (child.exitCode === null && child.signalCode === null)
      await Promise.race([new Promise((resolve) => child.once("exit", resolve)), limit.promise]);
    return { status: child.exitCode, signal: child.signalCode };
  } finally {
    limit.clear();
  }
};
