/** Clones of a real git server, and repositories that mean harm: what comes along, what is fetched, and what is never run or touched on the host. */
import assert from "node:assert/strict";
import { appendFile, chmod, lstat, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type GitServer, gitServer } from "../../test/support/git-server.ts";
import { gitIn, type Repositories, repositories, traceOf } from "../../test/support/repositories.ts";
import { BangerError } from "../contract/errors.ts";
import { openRepository } from "./repository.ts";

let all: Repositories;
let server: GitServer;
let served: string;

before(async () => {
  all = await repositories();
  served = await all.fresh("served");
  server = await gitServer(served, "hunter2");
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await all[Symbol.asyncDispose]();
});

const USER = "me:hunter2@";
const clone = async (name: string, what: string, ...args: string[]) => {
  const path = join(all.folder, what);
  await gitIn(all.folder)("clone", "--quiet", ...args, server.url(`${name}.git`, USER), path);
  const git = gitIn(path);
  await git("config", "user.name", "Dev Eloper");
  await git("config", "user.email", "dev@example.org");
  return { path, git };
};

/** Puts a repository on the server. */
const serve = async (name: string, path: string): Promise<void> => {
  await gitIn(served)("clone", "--quiet", "--bare", path, `${name}.git`);
  const git = gitIn(join(served, `${name}.git`));
  await git("config", "uploadpack.allowFilter", "true");
  await git("config", "uploadpack.allowAnySHA1InWant", "true");
};

test("a clone keeps its origin without the password, and work in its copy goes back to a branch of the server's", async () => {
  const { path, git } = await all.repository("origin");
  await mkdir(join(path, "src"));
  await writeFile(join(path, "src/main"), "one\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  await serve("origin", path);
  const host = await clone("origin", "clone");
  const target = await all.fresh("guest");
  await all.bring(host.path, target);
  const guest = gitIn(target);
  assert.equal((await guest("remote", "get-url", "origin")).trim(), server.url("origin.git"));
  assert.equal((await guest("rev-parse", "--abbrev-ref", "@{upstream}")).trim(), "origin/main");
  assert.ok(!(await readFile(join(target, ".git/config"), "utf8")).includes("hunter2"));

  await guest("checkout", "--quiet", "-b", "topic");
  await writeFile(join(target, "src/main"), "one\r\ntwo\r\n");
  await guest("commit", "--quiet", "--all", "-m", "[core] two");
  await guest("mv", "src/main", "src/moved");
  await writeFile(join(target, "src/blob"), Buffer.from([0, 1, 2]));
  await guest("add", "--all");
  await guest("commit", "--quiet", "-m", "moved");
  const { stdout, stderr } = await all.patchOf(target, "commits");
  assert.equal(stderr.toString().trim(), "0 0");
  await host.git("checkout", "--quiet", "-b", "topic");
  await all.applied(host.path, stdout, "am", "--quiet", "--keep-cr", "--keep-non-patch");
  assert.equal(await host.git("rev-parse", "HEAD^{tree}"), await guest("rev-parse", "HEAD^{tree}"));
  assert.equal(await host.git("log", "--format=%s", "-2"), "moved\n[core] two\n");
  await host.git("push", "--quiet", "origin", "topic");
  assert.equal(await gitIn(join(served, "origin.git"))("rev-parse", "topic"), await host.git("rev-parse", "HEAD"));

  // What a merge itself has changed is in no patch, and that is said.
  await guest("checkout", "--quiet", "-b", "other", "HEAD~1");
  await guest("commit", "--quiet", "--allow-empty", "-m", "beside");
  await guest("merge", "--quiet", "-m", "merge", "topic");
  assert.equal((await all.patchOf(target, "commits")).stderr.toString().trim(), "0 1");
});

test("a partial clone asks its server for nothing while it is brought, its copy for what it lacks, and a commit that it lacks files of is fetched at once", async () => {
  const { path, git } = await all.repository("big");
  for (const name of ["kept", "left"]) {
    await mkdir(join(path, name));
    for (let at = 0; at < 20; at++) await writeFile(join(path, name, `f${at}`), `${name} ${at}\n`);
  }
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  for (let at = 0; at < 20; at++) await writeFile(join(path, "kept", `f${at}`), `second ${at}\n`);
  await git("commit", "--quiet", "--all", "-m", "second");
  await serve("big", path);

  const sparse = await clone("big", "sparse-partial", "--filter=blob:none", "--sparse");
  await sparse.git("sparse-checkout", "set", "kept");
  await appendFile(join(sparse.path, "kept/f0"), "edited\n");
  server.requests.length = 0;
  const target = await all.fresh("guest");
  const { plan } = await all.bring(sparse.path, target);
  assert.deepEqual(server.requests, []);
  assert.equal(plan.paths.length, 20);
  assert.match(plan.notes.join(), /partial clone/);
  const guest = gitIn(target);
  assert.equal(await guest("status", "--porcelain"), " M kept/f0\n");
  assert.equal(await guest("fsck", "--no-dangling"), "");
  await guest("commit", "--quiet", "--all", "-m", "in the guest");
  assert.match((await all.patchOf(target, "diff")).stdout.toString(), /^$/);
  await appendFile(join(target, "kept/f1"), "in the guest\n");
  assert.match((await all.patchOf(target, "diff")).stdout.toString(), /^diff --git a\/kept\/f1 b\/kept\/f1\n/);
  assert.deepEqual(server.requests, []);
  await guest("remote", "set-url", "origin", server.url("big.git", USER));
  assert.equal(await guest("cat-file", "blob", "HEAD:left/f3"), "left 3\n");

  const partial = await clone("big", "partial", "--filter=blob:none");
  const before = await partial.git("count-objects", "-v");
  server.requests.length = 0;
  const old = await all.fresh("guest");
  const from = await all.bring(partial.path, old, { from: "HEAD~1" });
  assert.equal(await readFile(join(old, "kept/f7"), "utf8"), "kept 7\n");
  assert.match(from.plan.notes.join(), /20 objects .* were fetched/);
  // One fetch: refs without the password, refs, and the objects.
  assert.ok(server.requests.length <= 4, server.requests.join("\n"));
  assert.equal(await partial.git("count-objects", "-v"), before, "nothing came to the user's repository");
  const trees = await clone("big", "treeless", "--filter=tree:0");
  const oldest = await all.fresh("guest");
  await all.bring(trees.path, oldest, { from: "HEAD~1" });
  assert.equal(await readFile(join(oldest, "left/f19"), "utf8"), "left 19\n");

  await partial.git("remote", "set-url", "origin", server.url("gone.git", USER));
  await assert.rejects(
    all.bring(partial.path, old, { from: "HEAD~1" }),
    (error) =>
      error instanceof BangerError &&
      error.code === "WORKSPACE_REFUSED" &&
      /lacks 20 objects/.test(error.message) &&
      /switch --detach/.test(error.hint ?? ""),
  );
});

test("a shallow clone ends where it ends, and submodules with relative addresses are those of the server", async () => {
  const inner = await all.repository("lib");
  await writeFile(join(inner.path, "lib.c"), "int x;\n");
  await inner.git("add", "--all");
  await inner.git("commit", "--quiet", "-m", "lib");
  await serve("lib", inner.path);
  const { path, git } = await all.repository("app");
  for (let at = 0; at < 5; at++) await git("commit", "--quiet", "--allow-empty", "-m", `c${at}`);
  await writeFile(join(path, ".gitmodules"), '[submodule "lib"]\n\tpath = vendor/lib\n\turl = ../lib.git\n');
  await git("add", ".gitmodules");
  await git(
    "update-index",
    "--add",
    "--cacheinfo",
    `160000,${(await inner.git("rev-parse", "HEAD")).trim()},vendor/lib`,
  );
  await git("commit", "--quiet", "-m", "submodule");
  await serve("app", path);

  const shallow = await clone("app", "shallow", "--depth", "2", "--recurse-submodules", "--shallow-submodules");
  await appendFile(join(shallow.path, "vendor/lib/lib.c"), "int y;\n");
  const target = await all.fresh("guest");
  await all.bring(shallow.path, target, { mode: "full" });
  const guest = gitIn(target);
  assert.equal(await guest("log", "--format=%s"), "submodule\nc4\n");
  assert.equal(await guest("fsck", "--no-dangling"), "");
  assert.equal(await readFile(join(target, "vendor/lib/lib.c"), "utf8"), "int x;\nint y;\n");
  assert.equal((await gitIn(join(target, "vendor/lib"))("remote", "get-url", "origin")).trim(), server.url("lib.git"));
  assert.equal(await guest("status", "--porcelain"), await shallow.git("status", "--porcelain"));
  await assert.rejects(
    all.bring(shallow.path, target, { from: "HEAD~4" }),
    (error) => error instanceof BangerError && /unshallow/.test(error.hint ?? ""),
  );

  // One that the host has not set up can be had in the guest, by the address that the repository gives.
  const plain = await clone("app", "without-submodules");
  const second = await all.fresh("guest");
  await all.bring(plain.path, second);
  const other = gitIn(second);
  await other("remote", "set-url", "origin", server.url("app.git", USER));
  await other("submodule", "--quiet", "update", "--init");
  assert.equal(await readFile(join(second, "vendor/lib/lib.c"), "utf8"), "int x;\n");
});

test("nothing that a repository says is run on the host, and nothing of it is written", async () => {
  const inner = await all.repository("inner");
  await writeFile(join(inner.path, "a.x"), "a\n");
  await inner.git("add", "--all");
  await inner.git("commit", "--quiet", "-m", "inner");
  const { path, git } = await all.repository("evil");
  const marker = join(all.folder, "was-run");
  const evil = join(all.folder, "evil.sh");
  await writeFile(evil, `#!/bin/sh\necho "$0 $*" >>'${marker}'\ncat\n`, { mode: 0o755 });
  for (const name of ["a.x", "b.x", "deleted.x"]) await writeFile(join(path, name), `${name}\n`);
  await writeFile(join(path, ".gitattributes"), "*.x filter=evil=1 diff=evil merge=evil\n*.y filter=long\n");
  await git("submodule", "--quiet", "add", inner.path, "vendor/inner");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  await writeFile(join(path, "a.x"), "b.x!\n");
  await git("add", "a.x");
  await writeFile(join(path, "b.x"), "also\n");
  await rm(join(path, "deleted.x"));
  await writeFile(join(path, "new.y"), "new\n");
  await appendFile(join(path, "vendor/inner/a.x"), "more\n");
  for (const at of [join(path, ".git"), join(path, ".git/modules/vendor/inner")]) {
    for (const hook of ["post-index-change", "pre-commit", "post-checkout", "reference-transaction", "pre-auto-gc"]) {
      await writeFile(join(at, "hooks", hook), `#!/bin/sh\nexec '${evil}'\n`, { mode: 0o755 });
    }
    await writeFile(join(at, "included"), `[filter "late"]\n\tclean = ${evil}\n[core]\n\tsshCommand = ${evil}\n`);
    await appendFile(
      join(at, "config"),
      `[core]
\tfsmonitor = ${evil}
\talternateRefsCommand = ${evil}
\tsplitIndex = true
\tuntrackedCache = true
\tpager = ${evil}
\teditor = ${evil}
\taskPass = ${evil}
\tgitProxy = ${evil}
[filter "evil=1"]
\tclean = ${evil}
\tsmudge = ${evil}
\trequired = true
[filter "long"]
\tprocess = ${evil}
\trequired = true
[diff]
\texternal = ${evil}
[diff "evil"]
\ttextconv = ${evil}
\tcommand = ${evil}
[merge "evil"]
\tdriver = ${evil}
[alias]
\trev-parse = !${evil}
\tls-files = !${evil}
[credential]
\thelper = ${evil}
[gpg]
\tprogram = ${evil}
[commit]
\tgpgSign = true
[includeIf "gitdir:**"]
\tpath = included
[remote "origin"]
\turl = ext::${evil}
\tuploadpack = ${evil}
\tpromisor = true
[protocol "ext"]
\tallow = always
`,
    );
  }
  await appendFile(join(path, ".git/info/attributes"), "* filter=late\n");
  // Its git has no say; that its settings are read is seen by the copies of these.
  const before = await traceOf(path);
  const target = await all.fresh("guest");
  await all.bring(path, target, { includeUntracked: true });
  assert.equal(await readFile(join(target, "b.x"), "utf8"), "also\n");
  assert.equal(await readFile(join(target, "new.y"), "utf8"), "new\n");
  assert.equal(await readFile(join(target, "vendor/inner/a.x"), "utf8"), "a\nmore\n");
  await all.bring(path, await all.fresh("guest"), { from: "HEAD" });
  await openRepository(path);
  assert.deepEqual(await traceOf(path), before);
  assert.equal(await readFile(marker, "utf8").catch(() => ""), "");
  const config = await readFile(join(target, ".git/config"), "utf8");
  assert.doesNotMatch(config, /fsmonitor|filter|alias|sshCommand|helper|editor/i);

  // What it lacks is not fetched by what it says either.
  const lost = (await git("-c", "core.fsmonitor=false", "rev-parse", "HEAD:b.x")).trim();
  await rm(join(path, ".git/objects", lost.slice(0, 2), lost.slice(2)));
  await assert.rejects(all.bring(path, await all.fresh("guest"), { from: "HEAD" }), (error) => {
    assert.ok(error instanceof BangerError && error.code === "WORKSPACE_REFUSED", String(error));
    return /ext.*not allowed|transport/.test(error.message);
  });
  assert.equal(await readFile(marker, "utf8").catch(() => ""), "");
});

test("no repository makes files of elsewhere its own, whatever its settings, its index and its links say", async () => {
  const secrets = await all.fresh("secrets");
  await writeFile(join(secrets, "key"), "PRIVATE\n");

  // Its index says that nobody need look whether its files are there.
  const { path, git } = await all.repository("sly");
  await mkdir(join(path, "keys"));
  for (const name of ["keys/key", "local", "skipped", "absent"]) await writeFile(join(path, name), "nothing\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  await git("update-index", "--assume-unchanged", "keys/key", "local");
  await git("update-index", "--skip-worktree", "skipped", "absent");
  await rm(join(path, "keys"), { recursive: true });
  await rm(join(path, "absent"));
  await symlink(secrets, join(path, "keys"));
  for (const name of ["local", "skipped"]) await writeFile(join(path, name), "of this machine\n");
  const before = await traceOf(path);
  const target = await all.fresh("guest");
  const { plan } = await all.bring(path, target);
  assert.deepEqual(plan.paths, ["local", "skipped"]);
  assert.deepEqual((await readdir(target)).sort(), [".git", "local", "skipped"]);
  // What the working tree really has travels, and is no work of the guest's.
  assert.equal(await readFile(join(target, "local"), "utf8"), "of this machine\n");
  assert.equal(await readFile(join(target, "skipped"), "utf8"), "of this machine\n");
  assert.equal((await all.patchOf(target, "diff")).stdout.toString(), "");
  assert.deepEqual(await traceOf(path), before);

  // Its settings say that its files are somebody else's.
  const { path: nest } = await all.repository("nest");
  const egg = join(nest, "egg");
  await mkdir(egg);
  await gitIn(egg)("init", "--quiet");
  await gitIn(egg)("config", "core.worktree", nest);
  await assert.rejects(
    all.bring(egg, target),
    (error) =>
      error instanceof BangerError && error.code === "WORKSPACE_REFUSED" && /core\.worktree/.test(error.message),
  );
});

test("a repository of another user's is refused until it is trusted", async () => {
  const { path } = await all.repository("theirs");
  // git's own tests use this: who owns a folder is not for everybody to change.
  process.env.GIT_TEST_ASSUME_DIFFERENT_OWNER = "1";
  try {
    await assert.rejects(
      openRepository(path),
      (error) =>
        error instanceof BangerError && /another user/.test(error.message) && /safe\.directory/.test(error.hint ?? ""),
    );
  } finally {
    delete process.env.GIT_TEST_ASSUME_DIFFERENT_OWNER;
  }
});

test("what git is in the middle of is said, and files come as they are", async () => {
  const { path, git } = await all.repository("middle");
  await writeFile(join(path, "file"), "base\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "base");
  await git("checkout", "--quiet", "-b", "side");
  await writeFile(join(path, "file"), "side\n");
  await git("commit", "--quiet", "--all", "-m", "side");
  await git("checkout", "--quiet", "main");
  await writeFile(join(path, "file"), "main\n");
  await git("commit", "--quiet", "--all", "-m", "main");
  for (const [command, what, back] of [
    [["merge", "side"], "a merge", ["merge", "--abort"]],
    [["rebase", "side"], "a rebase", ["rebase", "--abort"]],
    [["cherry-pick", "side"], "a cherry-pick", ["cherry-pick", "--abort"]],
  ] as const) {
    await assert.rejects(git(...command));
    const status = await git("status", "--porcelain");
    const target = await all.fresh("guest");
    const { plan } = await all.bring(path, target);
    assert.match(plan.notes.join("\n"), new RegExp(`in the middle of ${what}`));
    const guest = gitIn(target);
    assert.equal(await guest("status", "--porcelain"), status);
    assert.match(await readFile(join(target, "file"), "utf8"), /<<<<<<</);
    assert.equal((await all.patchOf(target, "diff")).stdout.toString(), "");
    await writeFile(join(target, "file"), "solved\n");
    assert.match((await all.patchOf(target, "diff")).stdout.toString(), /\+solved/);
    await git(...back);
  }
});

test("an empty repository, one with a file too large for memory, and one whose files have been written in the same instant as its index", async () => {
  const empty = await all.repository("empty");
  const target = await all.fresh("guest");
  const { plan } = await all.bring(empty.path, target);
  assert.deepEqual(plan.paths, []);
  assert.equal(
    await gitIn(target)("status", "--porcelain=v2", "--branch"),
    "# branch.oid (initial)\n# branch.head main\n",
  );
  await writeFile(join(target, "first"), "first\n");
  assert.match((await all.patchOf(target, "diff")).stdout.toString(), /^diff --git a\/first b\/first\nnew file/);

  const { path, git } = await all.repository("racy");
  await git("config", "core.bigFileThreshold", "1m");
  await writeFile(join(path, "huge"), Buffer.alloc(3_000_000, "huge"));
  await writeFile(join(path, "long".repeat(60)), "long\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  for (let turn = 0; turn < 5; turn++) {
    await writeFile(join(path, "same-size"), `${turn} one\n`);
    await git("add", "same-size");
    // Of the same size, and where the clock has not moved on, of the same time.
    await writeFile(join(path, "same-size"), `${turn} two\n`);
    const copy = await all.fresh("guest");
    await all.bring(path, copy);
    assert.equal(await gitIn(copy)("cat-file", "blob", "refs/banger/base:same-size"), `${turn} two\n`);
    assert.equal((await all.patchOf(copy, "diff")).stdout.toString(), "");
  }
  await appendFile(join(path, "huge"), "more");
  await chmod(join(path, "huge"), 0o755);
  const last = await all.fresh("guest");
  await all.bring(path, last);
  assert.equal((await lstat(join(last, "huge"))).size, 3_000_004);
});
