/** Repositories of every kind, brought into a folder by the stream that a guest gets, and looked at by git. */
import assert from "node:assert/strict";
import { appendFile, chmod, mkdir, readFile, readlink, rename, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execFile } from "node:child_process";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { Readable } from "node:stream";
import { gitEnv, gitIn, type Repositories, repositories } from "../../test/support/repositories.ts";
import { BangerError } from "../contract/errors.ts";
import { startProcess } from "../host/process.ts";
import { exportProgram, exportStatus, UNSETTLED } from "./export.ts";
import { headOf } from "./head.ts";
import { listProgram, readListing } from "./review/listing.ts";

const run = promisify(execFile);
let all: Repositories;
let folder: string;
const fresh: Repositories["fresh"] = (what) => all.fresh(what);
const repository: Repositories["repository"] = (what) => all.repository(what);
const bring: Repositories["bring"] = (...args) => all.bring(...args);
const patchOf: Repositories["patchOf"] = (...args) => all.patchOf(...args);
const applied: Repositories["applied"] = (...args) => all.applied(...args);

before(async () => {
  all = await repositories();
  ({ folder } = all);
});
after(() => all[Symbol.asyncDispose]());

test("tracked files come as they are in the working tree, and git in the copy sees what git on the host sees", async () => {
  const { path, git } = await repository("messy");
  const names = ["plain", "line\nbreak", " space ", "-dash", "\\101", "ünïcode", "quo\"te'", "*", ":colon"];
  for (const name of names) await writeFile(join(path, name), `${name}\n`);
  // Bytes that are no text, as only the file system knows them.
  await writeFile(Buffer.concat([Buffer.from(`${path}/raw-`), Buffer.from([0xff, 0xfe])]), "raw\n");
  await mkdir(join(path, "dir/deep"), { recursive: true });
  await writeFile(join(path, "dir/deep/moved"), "moved\n");
  await writeFile(join(path, "dir/becomes-link"), "x\n");
  await writeFile(join(path, "gone"), "gone\n");
  await writeFile(join(path, "staged"), "one\n");
  await writeFile(join(path, "script.sh"), "#!/bin/sh\n");
  await symlink("../outside", join(path, "link"));
  await writeFile(join(path, ".gitignore"), "*.secret\n");
  await writeFile(join(path, ".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n");
  await writeFile(join(path, "asset.bin"), "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n");
  await writeFile(join(path, "zeros"), Buffer.alloc(5_000_000));
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  await git("remote", "add", "origin", "https://me:hunter2@example.org/repo.git");

  await writeFile(join(path, "staged"), "two\n");
  await git("add", "staged");
  await writeFile(join(path, "staged"), "three\n");
  await appendFile(join(path, "plain"), "more\n");
  await chmod(join(path, "script.sh"), 0o755);
  await rm(join(path, "gone"));
  await git("mv", "dir/deep/moved", "elsewhere");
  await rm(join(path, "dir"), { recursive: true });
  await symlink("/etc", join(path, "dir"));
  await writeFile(join(path, "token.secret"), "secret");
  await writeFile(join(path, "untracked"), "untracked");
  const status = await git("status", "--porcelain=v1", "-z", "--untracked-files=no");
  const objectsBefore = await git("count-objects");

  const target = await fresh("guest");
  const { plan } = await bring(path, target);
  const guest = gitIn(target);
  assert.equal(await guest("status", "--porcelain=v1", "-z", "--untracked-files=no"), status);
  assert.equal(await guest("diff"), await git("diff"));
  assert.equal(await guest("diff", "--cached"), await git("diff", "--cached"));
  assert.equal(await guest("log", "--format=%H %s"), await git("log", "--format=%H %s"));
  assert.equal((await guest("symbolic-ref", "HEAD")).trim(), "refs/heads/main");
  assert.equal((await guest("config", "user.email")).trim(), "dev@example.org");
  assert.equal((await guest("remote", "get-url", "origin")).trim(), "https://example.org/repo.git");
  assert.equal(await guest("fsck", "--no-dangling"), "");
  assert.equal(await readlink(join(target, "link")), "../outside");
  assert.equal(await readFile(join(target, "staged"), "utf8"), "three\n");
  assert.ok(!plan.paths.some((name) => /secret|untracked|becomes-link/.test(name)), "only what is tracked travels");
  await assert.rejects(readFile(join(target, "token.secret")), { code: "ENOENT" });
  assert.equal(await git("count-objects"), objectsBefore, "nothing was written to the user's repository");
  // What the base says is what is there.
  assert.equal(await guest("diff", "refs/banger/base"), "");

  const with_ = await fresh("guest");
  const more = await bring(path, with_, { includeUntracked: true });
  assert.ok(more.plan.paths.includes("untracked") && !more.plan.paths.includes("token.secret"));
});

test("a second time only what has changed travels, and what is gone goes", async () => {
  const { path, git } = await repository("again");
  for (let at = 0; at < 50; at++) await writeFile(join(path, `f${at}`), `${at}\n`.repeat(100));
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  const target = await fresh("guest");
  const first = await bring(path, target);
  const same = await bring(path, target, {}, first.manifest);
  assert.deepEqual([same.changed, same.removed], [[], []]);
  await writeFile(join(path, "f3"), "edited\n");
  await git("mv", "f4", "f4-new");
  await git("commit", "--quiet", "--all", "-m", "second");
  await rm(join(path, "f5"));
  await writeFile(join(path, "f6"), "again\n");
  const second = await bring(path, target, {}, same.manifest);
  assert.deepEqual(
    [second.changed, second.removed.sort()],
    [
      ["f3", "f4-new", "f6"],
      ["f4", "f5"],
    ],
  );
  const guest = gitIn(target);
  assert.equal(await guest("status", "--porcelain"), await git("status", "--porcelain"));
  assert.equal(await guest("log", "--format=%s"), "second\nfirst\n");
  assert.equal(await guest("fsck", "--no-dangling"), "");
  assert.ok(second.size < first.size / 3, `${second.size} of ${first.size}`);
});

test("history is shallow where nothing else is said, also of a shallow clone, of merges, and of another branch the second time", async () => {
  const { path, git } = await repository("long");
  for (let at = 0; at < 30; at++) await git("commit", "--quiet", "--allow-empty", "-m", `c${at}`);
  await git("branch", "old", "HEAD~20");
  await git("checkout", "--quiet", "-b", "side", "HEAD~3");
  await writeFile(join(path, "side"), "side\n");
  await git("add", "side");
  await git("commit", "--quiet", "-m", "side");
  await git("checkout", "--quiet", "main");
  await git("merge", "--quiet", "--no-ff", "-m", "merge", "side");
  const target = await fresh("guest");
  const first = await bring(path, target);
  const guest = gitIn(target);
  const count = Number(await guest("rev-list", "--count", "HEAD"));
  assert.ok(count >= 10 && count < 20, `${count} commits`);
  assert.equal(await guest("fsck", "--no-dangling"), "");
  await git("checkout", "--quiet", "old");
  const second = await bring(path, target, {}, first.manifest);
  assert.equal((await guest("symbolic-ref", "--short", "HEAD")).trim(), "old");
  assert.equal(await guest("log", "-1", "--format=%s"), "c9\n");
  assert.equal(await guest("fsck", "--no-dangling"), "");
  assert.equal(second.plan.repository.branch, "old");

  const clone = join(folder, "shallow-clone");
  await git("clone", "--quiet", "--depth", "3", `file://${path}`, clone);
  const far = await fresh("guest");
  await bring(clone, far);
  assert.equal((await gitIn(far)("rev-list", "--count", "HEAD")).trim(), "3");

  await git("config", "uploadpack.allowFilter", "true");
  for (const content of ["one\n", "two\n"]) {
    await writeFile(join(path, "side"), content);
    await git("add", "side");
    await git("commit", "--quiet", "-m", content);
  }
  const partial = join(folder, "partial-clone");
  await git("clone", "--quiet", "--filter=blob:none", `file://${path}`, partial);
  await appendFile(join(partial, "side"), "three\n");
  const last = await fresh("guest");
  // Nothing is fetched for it: its origin is not there any more.
  await rename(path, `${path}-away`);
  const { plan } = await bring(partial, last, { mode: "full" });
  await rename(`${path}-away`, path);
  assert.match(plan.notes.join(), /is a partial clone/);
  assert.equal((await gitIn(last)("rev-list", "--count", "HEAD")).trim(), "1");
  assert.equal(await gitIn(last)("fsck", "--no-dangling"), "");
  assert.equal(await gitIn(last)("status", "--porcelain"), " M side\n");

  const whole = await fresh("guest");
  await git("checkout", "--quiet", "main");
  await bring(path, whole, { mode: "full" });
  assert.equal(await gitIn(whole)("rev-list", "--count", "HEAD"), await git("rev-list", "--count", "HEAD"));
  const files = await fresh("guest");
  await bring(path, files, { mode: "files" });
  await assert.rejects(readFile(join(files, ".git/HEAD")), { code: "ENOENT" });
});

test("a commit can be brought in place of the working tree, under a branch of its own", async () => {
  const { path, git } = await repository("from");
  const long = "d/".repeat(60);
  await mkdir(join(path, long), { recursive: true });
  await writeFile(join(path, `${long}f`), "deep\n");
  await writeFile(join(path, "run"), "#!/bin/sh\n", { mode: 0o755 });
  await symlink("x".repeat(150), join(path, "long-link"));
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  await writeFile(join(path, "run"), "changed\n");
  await git("commit", "--quiet", "--all", "-m", "second");
  await writeFile(join(path, "run"), "not this\n");
  const target = await fresh("guest");
  await bring(path, target, { from: "HEAD~1", branch: "fix/it" });
  const guest = gitIn(target);
  assert.equal(await guest("status", "--porcelain"), "");
  assert.equal((await guest("symbolic-ref", "--short", "HEAD")).trim(), "fix/it");
  assert.equal(await readFile(join(target, "run"), "utf8"), "#!/bin/sh\n");
  assert.equal(await readFile(join(target, `${long}f`), "utf8"), "deep\n");
  assert.equal(await readlink(join(target, "long-link")), "x".repeat(150));
  for (const from of ["nothing", "--all", "HEAD:run"])
    await assert.rejects(
      bring(path, await fresh("guest"), { from }),
      (error) => error instanceof BangerError && error.code === "WORKSPACE_REFUSED",
    );
  await assert.rejects(
    bring(path, await fresh("guest"), { branch: "a..b" }),
    (error) => error instanceof BangerError && error.code === "USAGE",
  );
});

test("submodules, linked worktrees, sparse checkouts, split indexes, SHA-256 and repositories without a commit", async () => {
  const inner = await repository("inner");
  await writeFile(join(inner.path, "lib.c"), "int x;\n");
  await inner.git("add", "--all");
  await inner.git("commit", "--quiet", "-m", "inner");
  const { path, git } = await repository("outer");
  await git("submodule", "--quiet", "add", inner.path, "vendor/inner");
  await git("submodule", "--quiet", "add", inner.path, "vendor/absent");
  await mkdir(join(path, "kept"));
  await mkdir(join(path, "left"));
  await writeFile(join(path, "kept/a"), "a\n");
  await writeFile(join(path, "left/b"), "b\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "outer");
  await git("submodule", "--quiet", "deinit", "--force", "vendor/absent");
  await appendFile(join(path, "vendor/inner/lib.c"), "int y;\n");
  const target = await fresh("guest");
  const { plan } = await bring(path, target);
  const guest = gitIn(target);
  assert.equal(await readFile(join(target, "vendor/inner/lib.c"), "utf8"), "int x;\nint y;\n");
  assert.match(await gitIn(join(target, "vendor/inner"))("status", "--porcelain"), /^ M lib\.c/);
  assert.equal(await guest("status", "--porcelain"), await git("status", "--porcelain"));
  assert.match(plan.notes.join(), /vendor\/absent/);

  const tree = join(folder, "linked");
  await git("worktree", "add", "--quiet", "-b", "topic", tree);
  await gitIn(tree)("sparse-checkout", "set", "kept");
  await gitIn(tree)("update-index", "--split-index");
  await writeFile(join(tree, "kept/a"), "changed\n");
  const second = await fresh("guest");
  await bring(join(tree, "kept"), second);
  assert.equal(await gitIn(second)("status", "--porcelain"), " M kept/a\n");
  await assert.rejects(readFile(join(second, "left/b")), { code: "ENOENT" });

  const unborn = await repository("unborn");
  await writeFile(join(unborn.path, "a"), "a\n");
  await unborn.git("add", "a");
  const third = await fresh("guest");
  await bring(unborn.path, third);
  assert.equal(await gitIn(third)("status", "--porcelain"), "A  a\n");

  const modern = await fresh("sha256");
  await gitIn(modern)("init", "--quiet", "--object-format=sha256");
  await writeFile(join(modern, "a"), "a\n");
  await gitIn(modern)("add", "a");
  await gitIn(modern)("-c", "user.name=a", "-c", "user.email=b@c", "commit", "--quiet", "-m", "x");
  const fourth = await fresh("guest");
  await bring(modern, fourth);
  assert.equal(await gitIn(fourth)("status", "--porcelain"), "");
  assert.equal(await gitIn(fourth)("fsck", "--no-dangling"), "");
});

test("what the copy has changed comes back as a patch that git applies, and its index stays as it was", async () => {
  const { path, git } = await repository("export");
  const names = ["a", "ü b", "line\nbreak", "mode"];
  for (const name of names) await writeFile(join(path, name), `${name}\n`);
  await writeFile(join(path, "gone"), "gone\n");
  await writeFile(join(path, ".gitignore"), "*.o\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  // Not committed on the host, and no work of the guest's.
  await appendFile(join(path, "a"), "host\n");
  const target = await fresh("guest");
  await bring(path, target);
  const guest = gitIn(target);
  assert.equal((await patchOf(target, "diff")).stdout.length, 0);

  await guest("config", "diff.noprefix", "true");
  await guest("config", "diff.external", "false");
  await appendFile(join(target, "a"), "guest\n");
  await guest("commit", "--quiet", "--all", "-m", "in the guest");
  await writeFile(join(target, "ü b"), Buffer.from([0, 1, 2, 0xff]));
  await writeFile(join(target, "line\nbreak"), "staged\n");
  await guest("add", "line\nbreak");
  await writeFile(Buffer.concat([Buffer.from(`${target}/new-`), Buffer.from([0xff])]), "new\n");
  await writeFile(join(target, "x.o"), "ignored\n");
  await chmod(join(target, "mode"), 0o755);
  await symlink("a", join(target, "link"));
  await rm(join(target, "gone"));
  const status = await guest("status", "--porcelain=v1", "-z");
  const index = await readFile(join(target, ".git/index"));
  const { stdout } = await patchOf(target, "diff");
  assert.ok(index.equals(await readFile(join(target, ".git/index"))), "the index was not touched");
  assert.equal(await guest("status", "--porcelain=v1", "-z"), status);
  assert.doesNotMatch(stdout.toString("latin1"), /x\.o/);

  await applied(path, stdout, "apply", "--binary");
  await git("add", "--all");
  await guest("add", "--all");
  assert.equal(await git("write-tree"), await guest("write-tree"));

  // The commits alone, on a clone of what was committed.
  const clone = join(folder, "am-clone");
  await git("clone", "--quiet", path, clone);
  const commits = await patchOf(target, "commits");
  assert.match(commits.stderr.toString().trim(), /^[1-9]\d* 0$/);
  await gitIn(clone)("config", "user.name", "x");
  await gitIn(clone)("config", "user.email", "x@example.org");
  await applied(clone, commits.stdout, "am", "--quiet");
  assert.equal(await gitIn(clone)("log", "-1", "--format=%s %an"), "in the guest Dev Eloper\n");
  assert.equal(await readFile(join(clone, "a"), "utf8"), "a\nhost\nguest\n");

  assert.match((await patchOf(target, "diff", "HEAD")).stdout.toString("latin1"), /^diff --git a\/gone/);
  await assert.rejects(patchOf(target, "diff", "no-such"), { code: exportStatus.noBase });
  await assert.rejects(patchOf(await fresh("plain"), "diff"), { code: exportStatus.noRepository });
});

const namesIn = async (path: string): Promise<string[]> => {
  const [program = "", ...args] = listProgram(path);
  await using listing = await startProcess({
    argv: [program, ...args],
    env: gitEnv,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const found: string[] = [];
  for await (const batch of readListing(listing.child.stdout as AsyncIterable<Uint8Array>))
    found.push(...batch.map(({ path: name, oldMode, newMode }) => `${oldMode ? (newMode ? "M" : "D") : "A"} ${name}`));
  return found.sort();
};

test("the names of what the copy has changed are told without the patch: no others, and whatever was committed meanwhile", async () => {
  const { path, git } = await repository("names");
  for (const name of ["open", "staged", "edited", "committed", "gone", "line\nbreak"])
    await writeFile(join(path, name), `${name}\n`);
  await writeFile(join(path, ".gitignore"), "*.o\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  await appendFile(join(path, "open"), "host\n");
  await appendFile(join(path, "staged"), "host\n");
  await git("add", "staged");
  await writeFile(join(path, "also open"), "host\n");
  const target = await fresh("guest");
  await bring(path, target, { includeUntracked: true });
  assert.deepEqual(await namesIn(target), []);
  const guest = gitIn(target);
  await appendFile(join(target, "committed"), "guest\n");
  await writeFile(join(target, "new"), "guest\n");
  await guest("add", "--all");
  await guest("commit", "--quiet", "-m", "in the guest");
  for (const name of ["edited", "line\nbreak"]) await appendFile(join(target, name), "guest\n");
  await rm(join(target, "gone"));
  for (const name of ["x.o", "newer"]) await writeFile(join(target, name), "guest\n");
  await gitIn(target)("init", "--quiet", "nested");
  assert.deepEqual(await namesIn(target), [
    "A nested",
    "A new",
    "A newer",
    "D gone",
    "M committed",
    "M edited",
    "M line\nbreak",
  ]);

  const listed = async (...chunks: string[]) => {
    const batches: unknown[] = [];
    for await (const batch of readListing(Readable.from(chunks.map((chunk) => Buffer.from(chunk, "latin1")))))
      batches.push(batch);
    return batches;
  };
  assert.deepEqual(await listed("R a\0C", " a\0\0b", "\xff/", "\0"), [
    [{ path: "a", oldMode: "100644" }],
    [{ path: "b\xff", newMode: "160000" }],
  ]);
  for (const text of ["a\0", "X a\0", "C \0", "C".repeat(70_000)])
    await assert.rejects(listed(text), (error) => error instanceof BangerError && error.code === "GUEST_ERROR");
});

test("what is no working tree is refused with what to do", async () => {
  const { path } = await repository("refused");
  const bare = await fresh("bare");
  await gitIn(bare)("init", "--quiet", "--bare");
  await writeFile(join(path, "file"), "");
  const plain = await fresh("plain");
  for (const [place, message] of [
    [bare, /bare repository/],
    [join(folder, "missing"), /there is no /],
    [plain, /not in a git repository/],
    [join(path, "file"), /is a file/],
    [join(path, ".git"), /git folder/],
  ] as const)
    await assert.rejects(
      bring(place, plain),
      (error) => error instanceof BangerError && error.code === "WORKSPACE_REFUSED" && message.test(error.message),
    );
  await rename(path, `${path}-x`);
});

test("the commit that is checked out is found without git, wherever git keeps it", async () => {
  const { path, git } = await repository("head");
  const isRight = async (at: string) => assert.equal(await headOf(at), (await gitIn(at)("rev-parse", "HEAD")).trim());
  assert.equal(await headOf(path), undefined);
  await git("commit", "--quiet", "--allow-empty", "-m", "first");
  await isRight(path);
  await git("branch", "deep/er");
  await git("pack-refs", "--all");
  await isRight(path);
  await git("commit", "--quiet", "--allow-empty", "-m", "second");
  await isRight(path);
  const linked = join(folder, "head-linked");
  await git("worktree", "add", "--quiet", linked, "deep/er");
  await isRight(linked);
  await git("checkout", "--quiet", "--detach", "HEAD~1");
  await isRight(path);
  await assert.rejects(headOf(join(folder, "nowhere")), { code: "ENOENT" });
});

test("a second time a file may be a folder and a folder a link; contents that a filter makes travel as they are on the host", async () => {
  const { path, git } = await repository("kinds");
  await git("config", "filter.big.clean", "sed s/BIG/pointer/");
  await git("config", "filter.big.smudge", "sed s/pointer/BIG/");
  await writeFile(join(path, ".gitattributes"), "*.big filter=big\n");
  await writeFile(join(path, "asset.big"), "BIG\n");
  // What is as young as the index git reads again, and a guest has no such filter.
  await utimes(join(path, "asset.big"), 1_700_000_000, 1_700_000_000);
  await writeFile(join(path, "file"), "file\n");
  await mkdir(join(path, "folder"));
  await writeFile(join(path, "folder/a"), "a\n");
  await writeFile(Buffer.concat([Buffer.from(`${path}/`), Buffer.from([0xfe, 0x0a, 0x22])]), "odd\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  const target = await fresh("guest");
  const first = await bring(path, target);
  const guest = gitIn(target);
  assert.equal(await readFile(join(target, "asset.big"), "utf8"), "BIG\n");
  assert.equal(await guest("cat-file", "blob", "HEAD:asset.big"), "pointer\n");
  assert.equal(await guest("status", "--porcelain"), "");
  assert.equal((await patchOf(target, "diff")).stdout.length, 0, "what a filter made is no work of the guest's");

  await rm(join(path, "file"));
  await mkdir(join(path, "file"));
  await writeFile(join(path, "file/inner"), "inner\n");
  await rm(join(path, "folder"), { recursive: true });
  await symlink("file", join(path, "folder"));
  await git("add", "--all");
  await writeFile(join(path, "asset.big"), "BIG more\n");
  await chmod(join(path, "file/inner"), 0o755);
  await rm(Buffer.concat([Buffer.from(`${path}/`), Buffer.from([0xfe, 0x0a, 0x22])]));
  const second = await bring(path, target, {}, first.manifest);
  assert.deepEqual(second.removed.sort(), ["file", "folder/a", '\xfe\n"']);
  assert.equal(await readlink(join(target, "folder")), "file");
  assert.equal(await guest("status", "--porcelain", "-z"), await git("status", "--porcelain", "-z"));
});

/** A `git` that changes files of the repository while it is at work there, before those of its calls that `when` says. */
const withRestlessGit = async (when: string, change: string): Promise<string> => {
  const bin = await fresh("bin");
  await mkdir(bin, { recursive: true });
  const real = (await run("sh", ["-c", "command -v git"])).stdout.trim();
  const script = `#!/bin/sh\ncase " $* " in *" write-tree "*)\n  n=$(($(cat "${bin}/count" 2>/dev/null || echo 0) + 1)); echo $n >"${bin}/count"\n  if [ $n ${when} ]; then ${change}; fi;;\nesac\nexec ${real} "$@"\n`;
  await writeFile(join(bin, "git"), script, { mode: 0o755 });
  return `${bin}:${process.env.PATH}`;
};

test("a diff is of one moment, though files change while they are read, or says that it is not", async () => {
  const { path, git } = await repository("restless");
  // Of one length, and written within the same second: only their contents tell them apart.
  await writeFile(join(path, "one"), "0000\n");
  await writeFile(join(path, "two"), "0000\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  await git("update-ref", "refs/banger/base", "HEAD");
  await git("config", "core.checkStat", "minimal");
  const both = `echo 000$n >"${path}/one"; echo 000$n >"${path}/two"`;
  const exported = async (PATH: string) => {
    const [program, ...args] = exportProgram(path, undefined, "diff");
    return await run(program, args, { env: { ...gitEnv, PATH } });
  };
  const once = await exported(await withRestlessGit("-le 2", both));
  assert.equal(once.stderr, "");
  assert.deepEqual(once.stdout.match(/^\+0.*$/gm), ["+0002", "+0002"]);
  const always = await exported(await withRestlessGit("-gt 0", both));
  assert.equal(always.stderr, `${UNSETTLED}\n`);
  assert.equal(await git("status", "--porcelain"), " M one\n M two\n");
});
