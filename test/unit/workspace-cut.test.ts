/** A repository that is being read when the command is ended, in every way there is. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { bangerIn, type Environment, finish, startBanger } from "../support/host.ts";
import { localGuest } from "../support/local-guest.ts";
import { gitIn, traceOf } from "../support/repositories.ts";
import type { StandIn } from "../support/stand-in-daemon.ts";
import { processEnds } from "../support/wait.ts";

const run = promisify(execFile);
const main = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");
let folder: string;
let repo: string;
let env: Environment;
let daemon: StandIn;
const at = (name: string) => join(folder, name);

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-cut-"));
  env = {
    HOME: at("home"),
    XDG_CONFIG_HOME: at("config"),
    XDG_STATE_HOME: at("state"),
    XDG_CACHE_HOME: at("cache"),
    XDG_RUNTIME_DIR: at("run"),
  };
  for (const path of Object.values(env)) await mkdir(path, { mode: 0o700 });
  // A prepare asks the guest what it has while it reads.
  daemon = await localGuest(env.XDG_RUNTIME_DIR, () => ({ id: "1", name: "box" }));
  repo = at("repo");
  await mkdir(repo);
  const git = gitIn(repo);
  await git("init", "--quiet");
  await writeFile(join(repo, "a"), "a\n");
  await git("add", "--all");
  await writeFile(join(repo, "a"), "edited\n");
  // A git that waits, once it has come to the working tree, and tells who it is.
  await mkdir(at("bin"));
  await run("mkfifo", [at("came"), at("go")]);
  const real = (await run("which", ["git"])).stdout.trim();
  const script = `#!/bin/sh
case " $* " in *" diff-files "*) echo $$ >'${at("came")}'; read _ <'${at("go")}';; esac
exec '${real}' "$@"
`;
  await writeFile(at("bin/git"), script, { mode: 0o755 });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const staging = () => readdir(join(env.XDG_CACHE_HOME, "banger", "workspaces"));

for (const words of [
  ["run", "REPO", "--", "true"],
  ["workspace", "prepare", "box", "REPO"],
])
  test(`\`vm ${words[0]}\` that is ended while it reads leaves no process, no file, and the repository as it was`, async () => {
    const args = [main, "vm", ...words.map((word) => (word === "REPO" ? repo : word))];
    const trace = await traceOf(repo);
    for (const [signal, status] of [
      ["SIGINT", 130],
      ["SIGTERM", 130],
      ["SIGKILL", null],
    ] as const) {
      const child = startBanger(env, args, {
        binary: process.execPath,
        env: { PATH: `${at("bin")}:${process.env.PATH}` },
      });
      const pid = Number(await readFile(at("came"), "utf8"));
      child.kill(signal);
      assert.equal((await finish(child)).status, status, signal);
      await processEnds(pid);
      if (signal !== "SIGKILL") assert.deepEqual(await staging(), [], signal);
      assert.deepEqual(await traceOf(repo), trace, signal);
    }
    assert.equal((await staging()).length, 1);
    // What a killed one left goes with the next.
    const next = await bangerIn(env, [main, "vm", "run", repo, "--dry-run"], { binary: process.execPath });
    assert.equal(next.stdout, "a\n", next.stderr);
    assert.deepEqual(await staging(), []);
    assert.deepEqual(await traceOf(repo), trace);
  });
