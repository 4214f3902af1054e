/** The daemon as a systemd user service, by the systemd of a real guest: banger is installed in a VM, and its service lives there. */
import assert from "node:assert/strict";
import { readdir, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { installFixture } from "../support/fixture.ts";
import { bangerBinary, type Done, type Host, testHost } from "../support/host.ts";

const GOLDEN = "debian-bookworm";
let host: Host;

/** A script in a session of root's in the guest, with its user's systemd. */
const inGuest = (script: string): Promise<Done> =>
  host.run(["exec", "box", "-e", "XDG_RUNTIME_DIR=/run/user/0", "--", "bash", "-ec", script], { timeout: 240_000 });
const ok = async (script: string): Promise<string> => {
  const done = await inGuest(script);
  assert.equal(done.status, 0, `${script}\n${done.stdout}${done.stderr}`);
  return done.stdout.trim();
};
const banger = (words: string) => ok(`/opt/banger/bin/banger ${words}`);
/** By systemd, as the program takes its time to start in an emulated guest. */
const servicePid = async (): Promise<number> => Number(await ok("systemctl --user show -p MainPID --value bangerd"));

before(async () => {
  host = await testHost(`[vm_defaults]\nvcpu = 2\nmemory = "1G"\nnetwork = "none"\n`);
  await installFixture(host, [GOLDEN]);
  const up = await host.banger("vm", "run", "-d", "--name", "box", "--image", GOLDEN);
  assert.equal(up.status, 0, up.stderr);
  const build = join(dirname(bangerBinary), "..");
  await ok("mkdir -p /opt/banger/lib /opt/banger/bin");
  const copy = async (...paths: string[]) => {
    const done = await host.banger("vm", "cp", ...paths);
    assert.equal(done.status, 0, done.stderr);
  };
  const bundles = (await readdir(join(build, "lib"))).filter((name) => name.endsWith(".cjs"));
  const lib = [...bundles, "catalog", "cache"].map((name) => join(build, "lib", name));
  await copy(...lib, "box:/opt/banger/lib");
  await copy(await realpath(join(build, "lib", "node")), "box:/opt/banger/lib/node");
  await copy(
    ...["banger", "bangerd", "banger-vsock-agent"].map((name) => join(build, "bin", name)),
    "box:/opt/banger/bin",
  );
});
after(() => host[Symbol.asyncDispose]());

test("without a systemd of the user's it says so, and writes nothing", async () => {
  const done = await inGuest("XDG_RUNTIME_DIR=/run/nobody /opt/banger/bin/banger daemon install");
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
});

test("what the daemon has started lives through a restart and the end of the service, as VMs do", async () => {
  // A VMM is a process in the service's control group with a session of its own; this one is as good as it.
  await ok(`setsid sleep 100000 & vm=$!
    echo $vm > /sys/fs/cgroup$(systemctl --user show -p ControlGroup --value bangerd)/cgroup.procs
    echo $vm > /root/vm.pid`);
  const before = await servicePid();
  await ok("systemctl --user restart bangerd");
  assert.notEqual(await servicePid(), before);
  await ok("kill -0 $(cat /root/vm.pid)");
  await ok("systemctl --user stop bangerd; kill -0 $(cat /root/vm.pid)");
});

test("a command that finds no daemon starts the service, and a daemon that was killed comes back by itself", async () => {
  assert.equal((await inGuest("systemctl --user is-active bangerd")).stdout.trim(), "inactive");
  await banger("vm list");
  const pid = await servicePid();
  assert.ok(pid > 0);
  await ok(
    `kill -9 ${pid}; until systemctl --user show -p MainPID --value bangerd | grep -qvE '^(0|${pid})$'; do sleep 0.1; done`,
  );
  await ok("until systemctl --user is-active bangerd; do sleep 0.1; done");
  assert.notEqual(await servicePid(), pid);
});

test("a config that is not valid is told by the command, and systemd does not try again and again", async () => {
  await banger("daemon stop");
  await ok("mkdir -p ~/.config/banger; echo 'vmm = 1' > ~/.config/banger/config.toml");
  const done = await inGuest("/opt/banger/bin/banger vm list");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /config\.toml line 1: `vmm`/);
  assert.equal(await ok("systemctl --user show -p NRestarts --value bangerd"), "0");
  await ok("rm ~/.config/banger/config.toml");
});

test("a unit of somebody else's is left alone; ours goes, and commands start the daemon again", async () => {
  await banger("vm list");
  assert.match(await banger("daemon uninstall"), /stopped and taken away/);
  await ok("test ! -e ~/.config/systemd/user/bangerd.service; kill -0 $(cat /root/vm.pid)");
  assert.match(await banger("daemon uninstall"), /was not installed/);
  await banger("vm list");
  assert.equal(await servicePid(), 0);
  await ok("echo '[Service]' > ~/.config/systemd/user/bangerd.service");
  for (const verb of ["install", "uninstall"]) {
    const done = await inGuest(`/opt/banger/bin/banger daemon ${verb}`);
    assert.equal(done.status, 1);
    assert.match(done.stderr, /was not written by banger/);
  }
  assert.equal(await ok("cat ~/.config/systemd/user/bangerd.service"), "[Service]");
});
