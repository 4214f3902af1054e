/** The check that chaos runs after each step finds what it is there to find. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { DatabaseSync } from "node:sqlite";
import { findings } from "../chaos/owners.ts";
import { clockFile, promiseOf, type World } from "../chaos/world.ts";
import { type Host, testHost } from "../support/host.ts";
import { recordVms } from "../support/recorded-vms.ts";
import { childEnds } from "../support/wait.ts";

let host: Host;
let world: World;

before(async () => {
  host = await testHost();
  await recordVms(host, ["box"]);
  await writeFile(clockFile(host), "0");
  const nothing = { promises: new Map(), snapshots: new Map(), forks: new Map(), running: new Set<never>() };
  world = { host, names: ["box"], small: false, say: () => undefined, ...nothing };
  assert.equal((await host.banger("daemon", "start")).status, 0);
});
after(() => host[Symbol.asyncDispose]());

const finds = async (wanted: RegExp): Promise<void> => {
  const found = await findings(world);
  assert.ok(
    found.some((line) => wanted.test(line)),
    `${wanted} is not among: ${found.join("; ")}`,
  );
};

test("files that nobody owns", async () => {
  assert.deepEqual(await findings(world), []);
  const state = join(host.env.XDG_STATE_HOME, "banger");
  const runtime = join(host.env.XDG_RUNTIME_DIR, "banger");
  for (const [folder, told] of [
    [join(runtime, "left"), /^runtime\/left$/],
    [join(runtime, "vms", "0".repeat(32)), /^sockets of 0+, which does not run/],
    [join(state, "staging", "left"), /^staging\/left$/],
    [join(state, "vms", "0".repeat(32)), /^folder of 0+, which is no VM/],
    [join(state, "vms", `${"a".repeat(24)}00000000`, "waking"), /\/waking$/],
    [join(state, "snapshots", "half"), /^snapshots\/half is not whole/],
  ] as const) {
    await mkdir(folder, { recursive: true });
    await finds(told);
    await rm(folder, { recursive: true });
  }
  await rm(join(state, "vms", `${"a".repeat(24)}00000000`), { recursive: true });
  await rm(join(state, "snapshots"), { recursive: true });
  assert.deepEqual(await findings(world), []);
});

test("processes that nobody owns, and daemons that are not there", async () => {
  const stray = spawn("sleep", ["600"], { env: { ...process.env, ...host.env }, stdio: "ignore" });
  await finds(new RegExp(`^process ${stray.pid}: sleep`));
  stray.kill();
  await childEnds(stray);
  assert.deepEqual(await findings(world), []);
});

test("promises that are not kept, and records that are not true", async () => {
  promiseOf(world.promises, "gone").exists = true;
  await finds(/^gone is lost/);
  world.promises.clear();
  promiseOf(world.snapshots, "gone").exists = true;
  await finds(/^gone is lost/);
  world.snapshots.clear();
  const database = new DatabaseSync(join(host.env.XDG_STATE_HOME, "banger", "banger.db"), { timeout: 5000 });
  database.exec("UPDATE vms SET state = 'running', pid = 1, pid_start = '1'");
  await finds(/^box is stopped, its record says running/);
  await finds(/^box is recorded with process 1, which is not there/);
  database.exec("UPDATE vms SET state = 'stopped', pid = NULL, pid_start = NULL");
  database.close();
  assert.deepEqual(await findings(world), []);
});
