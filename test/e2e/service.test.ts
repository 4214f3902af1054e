/** The daemon as a systemd user service, by the systemd of a real guest: banger is installed in a VM, and so are its VMs. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { installNested, type Nested } from "../support/nested.ts";

const GOLDEN = "debian-bookworm";
const SLIM = "debian-bookworm-slim";
let host: Host;
let nested: Nested;
const ok = (text: string) => nested.ok(text);
const banger = (words: string) => nested.banger(words);
/** By systemd, as the program takes its time to start in an emulated guest. */
const servicePid = async (): Promise<number> => Number(await ok("systemctl --user show -p MainPID --value bangerd"));

before(async () => {
  host = await testHost(`[vm_defaults]\nvcpu = 1\nmemory = "2G"\nnetwork = "none"\n`);
  await installFixture(host, [GOLDEN, SLIM]);
  // With a network of its own, for packages.
  const up = await host.banger("vm", "run", "-d", "--name", "box", "--nested", "--net", "user", "--image", GOLDEN);
  assert.equal(up.status, 0, up.stderr);
  nested = await installNested(host, "box", SLIM);
});
after(() => host[Symbol.asyncDispose]());

test("without a systemd of the user's it says so, and writes nothing", async () => {
  const done = await nested.script("XDG_RUNTIME_DIR=/run/nobody /opt/banger/bin/banger daemon install");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /no systemd of this user's to talk to[\s\S]*loginctl enable-linger 0/);
  await ok("test ! -e ~/.config/systemd");
});

test("installed, it takes over from the daemon that a command had started, and systemd finds nothing to say against it", async () => {
  await ok("loginctl enable-linger root; systemctl start user@0.service; systemctl --user show -p Version");
  const before = /pid (\d+)/.exec(await banger("daemon start"))?.[1];
  const installed = /bangerd\.service: installed and running, pid (\d+)/.exec(await banger("daemon install"))?.[1];
  assert.ok(before && installed && before !== installed);
  assert.equal(await ok("systemctl --user is-active bangerd; systemctl --user is-enabled bangerd"), "active\nenabled");
  assert.equal(await servicePid(), Number(installed));
  assert.equal(await ok("systemd-analyze verify --user ~/.config/systemd/user/bangerd.service 2>&1"), "");
  assert.equal(await banger("vm run -d --name inner"), "inner");
  // In a control group of its own, under the user's systemd, with limits that the kernel has been told.
  const { pid } = JSON.parse(await banger("vm show inner --json")) as { pid: number };
  const own = await ok(`until grep banger- /proc/${pid}/cgroup; do sleep 0.1; done`);
  const group = /^0::(\/.*\/user@0\.service\/.*\/(banger-[0-9a-f]{8}-\d+\.scope))$/.exec(own);
  const [memory, tasks] = (await ok(`cd /sys/fs/cgroup${group?.[1]}; cat memory.max pids.max`)).split("\n").map(Number);
  assert.ok(memory && memory > 2 ** 28 && memory < 2 ** 32, `${memory}`);
  assert.equal(tasks, 129);
  assert.match(await ok(`systemctl --user status ${group?.[2]}`), /VM inner of banger[\s\S]*-name banger-inner/);
  await banger("vm exec inner -- touch /run/mark");
});

test("a VM lives through a restart of the service, a crash and the end of it", async () => {
  const before = await servicePid();
  await ok("systemctl --user restart bangerd");
  const restarted = await servicePid();
  assert.notEqual(restarted, before);
  await banger("vm exec inner -- ls /run/mark");

  // A daemon that was killed comes back by itself.
  await ok(
    `kill -9 ${restarted}; until systemctl --user show -p MainPID --value bangerd | grep -qvE '^(0|${restarted})$'; do sleep 0.1; done`,
  );
  await ok("until systemctl --user is-active bangerd; do sleep 0.1; done");
  await banger("vm exec inner -- ls /run/mark");

  await ok("systemctl --user stop bangerd");
  assert.equal(await servicePid(), 0);
  assert.match(await ok("pgrep -af qemu"), /-name banger-inner/);
});

test("a command that finds no daemon starts the service, and finds the VM", async () => {
  await banger("vm exec inner -- ls /run/mark");
  assert.ok((await servicePid()) > 0);
});

test("systemd-resolved, told what doctor says, leads the whole machine to VMs by name", async () => {
  await ok(
    "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends systemd-resolved",
  );
  const { address } = JSON.parse(await banger("vm show inner --json")) as { address: string };
  const { stdout } = await nested.script("banger doctor --json");
  const checks = JSON.parse(stdout) as { name: string; message: string; hint?: string }[];
  const names = checks.find(({ name }) => name === "names");
  assert.match(names?.message ?? "", /this machine's resolver \(systemd-resolved\) does not ask it/);
  await ok(names?.hint ?? "false");
  const escaped = address.replaceAll(".", "\\.");
  assert.match(await ok("resolvectl query inner.vm"), new RegExp(`inner\\.vm: ${escaped}`));
  assert.equal((await nested.script("getent hosts nobody.vm")).status, 2);
  await banger("vm publish inner 8000");
  // Nobody listens in the guest: what counts is whom curl came to.
  const visit = await nested.script("curl -sv http://inner.vm:8000/ 2>&1");
  assert.match(visit.stdout, new RegExp(`Connected to inner\\.vm \\(${escaped}\\) port 8000`));
});

test("a config that is not valid is told by the command, and systemd does not try again and again", async () => {
  await banger("daemon stop");
  await ok("cd ~/.config/banger; cp config.toml kept; echo 'vmm = 1' > config.toml");
  const done = await nested.script("/opt/banger/bin/banger vm list");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /config\.toml line 1: `vmm`/);
  assert.equal(await ok("systemctl --user show -p NRestarts --value bangerd"), "0");
  await ok("cd ~/.config/banger; mv kept config.toml");
});

test("a unit of somebody else's is left alone; ours goes, VMs stay, and commands start the daemon again", async () => {
  await banger("vm list");
  assert.match(await banger("daemon uninstall"), /stopped and taken away/);
  await ok("test ! -e ~/.config/systemd/user/bangerd.service");
  assert.match(await banger("daemon uninstall"), /was not installed/);
  await banger("vm exec inner -- ls /run/mark");
  assert.equal(await servicePid(), 0);
  await ok("echo '[Service]' > ~/.config/systemd/user/bangerd.service");
  for (const verb of ["install", "uninstall"]) {
    const done = await nested.script(`/opt/banger/bin/banger daemon ${verb}`);
    assert.equal(done.status, 1);
    assert.match(done.stderr, /was not written by banger/);
  }
  assert.equal(await ok("cat ~/.config/systemd/user/bangerd.service"), "[Service]");
});
