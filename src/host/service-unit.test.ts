import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { unitText } from "./service-unit.ts";

test("systemd finds nothing to say against the unit, whatever the folders are called", async () => {
  const folder = await mkdtemp(join(tmpdir(), "banger-unit-"));
  try {
    const odd = `/tmp/a b/50% "of" $HOME\\n`;
    const file = join(folder, "bangerd.service");
    await writeFile(file, unitText(["/bin/true", odd], { XDG_STATE_HOME: odd, XDG_CONFIG_HOME: "/x" }));
    const { stdout, stderr } = await promisify(execFile)("systemd-analyze", ["verify", "--user", file], {
      env: { ...process.env, XDG_RUNTIME_DIR: folder },
    });
    assert.equal(stdout + stderr, "");
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("an unreadable word is a finding: the check can fail", async () => {
  const folder = await mkdtemp(join(tmpdir(), "banger-unit-"));
  try {
    const file = join(folder, "bangerd.service");
    await writeFile(file, unitText(["/no/such/program"], {}));
    const verify = promisify(execFile)("systemd-analyze", ["verify", "--user", file], {
      env: { ...process.env, XDG_RUNTIME_DIR: folder },
    });
    await assert.rejects(verify, /no\/such\/program/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("only what is set is handed on", () => {
  assert.doesNotMatch(unitText(["/bin/true"], {}), /Environment/);
  assert.match(unitText(["/bin/true"], { XDG_STATE_HOME: "/s", HOME: "/h" }), /^Environment="XDG_STATE_HOME=\/s"\n#/m);
});
