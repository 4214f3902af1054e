/** Commands in a running VM: argv, streams, signals and exit statuses are exact. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { childEnds, outputHolds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;

before(async () => {
  host = await testHost();
  await installFixture(host, [SLIM]);
  const done = await host.banger(
    "vm",
    "run",
    "-d",
    "--name",
    "box",
    "--image",
    SLIM,
    "--memory",
    "1G",
    "--vcpu",
    "2",
    "--env",
    "FROM_VM=yes",
  );
  assert.equal(done.status, 0, done.stderr);
});
after(() => host[Symbol.asyncDispose]());

const exec = (...args: string[]) => host.banger("vm", "exec", "box", ...args);

test("argv reaches the guest as given, never split again", async () => {
  const words = ["a b", "", "$HOME", "'q\"", "*", "line\nbreak", "ü"];
  const done = await exec("--", "printf", "[%s]", ...words);
  assert.equal(done.stdout, words.map((word) => `[${word}]`).join(""));
  assert.equal(done.status, 0);
});

for (const [what, argv, status] of [
  ["the command's own status", ["sh", "-c", "exit 42"], 42],
  ["128 and the signal for a killed command", ["sh", "-c", "kill -9 $$"], 137],
  ["127 for a missing program", ["no-such-program"], 127],
  ["126 for a folder", ["/etc"], 126],
  ["126 for a file that may not be run", ["/etc/passwd"], 126],
] as const) {
  test(`exits with ${what}`, async () => {
    const done = await exec("--", ...argv);
    assert.equal(done.status, status, done.stderr);
    assert.equal(done.stdout, "");
    if (status === 127 || status === 126) assert.match(done.stderr, new RegExp(`banger: ${argv[0]}: `));
  });
}

test("a working folder that is not there is not taken for a missing program", async () => {
  const done = await exec("--cwd", "/no/such", "--", "true");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /\/no\/such/);
});

test("stdout and stderr stay apart", async () => {
  const done = await exec("--", "sh", "-c", "echo out; echo err >&2");
  assert.deepEqual([done.stdout, done.stderr], ["out\n", "err\n"]);
});

test("environment, folder and user are those asked for", async () => {
  const done = await exec(
    "--cwd",
    "/tmp",
    "--env",
    "GREETING=hi there",
    "--user",
    "www-data",
    "--",
    "sh",
    "-c",
    'echo "$GREETING|$FROM_VM|$(pwd)|$(id -un)|$HOME"',
  );
  assert.equal(done.stdout, "hi there|yes|/tmp|www-data|/var/www\n");
});

test("when the guest has no memory left its kernel may end a command, and never the agent", async () => {
  const scores = "cat /proc/self/oom_score_adj /proc/$PPID/oom_score_adj; (exec cat /proc/self/oom_score_adj)";
  for (const user of ["root", "nobody"])
    assert.equal((await exec("--user", user, "--", "sh", "-c", scores)).stdout, "0\n-1000\n0\n");
});

test("an unknown user is an error that names it", async () => {
  const done = await exec("--user", "nobody-such", "--", "true");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /nobody-such/);
});

test("100 MB of binary stdin come back unchanged", async () => {
  const data = Buffer.concat(Array.from({ length: 100 }, () => randomBytes(1_000_000)));
  const done = await host.run(["vm", "exec", "box", "--", "cat"], { input: data, timeout: 120_000 });
  assert.equal(done.status, 0, done.stderr);
  assert.equal(done.stdoutBytes.length, data.length);
  assert.equal(
    createHash("sha256").update(done.stdoutBytes).digest("hex"),
    createHash("sha256").update(data).digest("hex"),
  );
});

test("output that nobody reads any more ends the command: `| head -1`", async () => {
  const child = host.start(["vm", "exec", "box", "--", "sh", "-c", "echo first; exec yes"]);
  child.stdin?.end();
  await outputHolds(child, "first");
  child.stdout?.destroy();
  const { status } = await childEnds(child);
  assert.notEqual(status, null);
  const left = await exec("--", "sh", "-c", "grep -l '^yes' /proc/[0-9]*/cmdline 2>/dev/null | wc -l");
  assert.equal(left.stdout.trim(), "0");
});

test("SIGTERM to the CLI reaches the command", async () => {
  const child = host.start([
    "vm",
    "exec",
    "box",
    "--",
    "sh",
    "-c",
    "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.1; done",
  ]);
  child.stdin?.end();
  await outputHolds(child, "ready");
  const said = outputHolds(child, "got it");
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await said;
  assert.equal(await ended, 7);
});

test("a CLI that is killed leaves no process in the guest", async () => {
  const child = host.start(["vm", "exec", "box", "--", "sh", "-c", "echo $$; exec sleep 4711"]);
  const pid = (await outputHolds(child, /\d+\n/)).trim();
  child.kill("SIGKILL");
  const done = await exec("--", "sh", "-c", `while kill -0 ${pid} 2>/dev/null; do sleep 0.05; done; echo gone`);
  assert.equal(done.stdout, "gone\n");
});

test("a background process does not hold the end of its command", async () => {
  const done = await host.run(["vm", "exec", "box", "--", "sh", "-c", "sleep 600 & echo started"], { timeout: 20_000 });
  assert.equal(done.status, 0);
  assert.equal(done.stdout, "started\n");
});

test("200 commands at once all answer with their own output and status", async () => {
  const children = Array.from({ length: 200 }, (_, index) =>
    exec("--", "sh", "-c", `echo ${index}; exit ${index % 7}`),
  );
  for (const [index, done] of (await Promise.all(children)).entries()) {
    assert.equal(done.stdout, `${index}\n`, done.stderr);
    assert.equal(done.status, index % 7);
  }
});

test("a request over 4 MiB is refused with what to do", async () => {
  const long = "x".repeat(120_000);
  const done = await exec("--", "echo", ...Array.from({ length: 10 }, () => long));
  assert.equal(done.stdout.length, 10 * 120_000 + 10, done.stderr);
});

test("without `--` everything after the name is the command", async () => {
  const done = await host.banger("exec", "box", "ls", "-la", "/etc/hostname");
  assert.match(done.stdout, /^-rw.* \/etc\/hostname\n$/);
});

test("a VM that is not there is named, with the nearest that is", async () => {
  const done = await host.banger("vm", "exec", "bax", "--", "true");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /"bax"[\s\S]*did you mean box/);
});
