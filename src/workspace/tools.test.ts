import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, watch, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { failureIn, pinsIn, type SetUp, setUpProgram, wentWell } from "./tools.ts";

test("files that pin tools count at the root, and in the folders down to where work begins", () => {
  const paths = [
    "mise.toml",
    "app/.nvmrc",
    "app/web/.tool-versions",
    "other/go.mod",
    "docs/mise.toml.md",
    ".config/mise/config.toml",
  ];
  assert.deepEqual(pinsIn(paths, ""), ["mise.toml", ".config/mise/config.toml"]);
  assert.deepEqual(pinsIn(paths, "app"), ["mise.toml", "app/.nvmrc", ".config/mise/config.toml"]);
  assert.deepEqual(pinsIn(paths, "app/web").length, 4);
  assert.deepEqual(pinsIn(["src/main.c"], "src"), []);
});

test("of what mise says the error is told, in one line", () => {
  const said = "mise by @jdx\nmise WARN  a\nmise ERROR Failed to install node@1: no network\nmise ERROR Version: 1\n";
  assert.equal(failureIn(said), "Failed to install node@1: no network");
  assert.equal(failureIn("sh: boom\n\n"), "sh: boom");
  assert.equal(failureIn(""), "mise failed");
});

test("mise is told of the repository once, installs before or behind, and other lines run after it whatever became of it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "banger-tools-"));
  try {
    const bin = join(folder, "bin");
    const path = join(folder, "my repo");
    const log = join(folder, "log/tools.log");
    const calls = join(folder, "calls");
    for (const name of [bin, path, join(folder, "home")]) await mkdir(name);
    // As far as the script goes: settings are kept where mise keeps them, and an install works where there is no `broken`.
    const mise = `#!/bin/sh
echo "$PWD: $*" >>"${calls}"
if [ "$1" = settings ]; then mkdir -p "$HOME/.config/mise"; echo "$3 = \\"$4\\"" >>"$HOME/.config/mise/config.toml"; exit; fi
echo working; [ ! -e broken ] || { echo "mise ERROR broken"; exit 1; }
`;
    const env = { PATH: `${bin}:/usr/bin:/bin`, HOME: join(folder, "home") };
    const install = (change: Partial<SetUp> = {}) => {
      const [program = "", ...args] = setUpProgram({
        path,
        log,
        behind: false,
        pins: true,
        tools: [],
        key: "k",
        commands: [],
        ...change,
      });
      return new Promise<{ status: number; stderr: string }>((resolve) => {
        execFile(program, args, { env }, (error, _stdout, stderr) =>
          resolve({ status: Number(error?.code ?? 0), stderr }),
        );
      });
    };
    const said = async () => (await readFile(calls, "utf8")).trim().split("\n");
    const none = await install();
    assert.deepEqual([none.status, failureIn(none.stderr)], [90, "the image has no mise"]);
    await writeFile(join(bin, "mise"), mise, { mode: 0o755 });
    assert.equal((await install()).status, 0);
    assert.match(
      (await said()).join("\n"),
      /settings set idiomatic.*node,[\s\S]*settings add trusted_config_paths .*my repo\n.*my repo: install$/,
    );
    assert.equal((await said()).length, 3);
    await install();
    assert.equal((await said()).length, 4, "settings are made once");
    await writeFile(join(path, "broken"), "");
    const failed = await install();
    assert.deepEqual([failed.status, failureIn(failed.stderr)], [1, "broken"]);
    const ran = await install({ pins: false, commands: ["pwd >ran", "exit 3", "echo it\\'s >>ran"] });
    assert.deepEqual([ran.status, failureIn(ran.stderr)], [3, "status 3 of: exit 3"]);
    assert.equal(await readFile(join(path, "ran"), "utf8"), `${path}\nit's\n`);
    assert.equal((await said()).length, 5, "mise was not asked");

    await rm(join(path, "broken"));
    await rm(`${log}.status`);
    await install({ tools: ["node@20"] });
    assert.match((await said()).at(-1) ?? "", /my repo: use --global node@20$/);
    await rm(`${log}.status`);
    const changes = watch(join(folder, "log"));
    const [program = "", ...args] = setUpProgram({
      path,
      log,
      behind: true,
      pins: true,
      tools: [],
      key: "k",
      commands: [],
    });
    const child = spawn(program, args, { env, stdio: "ignore" });
    assert.equal((await once(child, "exit"))[0], 0);
    const status = async () => await readFile(`${log}.status`, "utf8").catch(() => "");
    if ((await status()) === "") for await (const _change of changes) if ((await status()) !== "") break;
    assert.equal((await status()).trim(), wentWell("k"));
    assert.equal(await readFile(log, "utf8"), "working\n");
  } finally {
    await rm(folder, { recursive: true });
  }
});
