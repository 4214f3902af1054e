/** A guest's patch, honest and hostile, read and applied to a repository of this machine; compared with what git makes of it. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import {
  appendFile,
  chmod,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  unlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { BangerError } from "../../contract/errors.ts";
import { exportProgram } from "../export.ts";
import { linesOf, putHunks } from "./hunks.ts";
import { type FileChange, type Hunk, readPatch } from "./patch.ts";
import { badPath, linkInside } from "./places.ts";
import { type Conflict, type Operation, partsOf, planChange } from "./plan-change.ts";
import { risksOfContent, risksOfName } from "./risk.ts";
import { applyAll, recover } from "./transaction.ts";

const run = promisify(execFile);
const never = new AbortController().signal;
const env = { PATH: process.env.PATH ?? "", HOME: "/nonexistent", GIT_CONFIG_NOSYSTEM: "1" };
const git = async (cwd: string, ...args: string[]): Promise<string> =>
  (await run("git", ["-c", "user.name=a", "-c", "user.email=b@c", ...args], { cwd, env, encoding: "latin1" })).stdout;

let folder: string;
let counter = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-review-"));
});
after(() => rm(folder, { recursive: true, force: true }));

/** A repository of one commit, and a copy of it that stands for a guest. */
const pair = async (files: Record<string, string | Buffer>) => {
  const root = join(folder, `host-${counter}`);
  const guest = join(folder, `guest-${counter++}`);
  await mkdir(root);
  await git(root, "init", "--quiet", "--initial-branch=main");
  for (const [name, data] of Object.entries(files)) {
    await mkdir(join(root, name, ".."), { recursive: true });
    await writeFile(join(root, name), data);
  }
  await git(root, "add", "--all");
  await git(root, "commit", "--quiet", "--allow-empty", "-m", "first");
  await git(root, "update-ref", "refs/banger/base", "HEAD");
  await cp(root, guest, { recursive: true, verbatimSymlinks: true });
  return { root, guest, tree: { root, gitFolder: join(root, ".git") } };
};

const changesOf = async (guest: string): Promise<FileChange[]> => {
  const [program, ...args] = exportProgram(guest, undefined, "diff");
  const { stdout } = await run(program, args, { env, encoding: "buffer", maxBuffer: 2 ** 28 });
  return await parsed([stdout]);
};
const parsed = async (chunks: readonly (Buffer | string)[]): Promise<FileChange[]> => {
  const source = Readable.from(chunks.map((chunk) => Buffer.from(chunk as string, "latin1")));
  const changes: FileChange[] = [];
  for await (const change of readPatch(source)) changes.push(change);
  return changes;
};

const planAll = async (root: string, changes: readonly FileChange[]) => {
  const operations: Operation[] = [];
  const conflicts: Conflict[] = [];
  const goes = new Set(changes.filter(({ newMode }) => newMode === undefined).map(({ path }) => path));
  for (const change of changes) {
    const planned = await planChange(root, change, partsOf(change), goes);
    if (planned === "there") continue;
    if ("conflict" in planned) conflicts.push(planned.conflict);
    else operations.push(planned.operation);
  }
  return { operations, conflicts };
};

/** What git sees in a working tree. */
const treeOf = async (root: string): Promise<string> => {
  await git(root, "add", "--all");
  return await git(root, "write-tree");
};

test("everything that git can say of a change is applied as git would, and nothing is left beside it", async () => {
  const long = Array.from({ length: 400 }, (_, line) => `line ${line}\n`).join("");
  const noise = Buffer.from(Array.from({ length: 5000 }, (_, at) => (at * 7919) % 251));
  const { root, guest, tree } = await pair({
    text: long,
    "no-end": "a\nb",
    empty: "",
    fills: "",
    empties: "x\n",
    "dir/gone": "gone\n",
    "becomes-dir": "file\n",
    "becomes-file/inner": "inner\n",
    "becomes-link": "file\n",
    "small-binary": Buffer.from([0, 1, 2]),
    "large-binary": noise,
    mode: "mode\n",
    "ü ber\tname": "1\n",
    "line\nbreak": "1\n",
    'quo"te\\': "1\n",
    crlf: "one\r\ntwo\r\n",
  });
  await symlink("text", join(root, "link"));
  await cp(join(root, "link"), join(guest, "link"), { verbatimSymlinks: true });
  for (const at of [root, guest]) {
    await git(at, "add", "--all");
    await git(at, "commit", "--quiet", "-m", "link");
    await git(at, "update-ref", "refs/banger/base", "HEAD");
  }
  await writeFile(
    join(guest, "text"),
    long.replace("line 3\n", "three\n").replace("line 200\n", "").replace("line 399\n", "last"),
  );
  await writeFile(join(guest, "no-end"), "a\nb\nc");
  await writeFile(join(guest, "fills"), "now\n");
  await writeFile(join(guest, "empties"), "");
  await rm(join(guest, "dir"), { recursive: true });
  await rm(join(guest, "becomes-dir"));
  await mkdir(join(guest, "becomes-dir"));
  await writeFile(join(guest, "becomes-dir/inner"), "inner\n");
  await rm(join(guest, "becomes-file"), { recursive: true });
  await writeFile(join(guest, "becomes-file"), "file\n");
  await rm(join(guest, "becomes-link"));
  await symlink("dir/../text", join(guest, "becomes-link"));
  await rm(join(guest, "link"));
  await symlink("crlf", join(guest, "link"));
  await writeFile(join(guest, "small-binary"), Buffer.from([9, 0, 255]));
  await writeFile(
    join(guest, "large-binary"),
    Buffer.concat([noise.subarray(0, 2000), Buffer.from([0, 0]), noise.subarray(2000)]),
  );
  await writeFile(join(guest, "new-binary"), noise.subarray(100));
  await chmod(join(guest, "mode"), 0o755);
  for (const name of ["ü ber\tname", "line\nbreak", 'quo"te\\']) await appendFile(join(guest, name), "2\n");
  await writeFile(Buffer.concat([Buffer.from(`${guest}/raw-`), Buffer.from([0xff])]), "raw\n");
  await writeFile(join(guest, "crlf"), "one\r\n2\r\n");
  await writeFile(join(guest, "run"), "#!/bin/sh\n", { mode: 0o755 });
  await writeFile(join(guest, "also-empty"), "");

  const changes = await changesOf(guest);
  assert.deepEqual(new Set(changes.map(({ binary }) => binary?.kind)), new Set([undefined, "literal", "delta"]));
  const { operations, conflicts } = await planAll(root, changes);
  assert.deepEqual(conflicts, []);
  await applyAll(tree, operations, never);
  assert.equal(await treeOf(root), await treeOf(guest));
  assert.deepEqual(
    (await readdir(join(root, ".git"))).filter((name) => name.startsWith("banger")),
    [],
  );
  assert.deepEqual(
    await planAll(root, changes),
    { operations: [], conflicts: [] },
    "a second time there is nothing to do",
  );
});

test("hunks are taken one by one, beside what the host has changed since; the same lines changed on both sides are a conflict with both shown", async () => {
  const long = Array.from({ length: 100 }, (_, line) => `line ${line}\n`).join("");
  const { root, guest, tree } = await pair({ text: long });
  await writeFile(
    join(guest, "text"),
    long.replace("line 10\n", "ten\n").replace("line 50\n", "fifty\n").replace("line 90\n", "ninety\n"),
  );
  const [change] = await changesOf(guest);
  assert.ok(change);
  const parts = partsOf(change);
  assert.equal(parts.length, 3);
  await writeFile(join(root, "text"), `new first line\n${long.replace("line 91\n", "host's\n")}`);
  const one = await planChange(root, change, [parts[1] ?? { kind: "mode" }], new Set());
  assert.ok(one !== "there" && "operation" in one);
  await applyAll(tree, [one.operation], never);
  const merged = await readFile(join(root, "text"), "utf8");
  assert.equal(merged, `new first line\n${long.replace("line 50\n", "fifty\n").replace("line 91\n", "host's\n")}`);

  const all = await planChange(root, change, parts, new Set());
  assert.ok(all !== "there" && "conflict" in all);
  const [clash] = all.conflict.clashes;
  assert.equal(all.conflict.clashes.length, 1);
  assert.deepEqual(
    [clash?.line, clash?.host[4], clash?.vm[3], clash?.base[3]],
    [89, "host's\n", "ninety\n", "line 90\n"],
  );
  // What is there already is left as it is.
  const rest = await planChange(root, change, parts.slice(0, 2), new Set());
  assert.ok(rest !== "there" && "operation" in rest && rest.operation.after && "data" in rest.operation.after);
  assert.match(rest.operation.after.data.toString(), /line 9\nten\nline 11/);
});

const hunk = (oldStart: number, lines: string[]): Hunk => ({ oldStart, newStart: oldStart, heading: "", lines });

test("a hunk is put where its lines stand, and nowhere else", () => {
  const put = (text: string, ...hunks: Hunk[]) => {
    const { text: merged, clashes } = putHunks(text, hunks);
    return clashes.length > 0 ? "clash" : merged;
  };
  const change = hunk(2, [" a\n", "-b\n", "+B\n", " c\n"]);
  assert.equal(put("x\na\nb\nc\n", change), "x\na\nB\nc\n");
  assert.equal(put("1\n2\n3\na\nb\nc\n", change), "1\n2\n3\na\nB\nc\n");
  assert.equal(put("x\na\nb\nc", change), "clash", "the end of the file is part of a line");
  assert.equal(put("a\nb\nc\nx\na\nb\nc\ny\na\nb\nc\n", change), "clash", "several places, none of them the expected");
  assert.equal(put("x\r\na\r\nb\r\nc\r\n", change), "x\r\na\r\nB\r\nc\r\n");
  assert.equal(put("x\na\r\nb\nc\n", change), "clash");
  const tail = hunk(1, [" a\n", "+end\n"]);
  assert.equal(put("a\nmore\n", tail), "clash", "both have added at the end");
  assert.equal(put("a\n", tail), "a\nend\n");
  const empties = hunk(1, ["-a\n"]);
  assert.equal(put("a\n", empties), "");
  assert.equal(put("a\nb\n", empties), "clash");
  assert.equal(put("", hunk(0, ["+a\n"])), "a\n");
  assert.equal(put("b\n", hunk(0, ["+a\n"])), "clash");
  assert.deepEqual(linesOf("a\n\nb"), ["a\n", "\n", "b"]);
});

test("a patch that is none of git's is refused, wherever its bytes are cut", async () => {
  const { root, guest } = await pair({ "a b": "1\n", c: "1\n" });
  await appendFile(join(guest, "a b"), "2\n");
  await writeFile(join(guest, "c"), Buffer.from([0, 1, 2, 3]));
  const [program, ...args] = exportProgram(guest, undefined, "diff");
  const patch = (await run(program, args, { env, encoding: "latin1" })).stdout;
  const whole = await parsed([patch]);
  assert.equal(whole.length, 2);
  for (let at = 0; at < patch.length; at += 7)
    assert.deepEqual(await parsed([patch.slice(0, at), patch.slice(at)]), whole);
  assert.deepEqual(await parsed([...patch]), whole);

  const head = "diff --git a/x b/x\n";
  const index = `index ${"1".repeat(40)}..${"2".repeat(40)} 100644\n`;
  for (const text of [
    "hello\n",
    "diff --git a/x b/y\nold mode 100644\nnew mode 100755\n",
    "diff --git x x\nold mode 100644\nnew mode 100755\n",
    `${head}new file mode 104755\n`,
    `${head}new file mode 100644\nnew file mode 100644\n`,
    `${head}new file mode 100644\ndeleted file mode 100644\n`,
    `${head}rename from x\nrename to y\n`,
    head,
    `${head}${index}--- a/x\n+++ b/x\n`,
    `${head}${index}--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n`,
    `${head}${index}--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n+b\n`,
    `${head}${index}--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n+c\n`,
    `${head}${index}--- a/x\n+++ b/x\n@@ -1 +1 @@\n!a\n`,
    `${head}${index}--- a/x\n+++ b/x\n@@ -0,0 +0,0 @@\n`,
    `${head}${index}--- a/x\n+++ b/x\n@@ -99999999999 +1 @@\n-a\n+b\n`,
    `${head}${index}GIT binary patch\nliteral 99999999999\n`,
    `${head}${index}GIT binary patch\nliteral 3\nzzz\n\n`,
    `${head}${index}GIT binary patch\nliteral 3\nC~~~~~\n\n`,
    `${head}old mode 100644\nnew mode 100755\n${head}old mode 100755\nnew mode 100644\n`,
    `diff --git "a/\\q" "b/\\q"\nold mode 100644\nnew mode 100755\n`,
  ])
    await assert.rejects(
      parsed([text]).then((changes) => planAll(root, changes)),
      (error) => error instanceof BangerError && error.code === "GUEST_ERROR",
      text,
    );
});

const addition = (path: string, text: string, mode = "100644"): string =>
  `diff --git a/${path} b/${path}\nnew file mode ${mode}\nindex ${"0".repeat(40)}..${"2".repeat(40)}\n--- /dev/null\n+++ b/${path}\n@@ -0,0 +1 @@\n+${text}\n\\ No newline at end of file\n`;

test("no path leads out of the repository, into a git folder or through a link", async () => {
  const { root, tree } = await pair({ "real/file": "1\n", file: "1\n" });
  const outside = join(folder, "outside");
  await mkdir(outside);
  await symlink(outside, join(root, "way-out"));
  const bad = [
    ...[
      "/etc/x",
      "../x",
      "a/../../x",
      "./x",
      "a//x",
      ".git/hooks/pre-commit",
      ".GIT/config",
      "sub/.git/config",
      ".git",
    ],
    ...[
      "GIT~1/config",
      ".git /config",
      ".git./x",
      ".git::$INDEX_ALLOCATION/x",
      ".g\xe2\x80\x8cit/config",
      "a\\.git\\x",
      "x".repeat(300),
    ],
  ];
  for (const path of bad) {
    assert.notEqual(badPath(path), undefined, path);
    const [change] = await parsed([addition(path, "owned")]);
    assert.ok(change);
    assert.deepEqual(partsOf(change), [], path);
    assert.ok(risksOfName({ path, newMode: "100644" }, false).has("refused"), path);
    const { conflicts } = await planAll(root, [change]);
    assert.equal(conflicts.length, 1, path);
  }
  for (const path of ["way-out/x", "file/x"]) {
    const { conflicts } = await planAll(root, await parsed([addition(path, "owned")]));
    assert.match(conflicts[0]?.why ?? "", /is no folder/);
  }
  // A link, and a file below it, in one patch.
  const trick = await parsed([addition("trap", outside, "120000"), addition("trap/x", "owned")]);
  const { operations } = await planAll(root, trick);
  await assert.rejects(applyAll(tree, operations, never), /folder above it/);
  // A folder that becomes a link once it was looked at.
  const swapped = await planAll(root, await parsed([addition("real/new", "owned")]));
  await rm(join(root, "real"), { recursive: true });
  await symlink(outside, join(root, "real"));
  await assert.rejects(applyAll(tree, swapped.operations, never), /nothing was applied/);
  assert.deepEqual(await readdir(outside), []);
  for (const good of [".gitignore", ".github/x", "git", "a.git/x", "..a", "a..", "git-1"])
    assert.equal(badPath(good), undefined, good);
  assert.equal(linkInside("a/b", "../c"), "c");
  for (const target of ["/etc", "../../x", ""]) assert.equal(linkInside("a/b", target), undefined);
});

test("what deserves a second look is named", async () => {
  const named = (path: string, newMode = "100644", oldMode?: string) => [
    ...risksOfName({ path, newMode, oldMode }, false),
  ];
  for (const [path, risk] of [
    [".husky/pre-commit", "hook"],
    ["tools/hooks/post-checkout", "hook"],
    [".gitattributes", "hook"],
    ["fixtures/repo/HEAD", "hook"],
    [".github/workflows/ci.yml", "ci"],
    [".gitlab-ci.yml", "ci"],
    [".envrc", "config"],
    ["sub/mise.toml", "config"],
    [".vscode/tasks.json", "config"],
    [".github/copilot-instructions.md", "config"],
    ["Makefile", "script"],
    ["a/b.SH", "script"],
    ["package.json", "script"],
    ["Cargo.lock", "lockfile"],
    ["a\x1b[2Jb", "odd-name"],
    ["\xe2\x80\xaegnp.exe", "odd-name"],
  ] as const)
    assert.ok(named(path).includes(risk), `${path}: ${named(path)}`);
  assert.deepEqual(named("src/main.c"), []);
  assert.deepEqual(named("tool", "100755", "100644"), ["executable"]);
  assert.deepEqual(named("tool", "100755", "100755"), []);
  assert.ok(risksOfName({ path: "x" }, true).has("ignored"));
  const content = async (...sections: string[]) => {
    const [change] = await parsed(sections);
    assert.ok(change);
    return [...risksOfContent(change)];
  };
  assert.deepEqual(await content(addition("l", "/etc/passwd", "120000")), ["link"]);
  assert.deepEqual(await content(addition("a/l", "../.git/config", "120000")), ["link"]);
  assert.deepEqual(await content(addition("a/l", "../b", "120000")), []);
  assert.deepEqual(await content(addition("x", "if (a\xe2\x80\xae b)")), ["hidden-text"]);
  assert.deepEqual(await content(addition("x", "\x1b]0;title\x07")), ["hidden-text"]);
  assert.deepEqual(await content(addition("x", "#!/bin/sh")), ["script"]);
  assert.deepEqual(await content(addition("x", "plain\ttext")), []);
});

test("when one file cannot be changed none is", async () => {
  const files = Object.fromEntries(Array.from({ length: 12 }, (_, at) => [`d${at % 4}/f${at}`, `${at}\n`]));
  const { root, guest, tree } = await pair(files);
  for (let at = 0; at < 12; at++) {
    if (at % 4 === 3) await unlink(join(guest, `d3/f${at}`));
    else await appendFile(join(guest, `d${at % 4}/f${at}`), "more\n");
  }
  await mkdir(join(guest, "new/deep"), { recursive: true });
  await writeFile(join(guest, "new/deep/file"), "new\n");
  const state = await treeOf(root);
  const { operations, conflicts } = await planAll(root, await changesOf(guest));
  assert.deepEqual(conflicts, []);
  // The last one moves under it.
  const last = operations.findLast(({ after: to, before: from }) => to && from);
  await appendFile(join(root, last?.path ?? ""), "meanwhile\n");
  await assert.rejects(applyAll(tree, operations, never), /changed on the host/);
  await writeFile(join(root, last?.path ?? ""), files[last?.path ?? ""] ?? "");
  assert.equal(await treeOf(root), state);
  assert.deepEqual((await readdir(root)).sort(), [".git", "d0", "d1", "d2", "d3"]);
});

test("an apply that is killed before any of its steps is undone by the next review, also when that is killed before any of its own", async () => {
  const { root, guest, tree } = await pair({
    "d/changed": "1\n",
    "d/tool": "1\n",
    "gone/file": "1\n",
    "was-file": "1\n",
    "was-dir/file": "1\n",
  });
  await appendFile(join(guest, "d/changed"), "2\n");
  await chmod(join(guest, "d/tool"), 0o755);
  for (const name of ["gone", "was-file", "was-dir"]) await rm(join(guest, name), { recursive: true });
  await mkdir(join(guest, "was-file/deep"), { recursive: true });
  await writeFile(join(guest, "was-file/deep/new"), "new\n");
  await writeFile(join(guest, "was-dir"), "file\n");
  await symlink("changed", join(guest, "d/link"));
  const state = await treeOf(root);
  const worker = join(import.meta.dirname, "..", "..", "..", "test", "support", "apply-and-die.ts");
  /** @returns false when it came to its end before the step */
  const killedAt = async (step: number, ...what: string[]): Promise<boolean> => {
    const child = spawn(process.execPath, [worker, root, guest, String(step), ...what], {
      env: { ...process.env, ...env },
      stdio: ["ignore", "ignore", "inherit"],
    });
    const [status, signal] = (await once(child, "exit")) as [number | null, string | null];
    assert.ok(status === 0 || signal === "SIGKILL", `${status} ${signal}`);
    return status !== 0;
  };
  const isAsBefore = async (when: string): Promise<void> => {
    assert.deepEqual((await recover(tree)).foreign, [], when);
    assert.equal(await treeOf(root), state, when);
    assert.deepEqual(
      (await readdir(join(root, ".git"))).filter((name) => name.startsWith("banger")),
      [],
    );
    assert.deepEqual((await readdir(root)).sort(), [".git", "d", "gone", "was-dir", "was-file"], when);
  };
  let steps = 0;
  const isDone = async () =>
    (await readdir(join(root, ".git"), { recursive: true })).some((name) => /^banger-review-.*\/done$/.test(name));
  while ((await killedAt(steps)) && !(await isDone())) await isAsBefore(`killed before step ${steps++}`);
  assert.ok(steps > 20, `${steps} steps`);
  // Killed with nothing left to do but to clear away.
  assert.equal((await recover(tree)).undone, false);
  assert.equal(await treeOf(root), await treeOf(guest));

  // Back, and once more killed near its end; then whoever undoes it is killed, again and again.
  await git(root, "read-tree", "--reset", "-u", state.trim());
  assert.equal(await treeOf(root), state);
  assert.ok(await killedAt(steps - 2));
  for (let step = 0; await killedAt(step, "recover"); step += 2);
  await isAsBefore("recovery was killed");
});

test("what lies in a git folder and looks like a review that was killed changes nothing outside of the repository", async () => {
  const { root, tree } = await pair({ file: "1\n" });
  const outside = join(folder, "not-in-it");
  await mkdir(outside);
  await writeFile(join(outside, "precious"), "precious\n");
  await symlink(outside, join(root, "way-out"));
  const planted = join(root, ".git/banger-review-1-1-00000000");
  const plant = async (journal: unknown): Promise<void> => {
    await mkdir(planted, { recursive: true });
    for (const name of ["old-0", "new-0"]) await writeFile(join(planted, name), "planted\n");
    await writeFile(join(planted, "journal.json"), typeof journal === "string" ? journal : JSON.stringify(journal));
  };
  const { ino: inode } = await lstat(join(outside, "precious"));
  for (const path of [
    "../not-in-it/precious",
    "way-out/precious",
    "way-out/new",
    ".git/hooks/pre-commit",
    "\u012e\u012e\u012fnot-in-it/new",
  ])
    for (const step of [
      { path, had: true },
      { path, had: true, inode },
      { path, had: false, inode },
    ]) {
      await plant({ root: outside, steps: [step], made: ["way-out/made", "../made"] });
      await recover(tree).catch((error: unknown) => {
        assert.ok(error instanceof BangerError && error.code === "WORKSPACE_REFUSED", String(error));
      });
      assert.deepEqual(await readdir(outside), ["precious"]);
      assert.equal(await readFile(join(outside, "precious"), "utf8"), "precious\n");
      await assert.rejects(lstat(join(root, ".git/hooks/pre-commit")), { code: "ENOENT" });
      await rm(planted, { recursive: true, force: true });
    }
  for (const text of ["{", "[]", "null", '{"steps":[{}],"made":[]}', '{"steps":[],"made":[1]}']) {
    await plant(text);
    await assert.rejects(
      recover(tree),
      (error) => error instanceof BangerError && error.code === "WORKSPACE_REFUSED" && /rm -r/.test(error.hint ?? ""),
    );
  }
  await rm(planted, { recursive: true });
});

test("work in submodules that were brought along is in the patch, under their folders", async () => {
  const inner = await pair({ lib: "1\n" });
  const { root, guest, tree } = await pair({ top: "1\n" });
  for (const at of [root, guest]) {
    await git(at, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", inner.root, "vendor/my lib");
    await git(at, "commit", "--quiet", "-m", "submodule");
    await git(at, "update-ref", "refs/banger/base", "HEAD");
    await git(join(at, "vendor/my lib"), "update-ref", "refs/banger/base", "HEAD");
  }
  await appendFile(join(guest, "vendor/my lib/lib"), "2\n");
  await git(join(guest, "vendor/my lib"), "commit", "--quiet", "--all", "-m", "in the guest");
  const changes = await changesOf(guest);
  assert.deepEqual(
    changes.map(({ path }) => path),
    ["vendor/my lib", "vendor/my lib/lib"],
  );
  assert.deepEqual(partsOf(changes[0] as FileChange), [], "another commit of a submodule cannot be applied");
  const { operations } = await planAll(root, changes.slice(1));
  await applyAll(tree, operations, never);
  assert.equal(await readFile(join(root, "vendor/my lib/lib"), "utf8"), "1\n2\n");
});

test("permissions beside the executable bit are the host's own", async () => {
  const { root, guest, tree } = await pair({ a: "1\n", b: "1\n" });
  await chmod(join(root, "a"), 0o640);
  await appendFile(join(guest, "a"), "2\n");
  await chmod(join(guest, "b"), 0o755);
  await symlink("a", join(guest, "l"));
  const { operations } = await planAll(root, await changesOf(guest));
  await chmod(join(root, "b"), 0o600);
  const again = await planAll(root, await changesOf(guest));
  assert.equal(operations.length, 3);
  await applyAll(tree, again.operations, never);
  assert.equal((await lstat(join(root, "a"))).mode & 0o7777, 0o640);
  assert.equal((await lstat(join(root, "b"))).mode & 0o7777, 0o700);
  assert.equal(await readlink(join(root, "l")), "a");
});
