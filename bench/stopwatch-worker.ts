/** The small process of stopwatch.ts: runs each command that it is sent to its end. */
import { spawnSync } from "node:child_process";
import { performance } from "node:perf_hooks";
import type { Lap } from "./stopwatch.ts";

process.on("message", ([program = "", ...args]: string[]) => {
  const began = performance.now();
  const { status, stderr } = spawnSync(program, args, { encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] });
  const lap: Lap = { ms: performance.now() - began, status, stderr };
  process.send?.(lap);
});
