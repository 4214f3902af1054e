/** Settings with the real program and daemon: what each comes from, and that a change needs no restart. */
import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { type Host, testHost } from "../support/host.ts";

type Row = { key: string; value: unknown; from: string; line?: number };
let host: Host;
let file: string;

before(async () => {
  host = await testHost("");
  file = join(host.env.XDG_CONFIG_HOME, "banger", "config.toml");
});
beforeEach(() => rm(file, { force: true }));
after(() => host[Symbol.asyncDispose]());

test("`config show` prints each value and where it comes from", async () => {
  await writeFile(file, '# mine\nlog_level = "warn"\n[vm_defaults]\nvcpu = 3\n');
  const rows = await host.json<Row[]>("config", "show");
  const found = (key: string) => rows.find((row) => row.key === key);
  assert.deepEqual(found("log_level"), { key: "log_level", value: "warn", from: "config", line: 2 });
  assert.deepEqual(found("vm_defaults.vcpu"), { key: "vm_defaults.vcpu", value: 3, from: "config", line: 4 });
  assert.equal(found("vm_defaults.memory")?.from, "host");
  assert.deepEqual(found("boot_timeout"), { key: "boot_timeout", value: 120_000, from: "built in" });
  const { stdout } = await host.banger("config", "show");
  assert.match(stdout, /^log_level +warn +line 2$/m);
  assert.match(stdout, /^boot_timeout +2m +built in$/m);
});

test("a file that is not valid is an error with file, line and a suggestion, and exit status 1", async () => {
  await writeFile(file, 'log_level = "info"\n[vm_defaults]\nmemroy = "2G"\n');
  for (const command of [
    ["config", "show"],
    ["vm", "list"],
  ]) {
    const done = await host.banger(...command);
    assert.equal(done.status, 1);
    assert.equal(done.stdout, "");
    assert.equal(
      done.stderr,
      `banger: ${file} line 3: unknown key \`vm_defaults.memroy\`\nhint: did you mean \`memory\`?\n`,
    );
  }
});

test("a change counts from the next command on, in the same daemon", async () => {
  const pid = (await host.json<{ pid: number }>("daemon", "start")).pid;
  const sshConfig = () => readFile(join(host.env.XDG_CONFIG_HOME, "banger", "ssh_config"), "utf8");
  assert.match(await sshConfig(), /IdentityFile ".*\/ssh\/id_ed25519"/);
  await writeFile(file, 'ssh_key_path = "~/.ssh/mine"\n');
  await host.json("vm", "list");
  assert.match(await sshConfig(), new RegExp(`IdentityFile "${host.env.HOME}/.ssh/mine"`));

  // What needs the settings is refused while they are not valid; the rest goes on.
  await writeFile(file, 'vmm = "qmeu"\n');
  assert.deepEqual(await host.json("vm", "list"), []);
  const refused = await host.banger("vm", "create");
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /config\.toml line 1: `vmm`[\s\S]*did you mean "qemu"/);
  assert.match(await sshConfig(), /\.ssh\/mine/);

  await writeFile(file, 'vmm = "firecracker"\nfirecracker_bin = "/no/such/firecracker"\n');
  const firecracker = await host.banger("vm", "create");
  assert.equal(firecracker.status, 1);
  assert.match(firecracker.stderr, /no `\/no\/such\/firecracker`[\s\S]*`vmm = "qemu"`/);

  await writeFile(file, 'qemu_bin = "/no/such/qemu"\n');
  assert.match((await host.banger("vm", "create")).stderr, /`\/no\/such\/qemu` is not installed/);
  assert.match(await sshConfig(), /IdentityFile ".*\/ssh\/id_ed25519"/);
  assert.equal((await host.json<{ pid: number }>("daemon", "status")).pid, pid);
  const log = await readFile(join(host.env.XDG_STATE_HOME, "banger", "daemon.log"), "utf8");
  assert.match(log, /config\.toml has changed and is not valid/);
});
