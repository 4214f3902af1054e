/** A repository in a VM: brought in, brought again, and what must not happen. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { appendFile, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { installFixture } from "../support/fixture.ts";
import { type Done, finish, type Host, testHost } from "../support/host.ts";
import { traceOf } from "../support/repositories.ts";
import { startInTerminal } from "../support/terminal.ts";
import { outputHolds } from "../support/wait.ts";

/** The one that has git. */
const IMAGE = "debian-bookworm";
const execFileAsync = promisify(execFile);
let host: Host;
let repo: string;

const git = async (...args: string[]): Promise<string> =>
  (await execFileAsync("git", args, { cwd: repo, env: { ...process.env, ...host.env, GIT_CONFIG_NOSYSTEM: "1" } }))
    .stdout;
const good = async (done: Promise<Done>): Promise<Done> => {
  const ended = await done;
  assert.equal(ended.status, 0, ended.stderr);
  return ended;
};
const inGuest = async (script: string): Promise<string> =>
  (await good(host.banger("vm", "exec", "box", "--", "sh", "-c", script))).stdout;
const prepare = (...args: string[]) => host.banger("vm", "workspace", "prepare", "box", repo, ...args);

before(async () => {
  host = await testHost(`default_image_name = "${IMAGE}"\n`);
  await installFixture(host, [IMAGE]);
  repo = join(host.env.HOME, "my repo");
  await mkdir(join(repo, "sub"), { recursive: true });
  await git("init", "--quiet", "--initial-branch=main");
  await git("config", "user.name", "Dev");
  await git("config", "user.email", "dev@example.org");
  await writeFile(join(repo, ".gitignore"), ".env\n");
  await writeFile(join(repo, "sub/a"), "a\n");
  await writeFile(join(repo, "b"), "b\n");
  await writeFile(join(repo, "c"), "c\n");
  await symlink("sub/a", join(repo, "link"));
  await writeFile(Buffer.concat([Buffer.from(`${repo}/bytes-`), Buffer.from([0xff])]), "bytes\n");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  await writeFile(join(repo, ".env"), "SECRET=1\n");
  await writeFile(join(repo, "b"), "staged\n");
  await git("add", "b");
  await appendFile(join(repo, "b"), "and not staged\n");
  await rm(join(repo, "c"));
});
after(() => host[Symbol.asyncDispose]());

test("what cannot be brought is refused before there is a VM, and a dry run makes none", async () => {
  const bare = join(host.env.HOME, "bare");
  await git("clone", "--quiet", "--bare", repo, bare);
  for (const path of [bare, join(host.env.HOME, "missing"), host.env.HOME, "make"]) {
    const done = await host.banger("vm", "run", path);
    assert.equal(done.status, 1, done.stderr);
    assert.match(done.stderr, /bare|there is no|not in a git repository|nothing in/);
  }
  for (const words of [
    ["--branch", "x"],
    ["./x", "--mode", "all"],
  ])
    assert.equal((await host.banger("vm", "run", ...words)).status, 2);
  const dry = await good(host.banger("vm", "run", repo, "--dry-run"));
  assert.deepEqual(dry.stdout.trim().split("\n").slice(0, 2), [".gitignore", "b"]);
  assert.doesNotMatch(dry.stdout, /\.env|^c$/m);
  assert.deepEqual(await host.json("vm", "list"), []);
});

test("`vm run PATH -- COMMAND` runs in the repository, forwards the status and leaves nothing", async () => {
  const script = "pwd; git status --porcelain; cat b; git log --format=%s%n%an; exit 7";
  const done = await host.run([
    "vm",
    "run",
    "--rm",
    join(repo, "sub"),
    "--cwd",
    "/root/my repo",
    "--",
    "sh",
    "-c",
    script,
  ]);
  assert.equal(done.status, 7, done.stderr);
  assert.equal(done.stdout, "/root/my repo\nMM b\n D c\nstaged\nand not staged\nfirst\nDev\n");
  assert.deepEqual(await host.json("vm", "list"), []);
  assert.deepEqual(await readdir(join(host.env.XDG_CACHE_HOME, "banger", "workspaces")), []);
});

test("a command that is ended while its VM boots or its repository travels takes the VM with it, and leaves the repository as it was", async () => {
  const large = join(host.env.HOME, "large");
  await mkdir(large);
  await execFileAsync("git", ["init", "--quiet", large]);
  await execFileAsync("dd", ["if=/dev/urandom", `of=${large}/f`, "bs=1M", "count=200"]);
  await execFileAsync("git", ["-C", large, "add", "f"]);
  const trace = await traceOf(large);
  const changes = host.start(["vm", "list", "--watch"]);
  for (const [stage, signal, status] of [
    [/workspace: /, "SIGINT", 130],
    [/workspace: /, "SIGKILL", null],
    [/boot: /, "SIGKILL", null],
  ] as const) {
    const child = host.start(["vm", "run", large, "--", "true"]);
    await outputHolds(child, stage, 180_000);
    const deleted = outputHolds(changes, /deleted/);
    child.kill(signal);
    const done = await finish(child);
    assert.equal(done.status, status, done.stderr);
    await deleted;
    assert.deepEqual(await host.json("vm", "list"), []);
  }
  changes.kill();
  assert.deepEqual(await traceOf(large), trace);
  await rm(large, { recursive: true });
});

test("shells and commands begin in the repository of a VM that goes on, and a second prepare brings what has changed", async () => {
  await good(host.banger("vm", "run", "-d", "--name", "box", repo));
  assert.equal(
    await inGuest("pwd; test ! -e .env && git fsck --no-dangling 2>&1; git diff refs/banger/base"),
    "/root/my repo\n",
  );
  assert.equal((await good(host.banger("vm", "exec", "box", "--cwd", "/", "--", "pwd"))).stdout, "/\n");
  assert.equal((await good(host.banger("vm", "exec", "box", "--user", "nobody", "--", "pwd"))).stdout, "/\n");
  assert.equal((await host.json<{ workspace: { path: string } }>("vm", "show", "box")).workspace.path, "/root/my repo");

  await inGuest("echo mine > mine; echo kept >> .gitignore");
  await writeFile(join(repo, "sub/a"), "from the host\n");
  await git("rm", "--quiet", "--cached", "c");
  const second = await good(prepare());
  assert.match(second.stdout, /1 of \d+ files sent/);
  assert.equal(await inGuest("cat sub/a mine; tail -1 .gitignore"), "from the host\nmine\nkept\n");

  await writeFile(join(repo, ".gitignore"), ".env\n*.o\n");
  const refused = await prepare();
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /\.gitignore/);
  assert.equal(await inGuest("tail -1 .gitignore"), "kept\n");
  await good(prepare("--force"));
  assert.equal(await inGuest("tail -1 .gitignore"), "*.o\n");

  await inGuest("git commit --quiet --all -m 'in the guest'");
  await writeFile(join(repo, "sub/a"), "once more\n");
  assert.match((await prepare()).stderr, /commits on main/);
  await good(prepare("--force", "--branch", "other", "--readonly"));
  assert.equal(await inGuest("git branch --show-current; touch x 2>/dev/null || echo read-only"), "other\nread-only\n");
  await good(prepare("--branch", "other"));
  await inGuest("printf 'new\\0' > x; git commit --quiet --allow-empty -m more; echo tail >> b");
  const status = await inGuest("git status --porcelain");
  const patch = join(host.env.HOME, "work.patch");
  await good(host.banger("vm", "workspace", "export", "box", "-o", patch));
  await git("apply", "--binary", patch);
  assert.equal(await readFile(join(repo, "x"), "latin1"), "new\0");
  assert.equal(await readFile(join(repo, "b"), "utf8"), "staged\nand not staged\ntail\n");
  assert.equal(await inGuest("git status --porcelain; ls .git | grep banger-export || :"), status);
  const commits = await good(host.banger("vm", "workspace", "export", "box", "--format", "commits"));
  assert.match(commits.stdout, /^From [0-9a-f]{40}/);
  assert.match(commits.stderr, /[1-9]\d* changed files in the VM are not committed/);
  assert.match((await host.banger("vm", "workspace", "export", "box", "--base", "nope")).stderr, /no commit "nope"/);
});

test("a patch of files that a program goes on writing says so; of what stands still it is the state, commits included", async () => {
  // Each pair has one number, written and now and then committed by turns.
  const writer = `mkfifo /tmp/begun; cd '/root/my repo'; setsid sh -c 'n=1000; while :; do n=$((n+1)); echo $n >left; echo $n >right; [ $n != 1003 ] || echo go >/tmp/begun; [ $((n % 200)) != 0 ] || git commit --quiet --all -m $n; done' >/dev/null 2>&1 & echo $! >/tmp/writer; read go </tmp/begun`;
  await inGuest(writer);
  const exportNow = () => good(host.banger("vm", "workspace", "export", "box"));
  assert.match((await exportNow()).stderr, /^note: files of VM box went on changing while they were read/m);
  await inGuest("kill -STOP -$(cat /tmp/writer)");
  const { stdout, stderr } = await exportNow();
  assert.equal(stderr, "");
  // It may have been stopped between the two, or where it had emptied a file and not written yet.
  const lines = (await inGuest("cat left right")).match(/^1\d{3,}$/gm) ?? [];
  assert.deepEqual(
    stdout.match(/^\+1\d{3,}$/gm) ?? [],
    lines.map((line) => `+${line}`),
  );
  await inGuest(
    "kill -KILL -$(cat /tmp/writer); rm -f left right .git/index.lock; git commit --quiet --all --allow-empty -m over",
  );
});

test("a review shows the work of the VM on a terminal, and applies what is accepted", async () => {
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "level");
  const moved = await good(host.banger("vm", "exec", "box", "--", "pwd"));
  assert.match(
    moved.stderr,
    /^note: .*my repo has moved on since it was brought in .*: banger vm workspace prepare box .*\n$/,
  );
  assert.equal(moved.stdout, "/root/my repo\n");
  await inGuest("git reset --quiet --hard refs/banger/base; git clean -fdq");
  await good(prepare("--force", "--branch", "main"));
  assert.equal((await good(host.banger("vm", "exec", "box", "--", "true"))).stderr, "");
  await inGuest("echo reviewed >> sub/a; printf '#!/bin/sh\\n' > go; chmod +x go; rm b");
  const stat = await good(host.banger("vm", "workspace", "review", "box", "--stat"));
  assert.match(stat.stdout, /^A +\+1 +script,executable +go\n(?:.*\n)*M +\+1 +sub\/a$/m);
  await using terminal = await startInTerminal(host, ["vm", "workspace", "review", "box"]);
  await terminal.shows("3 files, 1 with a risk, 0 accepted   box");
  terminal.type("\x1b[Fa");
  await terminal.shows("[+] M");
  terminal.type("wy");
  assert.deepEqual(await terminal.end(), { status: 0, signal: null, modes: terminal.before });
  assert.match(terminal.output(), /1 file changed in/);
  assert.equal(await git("status", "--porcelain"), " M sub/a\n");
});

test("tools that the repository pins are installed in the VM and are on PATH; what fails is one line", async () => {
  // A tool of this test's own, for the real mise: nothing need be reached for it.
  const install =
    'mkdir -p "$ASDF_INSTALL_PATH/bin"; printf "#!/bin/sh\\necho a tool\\n" > "$ASDF_INSTALL_PATH/bin/dummy"; chmod +x "$ASDF_INSTALL_PATH/bin/dummy"';
  await good(
    host.run(["vm", "exec", "box", "--", "sh", "-s"], {
      input: `set -e; mkdir -p /root/.local/share/mise/plugins/dummy/bin; cd /root/.local/share/mise/plugins/dummy/bin
printf '#!/bin/sh\\necho 1.0\\n' > list-all
cat > install <<'END'
#!/bin/sh
${install}
END
chmod +x list-all install
`,
    }),
  );
  await writeFile(join(repo, "mise.toml"), '[tools]\ndummy = "1.0"\n');
  await git("add", "mise.toml");
  const first = await good(prepare());
  assert.doesNotMatch(first.stderr, /not installed/);
  assert.equal((await good(host.banger("vm", "exec", "box", "--", "dummy"))).stdout, "a tool\n");
  await writeFile(join(repo, "mise.toml"), '[tools]\ndummy = "1.0"\nnode = "0.0.0-none"\n');
  await good(prepare("--no-bootstrap"));
  const failed = await good(prepare());
  assert.match(
    failed.stderr,
    /^note: tools were not installed: .*; the log: banger vm exec box -- cat '\/var\/log\/banger\/tools-my repo\.log'$/m,
  );
  assert.match(
    (await good(host.banger("vm", "exec", "box", "--", "cat", "/var/log/banger/tools-my repo.log"))).stdout,
    /ERROR/,
  );
});

test("a clone of a server behind ssh comes with its origin, and work done in the VM goes back there by way of the host", async () => {
  // The server is the guest's own sshd, with a user who may do nothing but git; the way there is the user's setting, not the repository's.
  await inGuest(`useradd --create-home --shell /usr/bin/git-shell --password '*' git
    install -d -m 700 -o git -g git /home/git/.ssh
    install -m 600 -o git -g git /root/.ssh/authorized_keys /home/git/.ssh/authorized_keys
    git init --quiet --bare --initial-branch=main /home/git/app.git
    git -C /home/git/app.git config uploadpack.allowFilter true
    git -C /home/git/app.git config uploadpack.allowAnySHA1InWant true
    chown -R git: /home/git/app.git`);
  const config = join(host.env.XDG_CONFIG_HOME, "banger", "ssh_config");
  await git("config", "--global", "core.sshCommand", `ssh -F '${config}'`);
  await git("config", "--global", "user.name", "Dev");
  await git("config", "--global", "user.email", "dev@example.org");
  const url = "ssh://git@box.vm/home/git/app.git";
  const first = join(host.env.HOME, "first");
  await mkdir(first);
  await git("-C", first, "init", "--quiet", "--initial-branch=main");
  for (const text of ["one\n", "two\n"]) {
    await writeFile(join(first, "file"), text);
    await git("-C", first, "add", "file");
    await git("-C", first, "commit", "--quiet", "-m", text.trim());
  }
  await git("-C", first, "push", "--quiet", url, "main");
  const app = join(host.env.HOME, "app");
  await git("clone", "--quiet", "--filter=blob:none", url, app);
  const brought = await good(host.banger("vm", "workspace", "prepare", "box", app));
  assert.match(brought.stderr, /partial clone/);
  // What it lacks of an older commit comes from the server.
  const old = await good(host.banger("vm", "workspace", "prepare", "box", app, "--from", "HEAD~1", "--dry-run"));
  assert.equal(old.stdout, "file\n");

  const work = `set -e; test "$(git remote get-url origin)" = ${url}
    git checkout --quiet -b topic; printf 'three\\r\\n' > file; git mv file 'moved file'; git commit --quiet -am '[app] three'
    printf 'open\\0' > open`;
  await inGuest(work);
  const commits = await good(host.banger("vm", "workspace", "export", "box", "--format", "commits"));
  assert.match(commits.stderr, /1 changed files .* not committed/);
  const mailbox = join(host.env.HOME, "commits");
  await writeFile(mailbox, commits.stdoutBytes);
  await git("-C", app, "checkout", "--quiet", "-b", "topic");
  await git("-C", app, "am", "--quiet", "--keep-cr", "--keep-non-patch", mailbox);
  await good(host.banger("vm", "workspace", "review", "box", "--accept", "."));
  assert.equal(await git("-C", app, "status", "--porcelain"), "?? open\n");
  assert.equal(await git("-C", app, "log", "-1", "--format=%s"), "[app] three\n");
  await git("-C", app, "push", "--quiet", "origin", "topic");
  assert.equal(
    (await inGuest("git -C /home/git/app.git -c safe.directory='*' show 'topic:moved file'")).trim(),
    "three",
  );
});

test("a prepare that is killed again and again is made good by the next one, and what the guest has put into its index stays there", async () => {
  const cut = join(host.env.HOME, "cut");
  await mkdir(cut);
  await git("-C", cut, "init", "--quiet", "--initial-branch=main");
  await writeFile(join(cut, "small"), "small\n");
  await execFileAsync("dd", ["if=/dev/urandom", `of=${cut}/large`, "bs=1M", "count=100"]);
  await git("-C", cut, "add", "--all");
  await git("-C", cut, "commit", "--quiet", "-m", "first");
  const records = "/var/lib/banger/workspaces";
  const told = `stat -c %y ${records}/cut.arriving.json 2>/dev/null || true`;
  for (let turn = 0; turn < 2; turn++) {
    const before = (await inGuest(told)).trim();
    const child = host.start(["vm", "workspace", "prepare", "box", cut]);
    // Written in the guest before the first file is.
    await inGuest(`until [ -e ${records}/cut.json.gz ] || [ "$(${told})" != '${before}' ]; do sleep 0.05; done`);
    child.kill("SIGKILL");
    await finish(child);
    if (turn === 0) await git("-C", cut, "mv", "small", "moved");
  }
  await good(host.banger("vm", "workspace", "prepare", "box", cut));
  const size = "git status --porcelain; stat -c %s large; ls";
  assert.equal(await inGuest(size), `R  small -> moved\n${100 * 2 ** 20}\nlarge\nmoved\n`);
  await inGuest("echo new > new; git add new");
  await appendFile(join(cut, "moved"), "edited\n");
  const second = host.start(["vm", "workspace", "prepare", "box", cut]);
  assert.match((await good(finish(second))).stdout, /1 of 2 files sent/);
  assert.equal(await inGuest("git status --porcelain"), "RM small -> moved\nA  new\n");
});
