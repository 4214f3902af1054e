/** ssh and what is built on it: through the guest channel, with keys that are known before the first contact. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { installFixture } from "../support/fixture.ts";
import { bangerBinary, type Host, testHost } from "../support/host.ts";

const GOLDEN = "debian-bookworm";
const SLIM = "debian-bookworm-slim";
let host: Host;
let config: string;
let files: string;

type Ended = { status: number; stdout: string; stderr: string };

/** A program of the user's own, in this host's environment. */
const program = (name: string, ...args: string[]): Promise<Ended> =>
  new Promise((resolve) => {
    const child = execFile(
      name,
      args,
      { env: { ...process.env, ...host.env }, cwd: files, timeout: 120_000 },
      (error, stdout, stderr) => {
        const status = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        resolve({ status, stdout, stderr });
      },
    );
    child.stdin?.end();
  });
const ssh = (...args: string[]) => program("ssh", "-F", config, ...args);
const keygen = (path: string) => program("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", path);

before(async () => {
  host = await testHost(`[vm_defaults]\nvcpu = 2\nmemory = "768M"\n`);
  config = join(host.env.XDG_CONFIG_HOME, "banger", "ssh_config");
  files = join(host.env.HOME, "files");
  await mkdir(files);
  await mkdir(join(host.env.HOME, ".ssh"), { mode: 0o700 });
  await writeFile(join(host.env.HOME, ".ssh", "known_hosts"), "# mine\n");
  await installFixture(host, [GOLDEN, SLIM]);
  // Without a network card: ssh goes through the guest channel.
  const done = await host.banger("vm", "run", "-d", "--name", "box", "--image", GOLDEN, "--net", "none");
  assert.equal(done.status, 0, done.stderr);
});
after(() => host[Symbol.asyncDispose]());

test("`vm ssh` runs a command with its output and status, in a VM that has no network", async () => {
  const done = await host.banger(
    "vm",
    "ssh",
    "box",
    "--",
    "echo $USER at $(hostname) speaks $LANG; ls /sys/class/net; exit 9",
  );
  assert.equal(done.status, 9, done.stderr);
  assert.equal(done.stdout, "root at box speaks C.UTF-8\nlo\n");
  assert.equal(done.stderr, "");
});

test("plain ssh knows NAME.vm by banger's ssh_config: input, output and status are the command's", async () => {
  const done = await ssh("box.vm", "cat /etc/hostname; echo apart >&2; exit 42");
  assert.deepEqual(done, { status: 42, stdout: "box\n", stderr: "apart\n" });
});

test("the host key is pinned before the first contact, and one that has changed is refused", async () => {
  const pinned = await readFile(join(host.env.XDG_STATE_HOME, "banger", "ssh", "known_hosts"), "utf8");
  const { stdout: key } = await host.banger("vm", "exec", "box", "--", "cat", "/etc/ssh/ssh_host_ed25519_key.pub");
  assert.equal(pinned, `box.vm ${key.trim().split(" ").slice(0, 2).join(" ")}\n`);
  const { stdout: effective } = await ssh("-G", "box.vm");
  assert.match(effective, /^stricthostkeychecking (true|yes)$/m);

  const swap = (script: string) => host.banger("vm", "exec", "box", "--", "sh", "-ec", script);
  const swapped = await swap(
    "cd /etc/ssh; mv ssh_host_ed25519_key mine; ssh-keygen -q -t ed25519 -N '' -f other; cp other ssh_host_ed25519_key; systemctl restart ssh",
  );
  assert.equal(swapped.status, 0, swapped.stderr);
  const refused = await ssh("box.vm", "echo in");
  assert.deepEqual([refused.status, refused.stdout], [255, ""]);
  assert.match(refused.stderr, /host key verification failed/i);
  await swap("cd /etc/ssh; mv mine ssh_host_ed25519_key; systemctl restart ssh");
  assert.equal((await ssh("box.vm", "true")).status, 0);
});

test("scp, sftp and rsync carry files both ways", async () => {
  const bytes = randomBytes(3_000_000);
  const digest = createHash("sha256").update(bytes).digest("hex");
  await writeFile(join(files, "data"), bytes);
  const ok = async (...argv: [string, ...string[]]) => {
    const done = await program(...argv);
    assert.equal(done.status, 0, done.stderr);
  };
  await ok("scp", "-q", "-F", config, "data", "box.vm:/srv/by-scp");
  await ok("scp", "-q", "-F", config, "box.vm:/srv/by-scp", "from-scp");
  await writeFile(join(files, "batch"), "put data /srv/by-sftp\nget /srv/by-sftp from-sftp\n");
  await ok("sftp", "-q", "-F", config, "-b", "batch", "box.vm");
  await mkdir(join(files, "tree/deep"), { recursive: true });
  await writeFile(join(files, "tree/deep/file"), bytes);
  await ok("rsync", "-a", "-e", `ssh -F '${config}'`, "tree/", "box.vm:/srv/tree/");
  await ok("rsync", "-a", "-e", `ssh -F '${config}'`, "box.vm:/srv/tree/", "from-rsync/");
  for (const path of ["from-scp", "from-sftp", "from-rsync/deep/file"])
    assert.equal(
      createHash("sha256")
        .update(await readFile(join(files, path)))
        .digest("hex"),
      digest,
      path,
    );
});

test("a forwarded port reaches a server in the guest", async () => {
  const done = await ssh("-W", "127.0.0.1:22", "box.vm");
  assert.match(done.stdout, /^SSH-2\.0-OpenSSH/);
});

test("the user's own ~/.ssh is not touched", async () => {
  assert.deepEqual(await readdir(join(host.env.HOME, ".ssh")), ["known_hosts"]);
  assert.equal(await readFile(join(host.env.HOME, ".ssh", "known_hosts"), "utf8"), "# mine\n");
});

test("after `ssh-config --install` ssh needs no word of banger: its own config leads to the VM", async () => {
  assert.equal((await host.banger("ssh-config", "--install")).status, 0);
  // ssh finds the config by the password database, not by HOME: said with -F, it is this one as it is.
  const own = join(host.env.HOME, ".ssh", "config");
  const plain = (...args: string[]) => program("ssh", "-F", own, ...args);
  assert.deepEqual(await plain("box.vm", "hostname"), { status: 0, stdout: "box\n", stderr: "" });
  assert.equal((await host.banger("ssh-config", "--uninstall")).status, 0);
  assert.equal((await plain("-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "box.vm", "hostname")).status, 255);
  assert.equal(await readFile(own, "utf8"), "");
  await rm(own);
});

test("doctor finds nothing left over while a VM runs", async () => {
  const findings = await host.json<{ name: string; status: string; message: string }[]>("doctor");
  const ours = findings.filter(({ name }) => /^(stray|daemon|sockets|file modes|state database)/.test(name));
  assert.equal(ours.length, 7);
  for (const { name, status, message } of ours) assert.equal(status, "pass", `${name}: ${message}`);
});

test("passwords are no way in, and another key is not either", async () => {
  await keygen(join(files, "stranger"));
  const known = join(host.env.XDG_STATE_HOME, "banger", "ssh", "known_hosts");
  const options = [
    "BatchMode=yes",
    "IdentitiesOnly=yes",
    `UserKnownHostsFile=${known}`,
    `ProxyCommand=${bangerBinary} vm proxy %h %p`,
  ];
  const given = options.flatMap((option) => ["-o", option]);
  const done = await program("ssh", "-F", "none", ...given, "-i", join(files, "stranger"), "root@box.vm", "true");
  assert.equal(done.status, 255);
  assert.match(done.stderr, /Permission denied \(publickey\)/);
});

test("a VM that does not run, is not there or has no sshd says so, with what to do", async () => {
  assert.equal((await host.banger("vm", "stop", "box")).status, 0);
  const stopped = await ssh("box.vm", "true");
  assert.equal(stopped.status, 255);
  assert.match(stopped.stderr, /VM box is stopped[\s\S]*banger vm start box/);
  const ours = await host.banger("vm", "ssh", "box", "--", "true");
  assert.notEqual(ours.status, 0);
  assert.match(ours.stderr, /VM box is stopped[\s\S]*banger vm start box/);
  const missing = await host.banger("vm", "ssh", "bax");
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /"bax"[\s\S]*did you mean box/);
  assert.equal((await host.banger("vm", "run", "-d", "--name", "bare", "--image", SLIM)).status, 0);
  const bare = await host.banger("vm", "ssh", "bare", "--", "true");
  assert.match(bare.stderr, /an ssh server must run in the VM[\s\S]*banger vm shell bare/);
});

test("the key of `ssh_key_path` is the one that opens a VM; it is never written to", async () => {
  const key = join(files, "my key");
  await keygen(key);
  const before = await readFile(key, "utf8");
  await writeFile(join(host.env.XDG_CONFIG_HOME, "banger", "config.toml"), `ssh_key_path = "${key}"\n`);
  assert.equal((await host.banger("daemon", "stop")).status, 0);
  assert.equal((await host.banger("vm", "start", "box")).status, 0);
  const done = await host.banger("vm", "ssh", "box", "--", "cat .ssh/authorized_keys");
  assert.equal(done.status, 0, done.stderr);
  // In place of the key that the VM had before, which was banger's own.
  assert.equal(done.stdout, `# added by banger at each start\n${await readFile(`${key}.pub`, "utf8")}`);
  assert.equal(await readFile(key, "utf8"), before);

  // A key that was added in the guest stays through a restart.
  const added = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHNvbWVib2R5IGVsc2U somebody";
  assert.equal(
    (await host.banger("vm", "exec", "box", "--", "sh", "-c", `echo '${added}' >>/root/.ssh/authorized_keys`)).status,
    0,
  );
  assert.equal((await host.banger("vm", "stop", "box")).status, 0);
  assert.equal((await host.banger("vm", "start", "box")).status, 0);
  const kept = await host.banger("vm", "ssh", "box", "--", "cat .ssh/authorized_keys");
  assert.equal(kept.stdout, `${added}\n# added by banger at each start\n${await readFile(`${key}.pub`, "utf8")}`);

  // Its public half can be made from it.
  await rm(`${key}.pub`);
  assert.equal((await host.banger("daemon", "stop")).status, 0);
  assert.equal((await host.banger("vm", "start", "bare")).status, 0);
  assert.deepEqual(
    (await readdir(files)).filter((name) => name.startsWith("my key")),
    ["my key"],
  );
});

test("an `ssh_key_path` that leads nowhere is an error that names it, before a VM is left behind", async () => {
  await writeFile(join(host.env.XDG_CONFIG_HOME, "banger", "config.toml"), `ssh_key_path = "/no/such/key"\n`);
  assert.equal((await host.banger("daemon", "stop")).status, 0);
  const done = await host.banger("vm", "run", "--name", "never", "--image", SLIM, "--", "true");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /there is no ssh key at \/no\/such\/key[\s\S]*ssh_key_path/);
  assert.doesNotMatch((await host.banger("vm", "list", "-q")).stdout, /never/);
});
