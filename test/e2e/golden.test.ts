/** The golden image as a developer meets it: a whole Debian with tools and Docker, and what happens when its guts fail. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import type { DaemonStatus } from "../../src/contract/api.ts";
import type { ImageInfo } from "../../src/contract/images.ts";
import type { Vm } from "../../src/contract/vms.ts";
import { openBrowser } from "../support/browser.ts";
import { dockerArchive } from "../support/docker-archive.ts";
import { assertClean as assertSound, catInImage, listInImage, statInImage } from "../support/ext4-judge.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { folderHolds, processEnds } from "../support/wait.ts";

const GOLDEN = "debian-bookworm";
const execFileAsync = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
let host: Host;

before(async () => {
  host = await testHost('[network]\nweb = "127.0.0.1:0"\n');
  await installFixture(host, [GOLDEN]);
  const done = await host.banger("vm", "run", "-d", "--name", "dev", "--vcpu", "2", "--memory", "1G");
  assert.equal(done.status, 0, done.stderr);
  assert.match(done.stderr, /debian-bookworm, 2 vcpu, 1 GiB/, "the golden image is the default");
});
after(() => host[Symbol.asyncDispose]());

const banger = async (...args: string[]): Promise<string> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
};
const inGuest = (script: string) => banger("vm", "exec", "dev", "--", "sh", "-ec", script);
const show = () => host.json<Vm>("vm", "show", "dev");

/** Waits for the record to say that the VM is stopped: the daemon then has written it. */
const stopped = async (): Promise<Vm> => {
  const { pid } = await show();
  if (pid !== undefined) await processEnds(pid, 90_000);
  await folderHolds(host.env.XDG_STATE_HOME, async () => (await show()).state === "stopped");
  return await show();
};

test("it is within its size, with nothing of a VM's identity in it", async () => {
  const { init, diskUsed } = await host.json<ImageInfo>("image", "show", GOLDEN);
  assert.equal(init, "/usr/lib/systemd/systemd");
  assert.ok(diskUsed < 1.1 * 2 ** 30, `${diskUsed} bytes`);
  const rootfs = join(host.env.XDG_STATE_HOME, `banger/images/${GOLDEN}/rootfs.ext4`);
  await assertSound(rootfs);
  assert.doesNotMatch(await listInImage(rootfs, "/etc/ssh"), /ssh_host/);
  assert.match(await catInImage(rootfs, "/etc/shadow"), /^root:\*:/m);
  assert.equal(await catInImage(rootfs, "/etc/machine-id"), "");
  assert.match(await statInImage(rootfs, "/root"), /Mode:\s+0700/);
  assert.match(await statInImage(rootfs, "/usr/bin/sudo"), /Mode:\s+04755[\s\S]*User:\s+0/);
  assert.match(await statInImage(rootfs, "/usr/bin/ping"), /security\.capability/);
  // They start with the first connection.
  const started = await listInImage(rootfs, "/etc/systemd/system/multi-user.target.wants");
  assert.doesNotMatch(started, /docker\.service|containerd\.service|ssh\.service/);
  for (const socket of ["docker", "ssh"])
    assert.match(
      await statInImage(rootfs, `/etc/systemd/system/sockets.target.wants/${socket}.socket`),
      /Type: symlink/,
    );
});

test("systemd is up, and no unit has failed", async () => {
  assert.equal(await inGuest("systemctl is-system-running"), "running\n");
  assert.equal(await inGuest("systemctl --failed --plain --no-legend"), "");
});

test("the tools that a developer expects are there", async () => {
  const tools =
    "bash git curl wget jq tmux sudo python3 gcc g++ make less vim vi nano file lsof rg rsync ssh scp sftp sshd ip ss ping nc ps top htop free pgrep kill killall mise docker dockerd containerd nft iptables systemctl journalctl udevadm locale-gen zip unzip xz zstd modprobe mkfs.ext4 e2fsck resize2fs fdisk sfdisk gpg lsb_release pkg-config pip socat strace tree xxd hexdump column no-such-tool".split(
      " ",
    );
  const found = await inGuest(`for tool in ${tools.join(" ")}; do command -v $tool >/dev/null || echo $tool; done`);
  assert.equal(found, "no-such-tool\n");
  await inGuest(
    "sudo -n true; git --version; python3 -m venv --help >/dev/null; update-ca-certificates --help >/dev/null",
  );
  // A disk in a file, as those who build images make them.
  await inGuest(`mkfs.ext4 -q /srv/disk 16M && mkdir /mnt/disk && mount -o loop /srv/disk /mnt/disk && echo in >/mnt/disk/it
    umount /mnt/disk && e2fsck -fn /srv/disk >/dev/null 2>&1 && rm /srv/disk`);
});

test("mise is what the recipe says, finds its tools on every path, and works without a network", async () => {
  const { npm }: { npm: { version: string }[] } = JSON.parse(
    await readFile(join(import.meta.dirname, "../../images/golden/recipe.json"), "utf8"),
  );
  assert.match(
    await inGuest("mise --version"),
    new RegExp(`^${npm[0]?.version.replaceAll(".", "\\.")} linux-x64`, "m"),
  );
  await inGuest(`mkdir -p /srv/pinned ~/.local/share/mise/shims && cd /srv/pinned
    printf '[env]\\nPINNED = "yes"\\n[tasks.hello]\\nrun = "echo hello $PINNED"\\n' >mise.toml
    mise trust --quiet
    printf '#!/bin/sh\\necho shim\\n' >~/.local/share/mise/shims/some-tool && chmod +x ~/.local/share/mise/shims/some-tool`);
  assert.match(await inGuest("cd /srv/pinned && mise run --quiet hello"), /hello yes/);
  assert.equal(await inGuest("some-tool; bash -lc some-tool"), "shim\nshim\n");
});

test("nftables filters and counts, by its own program and through iptables", async () => {
  await inGuest(`nft add table inet box
    nft 'add chain inet box out { type filter hook output priority 0; }'
    nft 'add rule inet box out ip daddr 127.0.0.7 counter reject'
    iptables -A OUTPUT -d 127.0.0.8 -m comment --comment test -j REJECT`);
  await inGuest("! ping -c 1 -W 2 127.0.0.7 >/dev/null && ! ping -c 1 -W 2 127.0.0.8 >/dev/null");
  assert.match(await inGuest("nft list ruleset"), /counter packets [1-9]/);
  await inGuest("nft delete table inet box; iptables -F OUTPUT");
});

test("the other locale that programs ask for is there", async () => {
  assert.equal(await inGuest("LC_ALL=en_US.UTF-8 locale charmap 2>&1"), "UTF-8\n");
  assert.equal(await inGuest("LC_ALL=en_US.UTF-8 python3 -c 'print(chr(233))' 2>&1"), "é\n");
});

test("commands and shells run in a UTF-8 locale, in root's home, under the VM's own name", async () => {
  assert.equal(
    await inGuest("locale charmap; echo $LANG; pwd; hostname; stat -c %U:%a /root"),
    "UTF-8\nC.UTF-8\n/root\ndev\nroot:700\n",
  );
  const shell = await host.run(["vm", "shell", "dev"], { input: "echo $LANG; shopt -q login_shell && echo login\n" });
  assert.equal(shell.stdout, "C.UTF-8\nlogin\n");
  assert.match(await inGuest("getent hosts dev localhost"), /127\.0\.1\.1\s+dev[\s\S]*localhost/);
});

test("a user of the guest can be made and used", async () => {
  await inGuest("useradd -m -s /bin/bash -G sudo ada");
  const done = await host.banger(
    "vm",
    "exec",
    "--user",
    "ada",
    "dev",
    "--",
    "sh",
    "-c",
    "id -un; id -Gn; pwd; echo $HOME",
  );
  assert.equal(done.stdout, "ada\nada sudo\n/home/ada\n/home/ada\n", done.stderr);
});

test("C is compiled, linked and run", async () => {
  await inGuest(`mkdir -p /srv/hello && cd /srv/hello
    printf '#include <stdio.h>\\nint main(int n, char **a) { printf("hello %%s\\\\n", n > 1 ? a[1] : "world"); return n - 1; }\\n' >hello.c
    printf 'hello: hello.c\\n\\tgcc -static -o $@ $<\\n' >Makefile
    make >/dev/null`);
  const done = await host.banger("vm", "exec", "dev", "--", "/srv/hello/hello", "there");
  assert.deepEqual([done.stdout, done.status], ["hello there\n", 1]);
});

test("Docker starts with its first use, on the VM's own disk, and runs an image made here", async () => {
  assert.equal(await inGuest("systemctl is-active docker.socket"), "active\n");
  assert.equal(await inGuest("systemctl is-active docker.service || true"), "inactive\n");
  assert.equal(
    await inGuest("docker info -f '{{.Driver}} {{.DockerRootDir}} {{.CgroupDriver}}'"),
    "overlay2 /var/lib/docker systemd\n",
  );
  assert.equal(await inGuest("findmnt -n -o FSTYPE -T /var/lib/docker"), "ext4\n");
  await inGuest("tar -C /srv/hello -c hello | docker import -c 'ENTRYPOINT [\"/hello\"]' - hello:1 >/dev/null");
  assert.equal(await inGuest("docker run --rm hello:1"), "hello world\n");
  assert.equal(
    await inGuest("docker run --rm --network none hello:1 docker || echo status $?"),
    "hello docker\nstatus 1\n",
  );
  // An image from a file, as `docker save` writes one: made by hand, so that nothing of Docker's own is in it.
  await banger("vm", "cp", "dev:/srv/hello/hello", host.env.HOME);
  const archive = join(host.env.HOME, "image.tar");
  await writeFile(archive, dockerArchive("by-hand:1", "/bin/hello", await readFile(join(host.env.HOME, "hello"))));
  await banger("vm", "cp", archive, "dev:/root/image.tar");
  assert.match(await inGuest("docker load -i /root/image.tar"), /Loaded image: by-hand:1/);
  assert.equal(await inGuest("docker run --rm by-hand:1"), "hello world\n");
  assert.equal(await inGuest("systemctl --failed --plain --no-legend"), "");
});

test("a browser shows a server of the guest: its page, a WebSocket, events, and a file that is uploaded", async () => {
  await banger("vm", "cp", join(import.meta.dirname, "../support/guest-web.py"), "dev:/srv/web.py");
  // Until it listens.
  await inGuest(`mkfifo /srv/said
    systemd-run --quiet sh -c 'exec python3 /srv/web.py 8000 >/srv/said'
    read said </srv/said; test "$said" = listens`);
  const { web } = await host.json<DaemonStatus>("daemon", "status");
  const origin = `http://8000.dev.localhost:${web?.address.split(":")[1]}`;
  await using browser = await openBrowser();
  await browser.goto(`${origin}/`);
  assert.equal(await browser.evaluate("document.title"), "from the guest");
  const echoed = await browser.evaluate(`new Promise((resolve, reject) => {
    const socket = new WebSocket("/socket");
    const said = [];
    socket.onopen = () => socket.send("one");
    socket.onmessage = ({ data }) => said.push(data) < 2 ? socket.send("two") : socket.close();
    socket.onclose = ({ wasClean }) => resolve([...said, wasClean]);
    socket.onerror = () => reject(new Error("no WebSocket"));
  })`);
  assert.deepEqual(echoed, ["one", "two", true]);
  const events = await browser.evaluate(`new Promise((resolve) => {
    const source = new EventSource("/events");
    const said = [];
    source.onmessage = ({ data }) => said.push(data) === 2 && (source.close(), resolve(said));
  })`);
  assert.deepEqual(events, ["one", "two"]);
  const file = join(host.env.HOME, "upload");
  const bytes = randomBytes(8_000_000);
  await writeFile(file, bytes);
  await browser.chooseFile("input", file);
  await browser.leave("document.forms[0].submit()");
  assert.deepEqual(JSON.parse(await browser.evaluate("document.body.innerText")), {
    bytes: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
  });
  // A name of elsewhere that leads to this machine, as DNS rebinding has it.
  await browser.goto(origin.replace(".localhost", ".example"));
  assert.match(await browser.evaluate("document.body.innerText"), /this address leads to no VM/);
});

test("its clock is the host's, also after hard work on several CPUs", async () => {
  assert.equal(await inGuest("cat /sys/devices/system/clocksource/clocksource0/current_clocksource"), "tsc\n");
  const before = Date.now();
  const clock = Number(await inGuest("date +%s%3N"));
  assert.ok(clock > before - 1000 && clock < Date.now() + 1000, `${clock} at ${before}`);
});

test("an agent that is killed in the guest is named with what to do, and stop and start mend the VM", async () => {
  await inGuest("echo kept >/root/kept; sync");
  // The command dies with the agent that runs it.
  const killer = await host.banger("vm", "exec", "dev", "--", "pkill", "-9", "-f", "^@");
  assert.equal(killer.status, 1);
  assert.match(killer.stderr, /banger: .*(connection|agent)/);
  const done = await host.banger("vm", "exec", "dev", "--", "true");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /guest agent of VM dev is gone[\s\S]*banger vm stop dev && banger vm start dev/);
  const json = await host.banger("vm", "exec", "dev", "--json", "--", "true");
  assert.match(json.stderr, /"GUEST_AGENT_LOST"/);
  const vm = await show();
  assert.equal(vm.state, "running");
  assert.match(vm.reason ?? "", /guest agent has ended/);
  assert.match(await banger("vm", "show", "dev"), /reason: +the guest agent has ended/);
  await banger("vm", "stop", "dev");
  await banger("vm", "start", "dev");
  assert.equal(await inGuest("cat /root/kept"), "kept\n");
  assert.equal((await show()).reason, undefined);
});

test("what was only just written is there after a stop, and services were stopped in order", async () => {
  await inGuest(`cat >/etc/systemd/system/last.service <<'END'
[Service]
ExecStart=/bin/sleep infinity
ExecStop=/bin/sh -c 'echo stopped in order >/root/last'
[Install]
WantedBy=multi-user.target
END
systemctl enable --quiet --now last.service`);
  await inGuest("seq 200000 >/root/numbers; echo fresh >/root/fresh");
  await banger("vm", "stop", "dev");
  const vm = await show();
  assert.deepEqual([vm.state, vm.reason], ["stopped", undefined]);
  // Its disk is sound once its journal is replayed, which the next start does too.
  const disk = join(host.env.XDG_STATE_HOME, "banger", "vms", vm.id, "disk.ext4");
  const copy = join(host.env.HOME, "disk");
  await execFileAsync("cp", ["--sparse=always", disk, copy]);
  await execFileAsync("e2fsck", ["-E", "journal_only", "-y", copy], { env });
  await execFileAsync("e2fsck", ["-fn", copy], { env });
  await banger("vm", "start", "dev");
  assert.equal(
    await inGuest("cat /root/last /root/fresh; tail -n 1 /root/numbers"),
    "stopped in order\nfresh\n200000\n",
  );
});

for (const [command, reason] of [
  ["poweroff", /the guest (powered off|restarted)/],
  ["reboot", /the guest restarted/],
] as const) {
  test(`${command} in the guest ends in a stopped VM that says why, and starts again`, async () => {
    await inGuest(`echo ${command} >/root/ended-by`);
    // The connection may end before the command does.
    await host.banger("vm", "exec", "dev", "--", command);
    const vm = await stopped();
    assert.equal(vm.pid, undefined);
    assert.match(vm.reason ?? "", reason);
    const refused = await host.banger("vm", "exec", "dev", "--", "true");
    assert.match(refused.stderr, /dev is stopped[\s\S]*banger vm start dev/);
    await banger("vm", "start", "dev");
    assert.equal(await inGuest("cat /root/ended-by; systemctl is-system-running --wait"), `${command}\nrunning\n`);
  });
}
