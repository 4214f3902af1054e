/** A review at a real terminal, of a guest that is a folder of this machine. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { appendFile, cp, lstat, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { bangerIn, type Done, type Environment } from "../support/host.ts";
import { localGuest } from "../support/local-guest.ts";
import type { StandIn } from "../support/stand-in-daemon.ts";
import { startInTerminal } from "../support/terminal.ts";

const run = promisify(execFile);
const main = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");
let folder: string;
let repo: string;
let guest: string;
let env: Environment;
let daemon: StandIn;

type Data = { files: { path: string; kind: string; hunks: { lines: string[] }[] }[] };

const gitAt = async (cwd: string, ...args: string[]): Promise<string> =>
  (
    await run("git", ["-c", "user.name=a", "-c", "user.email=b@c", ...args], {
      cwd,
      env: { ...process.env, ...env, GIT_CONFIG_NOSYSTEM: "1" },
    })
  ).stdout;
const git = (...args: string[]) => gitAt(repo, ...args);
const inGuest = async (script: string): Promise<string> =>
  (await run("sh", ["-c", script], { cwd: guest, env: { ...process.env, ...env } })).stdout;
const good = async (done: Promise<Done>): Promise<Done> => {
  const ended = await done;
  assert.equal(ended.status, 0, ended.stderr);
  return ended;
};
const words = ["vm", "workspace", "review", "box"];
const review = (...args: string[]) => bangerIn(env, [main, ...words, ...args], { binary: process.execPath });
const inTerminal = () =>
  startInTerminal({ env } as Parameters<typeof startInTerminal>[0], [main, ...words], { program: process.execPath });
const ESCAPE = "\x1b";

/** A repository and its copy in the guest, at one commit. */
const level = async (files: Record<string, string>): Promise<void> => {
  await rm(repo, { recursive: true, force: true });
  await rm(guest, { recursive: true, force: true });
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(repo, name, ".."), { recursive: true });
    await writeFile(join(repo, name), text);
  }
  await git("init", "--quiet", "--initial-branch=main");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  await git("update-ref", "refs/banger/base", "HEAD");
  await cp(repo, guest, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });
  await cp(join(guest, ".git/index"), join(guest, ".git/banger-base-index"), { preserveTimestamps: true });
};

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-review-cli-"));
  const at = (name: string) => join(folder, name);
  env = {
    HOME: at("home"),
    XDG_CONFIG_HOME: at("config"),
    XDG_STATE_HOME: at("state"),
    XDG_CACHE_HOME: at("cache"),
    XDG_RUNTIME_DIR: at("run"),
  };
  for (const path of Object.values(env)) await mkdir(path, { mode: 0o700 });
  repo = at("repo");
  guest = at("guest");
  daemon = await localGuest(env.XDG_RUNTIME_DIR, () => ({
    id: "1",
    name: "box",
    workspace: { path: guest, repository: repo },
  }));
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

test("a review names what deserves a second look, applies what is accepted and nothing else, and runs nothing of the host's", async () => {
  const long60 = Array.from({ length: 60 }, (_, line) => `line ${line}\n`).join("");
  await level({ long: long60, "sub/a": "a\n", b: "b\n", ".gitignore": "*.o\n" });
  // Whatever git of the host would run tells on itself.
  const marker = join(env.HOME, "was-run");
  const tell = `sh -c 'echo "$0" >>"${marker}"; cat' `;
  await writeFile(join(repo, ".git/hooks/post-index-change"), `#!/bin/sh\necho hook >>"${marker}"\n`, { mode: 0o755 });
  await writeFile(join(repo, ".git/info/attributes"), "* filter=tell diff=tell\n");
  for (const [key, value] of [
    ["filter.tell.clean", tell],
    ["filter.tell.smudge", tell],
    ["diff.tell.textconv", tell],
    ["diff.external", tell],
    ["core.fsmonitor", tell],
  ] as const)
    await git("config", key, value);
  await rm(marker, { force: true });

  await inGuest(`sed -i 's/line 5$/five/; s/line 50$/fifty/' long; echo more >> sub/a; rm b
    mkdir -p .github/workflows; echo 'on: push' > .github/workflows/ci.yml
    printf '#!/bin/sh\\n' > go; chmod +x go; ln -s /etc/passwd out; echo o > x.o; git add -f x.o
    printf 'evil \\033]0;title\\007 \\342\\200\\256 text\\n' > text
    touch "$(printf 'name\\033[2J')"`);
  const stat = await good(review("--stat"));
  assert.ok(!stat.stdout.includes(ESCAPE));
  for (const line of [
    /^A +\+1 +ci +\.github\/workflows\/ci\.yml$/m,
    /^A +\+1 +script,executable +go$/m,
    /^A +\+1 +link +out$/m,
    /^A +\+1 +ignored +x\.o$/m,
    /^A +\+1 +hidden-text +text$/m,
    /^A +odd-name +name\^\[\[2J$/m,
    /^M +\+2 -2 +long$/m,
    /^D +-\d+ +b$/m,
  ])
    assert.match(stat.stdout, line);
  const { files } = (await JSON.parse((await good(review("--json"))).stdout)) as Data;
  assert.equal(files.find(({ path }) => path === "long")?.hunks.length, 2);

  // By hand: the second hunk of one file, all of another, no more.
  {
    await using terminal = await inTerminal();
    await terminal.shows("9 files, 6 with a risk, 0 accepted   box");
    terminal.type("f");
    await terminal.shows(/\[ \] A \+1 +!ci \.github/);
    terminal.type("f");
    terminal.type("\x1b[B\x1b[B\x1b[B");
    await terminal.shows("> [ ] M +2 -2");
    terminal.type("ny");
    await terminal.shows(/> \[ \] A/);
    terminal.resize(60, 20);
    terminal.type("\x1b[F");
    await terminal.shows(/> \[ \] A .*?x\.o/);
    terminal.type("k");
    await terminal.shows(/> \[ \] A .*?hidden-text text/);
    for (const hostile of ["\x1b]", "name\x1b", "\u202e", "\x07"]) assert.ok(!terminal.output().includes(hostile));
    await terminal.shows(/evil \^\[\]0;title\^G <U\+202E> text/);
    terminal.type("k");
    await terminal.shows(/> \[ \] M \+1 +sub\/a/);
    terminal.type("aw");
    await terminal.shows("apply 2 of 9 files to the host? y/n");
    assert.equal(await git("-c", "core.fsmonitor=false", "ls-files", "--others", "--exclude-standard"), "");
    terminal.type("y");
    assert.deepEqual(await terminal.end(), { status: 0, signal: null, modes: terminal.before });
    assert.match(terminal.output().split("\x1b[?1049l")[1] ?? "", /2 files changed in/);
  }
  const long = await readFile(join(repo, "long"), "utf8");
  assert.ok(long.includes("line 5\n") && long.includes("fifty\n"));
  assert.match(await readFile(join(repo, "sub/a"), "utf8"), /more\n$/);
  assert.ok((await lstat(join(repo, "b"))).isFile());
  for (const name of [".github", "out", "go", "x.o", "text"])
    await assert.rejects(lstat(join(repo, name)), { code: "ENOENT" });

  // The same lines on both sides: both are shown, and nothing at all is applied.
  await writeFile(join(repo, "long"), long.replace("line 5\n", "the host's\n"));
  const refused = await review("--accept", "long", "--accept", "go");
  assert.equal(refused.status, 1);
  assert.match(
    refused.stderr,
    /nothing was applied[\s\S]*when it was brought in:[\s\S]*line 5[\s\S]*on the host now:[\s\S]*the host's[\s\S]*in the VM:[\s\S]*five/,
  );
  await assert.rejects(lstat(join(repo, "go")), { code: "ENOENT" });
  assert.match((await review("--accept", "nowhere")).stderr, /has changed nothing at nowhere/);
  await good(review("--accept", "go", "--accept", ".github"));
  assert.equal((await lstat(join(repo, "go"))).mode & 0o111, 0o111);
  assert.equal((await review()).status, 2, "no terminal to review on");
  await assert.rejects(lstat(marker), { code: "ENOENT" }, "nothing of the host's was run");
});

test("a review opens with names alone, refuses what it has not read, and leaves the terminal as it was however it ends", async () => {
  await level({ a: "a\n", b: "b\n" });
  await appendFile(join(guest, "a"), "more\n");
  await symlink("a", join(guest, "link"));
  for (const leave of ["q", "\x03"]) {
    await using terminal = await inTerminal();
    await terminal.shows("2 files, 0 with a risk, 0 accepted   box");
    terminal.type("w");
    await terminal.shows("nothing is accepted yet");
    terminal.type(leave);
    assert.deepEqual(await terminal.end(), { status: 0, signal: null, modes: terminal.before });
    assert.match(terminal.output(), /nothing was applied/);
  }
  {
    await using terminal = await inTerminal();
    await terminal.shows("2 files, 0 with a risk, 0 accepted   box");
    terminal.type("A");
    await terminal.shows("2 accepted");
    terminal.type("q");
    await terminal.shows("leave, and apply nothing? y/n");
    terminal.type("n");
    terminal.signal("SIGTERM");
    const end = await terminal.end();
    assert.equal(end.modes, terminal.before);
  }
  assert.equal(await git("status", "--porcelain"), "");
  // A conflict is shown where it is, and can be rejected; the rest is then applied.
  await appendFile(join(repo, "a"), "host\n");
  {
    await using terminal = await inTerminal();
    await terminal.shows("2 files, 0 with a risk, 0 accepted   box");
    terminal.type("A");
    await terminal.shows("2 accepted");
    terminal.type("wy");
    await terminal.shows("on the host now:");
    await terminal.shows("nothing was applied: 1 in conflict");
    assert.equal(await readFile(join(repo, "a"), "utf8"), "a\nhost\n");
    await assert.rejects(lstat(join(repo, "link")), { code: "ENOENT" });
    terminal.type("kkr");
    await terminal.shows("1 accepted");
    terminal.type("wy");
    assert.deepEqual(await terminal.end(), { status: 0, signal: null, modes: terminal.before });
  }
  assert.ok((await lstat(join(repo, "link"))).isSymbolicLink());
  const again = await good(review("--stat"));
  assert.match(again.stdout, /1 other file is on the host already/);
});
