/**
 * Applies the work of a guest to a repository, or undoes what a killed one has left, and kills itself before one of its changes of the file system:
 * apply-and-die.ts ROOT GUEST STEP [recover]. Ends with 0 when all was done before that step came.
 */
import { spawn } from "node:child_process";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import type { FileChange } from "../../src/workspace/review/patch.ts";
import type { Operation } from "../../src/workspace/review/plan-change.ts";

const [, , root = "", guest = "", step = "", what = "apply"] = process.argv;
let left = Number(step);
for (const name of ["link", "rename", "unlink", "mkdir", "rmdir", "rm", "writeFile", "symlink"] as const) {
  const real = fs[name] as (...args: unknown[]) => Promise<unknown>;
  Object.assign(fs, {
    [name]: async (...args: unknown[]) => {
      if (left-- <= 0) process.kill(process.pid, "SIGKILL");
      return await real(...args);
    },
  });
}
syncBuiltinESMExports();

const { exportProgram } = await import("../../src/workspace/export.ts");
const { readPatch } = await import("../../src/workspace/review/patch.ts");
const { partsOf, planChange } = await import("../../src/workspace/review/plan-change.ts");
const { applyAll, recover } = await import("../../src/workspace/review/transaction.ts");

const tree = { root, gitFolder: join(root, ".git") };
if (what === "recover") {
  await recover(tree);
  process.exit(0);
}
const [program, ...args] = exportProgram(guest, undefined, "diff");
const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
const changes: FileChange[] = [];
for await (const change of readPatch(child.stdout)) changes.push(change);
const goes = new Set(changes.filter(({ newMode }) => newMode === undefined).map(({ path }) => path));
const operations: Operation[] = [];
for (const change of changes) {
  const planned = await planChange(root, change, partsOf(change), goes);
  if (planned !== "there" && "operation" in planned) operations.push(planned.operation);
}
await applyAll(tree, operations, new AbortController().signal);
process.exit(0);
