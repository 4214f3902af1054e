/** Completion as the shells themselves do it: real bash, zsh and fish, which ask the real program. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { bangerBinary, type Host, testHost } from "../support/host.ts";
import { recordVms } from "../support/recorded-vms.ts";
import { startInTerminal } from "../support/terminal.ts";

let host: Host;
/** A host without a daemon. */
let idle: Host;
const path = `${dirname(bangerBinary)}:${process.env.PATH}`;

before(async () => {
  host = await testHost();
  idle = await testHost();
  await recordVms(host, ["box", "bold-fox", "zebra"]);
  assert.equal((await host.banger("daemon", "start")).status, 0);
  await mkdir(join(host.env.HOME, "files", "folder"), { recursive: true });
  await writeFile(join(host.env.HOME, "files", "note.txt"), "");
});
after(async () => {
  await host[Symbol.asyncDispose]();
  await idle[Symbol.asyncDispose]();
});

type Asked = (line: string, where?: Host) => Promise<string[]>;
const sorted = (lines: string): string[] =>
  lines
    .split("\n")
    .filter((line) => line !== "")
    .sort();

const runIn = async (where: Host, program: string, ...args: string[]): Promise<string> => {
  const env = { ...process.env, ...where.env, PATH: path, TERM: "dumb" };
  return (await promisify(execFile)(program, args, { env, cwd: join(host.env.HOME, "files") })).stdout;
};

/** As readline does: the line cut at its word breaks, the function called, its answers taken. */
const bash: Asked = async (line, where = host) =>
  sorted(
    await runIn(
      where,
      "bash",
      "--norc",
      "-c",
      `source <(banger completion bash)
       compopt() { :; }
       mapfile -t COMP_WORDS < <(grep -oE '[=:]+|[^ =:]+' <<<"$1")
       if [[ $1 == *' ' || $1 == *[=:] ]]; then COMP_WORDS+=(""); fi
       COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
       _banger
       printf '%s\\n' "\${COMPREPLY[@]}"`,
      "bash",
      line,
    ),
  );

const fish: Asked = async (line, where = host) =>
  sorted(
    await runIn(
      where,
      "fish",
      "--no-config",
      "-c",
      "banger completion fish | source; complete -C $argv[1] | string replace -r '\\t.*' ''; true",
      line,
    ),
  );

const everywhere: [name: string, ask: Asked][] = [
  ["bash", bash],
  ["fish", fish],
];

for (const [shell, ask] of everywhere) {
  describe(shell, () => {
    const cases: [line: string, expected: string[]][] = [
      ["banger vm star", ["start"]],
      ["banger vm st", ["start", "stats", "stop"]],
      ["banger doc", ["doctor"]],
      ["banger completion ", ["bash", "fish", "zsh"]],
      ["banger vm stop ", ["bold-fox", "box", "zebra"]],
      ["banger stop bo", ["bold-fox", "box"]],
      ["banger vm stop box bo", ["bold-fox"]],
      ["banger vm run --vc", ["--vcpu"]],
      ["banger vm run --net ", ["learn", "none", "policy", "user"]],
      ["banger vm run --image debian-bookworm-", ["debian-bookworm-slim"]],
      ["banger kernel pull debian-bookworm-c", ["debian-bookworm-cloud"]],
      ["banger vm kill -s QU", ["QUIT"]],
      ["banger help vm resta", ["restart"]],
      ["banger vm show box ", []],
      ["banger vm exec box -- l", []],
      ["banger nosuch ", []],
      ["banger vm nosuch ", []],
      ["banger --json vm stop z", ["zebra"]],
    ];
    for (const [line, expected] of cases) test(line, async () => assert.deepEqual(await ask(line), expected));

    test("files of the host and VMs, where both may stand", async () => {
      const vms = await ask("banger vm cp bo");
      assert.deepEqual(vms, ["bold-fox:", "box:"]);
      assert.deepEqual(
        (await ask("banger vm cp no")).map((name) => name.replace(/\/$/, "")),
        ["note.txt"],
      );
    });

    test("without a daemon commands are completed, names are not, and none is started", async () => {
      assert.deepEqual(await ask("banger vm stop ", idle), []);
      assert.deepEqual(await ask("banger vm star", idle), ["start"]);
      assert.deepEqual(await readdir(idle.env.XDG_STATE_HOME), []);
      assert.deepEqual(await readdir(idle.env.XDG_RUNTIME_DIR), []);
    });
  });
}

test("bash takes back only what follows `=`, at which it cuts words", async () => {
  assert.deepEqual(await bash("banger vm run --net=n"), ["none"]);
  assert.deepEqual(await bash("banger vm run --image=debian-bookworm-s"), ["debian-bookworm-slim"]);
});

test("other shells get the whole word", async () => {
  assert.deepEqual(await fish("banger vm run --net=n"), ["--net=none"]);
});

test("a key pressed in a real bash and a real zsh", async () => {
  const inShell = async (program: string, args: string[], load: string) => {
    await using terminal = await startInTerminal(host, args, {
      program,
      env: { PATH: path, HISTFILE: "" },
    });
    await terminal.shows(/[#$%] /);
    terminal.type(`PS1='ready> '; ${load}; echo lo''aded\r`);
    await terminal.shows("loaded");
    await terminal.shows("ready> ");
    terminal.type("banger vm show zeb\t");
    await terminal.shows("zebra");
    // A line that is whole runs.
    terminal.type("\r");
    await terminal.shows(/state: +stopped/);
    terminal.type("banger vm cp ze\t");
    await terminal.shows("zebra:");
    // Not Ctrl-C: a shell that is just back from a completion may miss it.
    terminal.type("\x15\r");
    await terminal.shows("ready> ");
    terminal.type("exit\r");
    await terminal.end();
  };
  await inShell("bash", ["--norc", "--noprofile", "-i"], "source <(banger completion bash)");
  await inShell("zsh", ["-f", "-i"], "autoload -U compinit; compinit -u -D; source <(banger completion zsh)");
});

test("descriptions reach the shells that show them, control characters do not", async () => {
  const { stdout, stderr, status } = await host.banger("complete", "zsh", "2", "--", "banger", "stop", "");
  assert.deepEqual([status, stderr], [0, ""]);
  assert.match(stdout, /^\nbox\tstopped, .*\nbold-fox\tstopped/);
  const help = await host.banger("complete", "fish", "1", "--", "banger", "doc");
  assert.equal(help.stdout, "\ndoctor\tcheck what banger needs on this machine\n");
});

test("the scripts are what the shells take without a word", async () => {
  for (const [shell, args] of [
    ["bash", ["-n"]],
    ["zsh", ["-n"]],
    ["fish", ["--no-execute"]],
  ] as const) {
    const file = join(host.env.HOME, `completion.${shell}`);
    await writeFile(file, (await host.banger("completion", shell)).stdout);
    const { stderr } = await promisify(execFile)(shell, [...args, file]);
    assert.equal(stderr, "");
  }
  const wrong = await host.banger("completion", "bsh");
  assert.equal(wrong.status, 2);
  assert.match(wrong.stderr, /did you mean `bash`/);
});
