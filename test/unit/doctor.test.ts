/** `banger doctor`: each thing is broken for real in a host of its own, found, named, and mended by the command that it names. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { chmod, cp, mkdir, readdir, readFile, realpath, rm, stat, symlink, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { dirname, join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { runCheck } from "../../src/cli/checks/check.ts";
import { programsCheck } from "../../src/cli/checks/programs.ts";
import { judgeFirecracker, judgeQemu } from "../../src/cli/checks/vmm.ts";
import { bangerBinary, type Host, testHost } from "../support/host.ts";
import { startInTerminal } from "../support/terminal.ts";

type Finding = { name: string; status: "pass" | "warn" | "fail"; message: string; fix: string[][]; hint?: string };

let host: Host;
let config: string;
let state: string;
let runtime: string;

before(async () => {
  host = await testHost();
  config = join(host.env.XDG_CONFIG_HOME, "banger");
  state = join(host.env.XDG_STATE_HOME, "banger");
  runtime = join(host.env.XDG_RUNTIME_DIR, "banger");
});
beforeEach(() => mkdir(config, { recursive: true }));
afterEach(async () => {
  await host.banger("daemon", "stop");
  for (const folder of [config, state, runtime]) await rm(folder, { recursive: true, force: true });
});
after(() => host[Symbol.asyncDispose]());

const look = async (...args: string[]): Promise<Finding[]> => {
  const done = await host.banger("doctor", "--json", ...args);
  const findings = JSON.parse(done.stdout) as Finding[];
  assert.equal(done.status, findings.some(({ status }) => status === "fail") ? 1 : 0);
  return findings;
};
const finding = (findings: Finding[], name: string): Finding => {
  const found = findings.find((one) => one.name === name);
  assert.ok(found, name);
  return found;
};
const see = async (name: string): Promise<Finding> => finding(await look(), name);
const setConfig = (text: string) => writeFile(join(config, "config.toml"), text);

/** What is wrong before, and right after `doctor --fix --yes` has run exactly the command that it named. */
const mended = async (name: string, status: "warn" | "fail", message: RegExp, fix: string[][]): Promise<void> => {
  const found = await see(name);
  assert.equal(found.status, status, found.message);
  assert.match(found.message, message);
  assert.deepEqual(found.fix, fix);
  assert.equal(finding(await look("--fix", "--yes"), name).status, "pass");
};

test("a new host: nothing fails but what this machine lacks, and looking starts and makes nothing of its own", async () => {
  const findings = await look();
  const absent = findings.filter(({ status }) => status === "fail");
  assert.deepEqual(absent, []);
  for (const name of ["architecture", "kvm", "qemu", "tsc", "reflinks", "memory", "clock", "names", "logout"])
    finding(findings, name);
  assert.match(finding(findings, "names").message, /NAME\.vm/);
  assert.deepEqual(await readdir(config), []);
  assert.equal((await host.banger("daemon", "status")).status, 1);
});

test("for a person each finding has one line, and the command that mends it under it", async () => {
  await setConfig('ssh_key_path = "~/my key"\n');
  const { stdout, status } = await host.banger("doctor");
  assert.equal(status, 1);
  const key = join(host.env.HOME, "my key");
  assert.match(stdout, /^pass {2}architecture +linux x64$/m);
  assert.ok(stdout.includes(`names ${key}, which is not there\n`));
  assert.ok(stdout.includes(`mend it: ssh-keygen -t ed25519 -f '${key}'\n`));
});

describe("programs", () => {
  test("a missing one is named with the package that holds it", async () => {
    const wanted = [
      { name: "mkfs.ext4", why: "disks", required: true },
      { name: "passt", why: "the network", required: false },
      { name: "sh", why: "shells", required: true },
    ];
    const found = await runCheck(programsCheck(wanted, "/nowhere:/bin/sh"));
    assert.equal(found.status, "fail");
    assert.match(found.message, /mkfs\.ext4 \(disks\), passt \(the network\), sh/);
    assert.deepEqual(found.fix[0]?.slice(-5), ["apt-get", "install", "-y", "e2fsprogs", "passt"]);
    assert.equal((await runCheck(programsCheck(wanted.slice(1, 2), "/nowhere"))).status, "warn");
  });

  test("a QEMU that is not there, or that is too old", async () => {
    await setConfig('qemu_bin = "/no/such/qemu"\n');
    const findings = await look();
    assert.match(finding(findings, "qemu").message, /`\/no\/such\/qemu` is not installed/);
    assert.match(finding(findings, "qemu").hint ?? "", /`qemu_bin`/);
    const old = join(host.env.HOME, "qemu");
    await writeFile(old, "#!/bin/sh\necho QEMU emulator version 6.2.0\n", { mode: 0o755 });
    await setConfig(`qemu_bin = "${old}"\n`);
    const found = await see("qemu");
    assert.equal(found.status, "fail");
    assert.match(found.message, /version 6\.2\.0: 7\.2 or newer is needed/);
  });

  test("known bugs of releases are told", () => {
    assert.equal(judgeQemu("qemu", "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)").status, "pass");
    assert.equal(judgeQemu("qemu", "QEMU emulator version 10.0.2").status, "pass");
    const suspected = judgeQemu("qemu", "QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)");
    assert.equal(suspected.status, "warn");
    assert.match(suspected.message, /CVE-2024-3446/);
    assert.doesNotMatch(suspected.message, /CVE-2023-6693/);
    assert.match(judgeFirecracker("firecracker", "Firecracker v1.16.1").message, /pause without a snapshot/);
    assert.doesNotMatch(judgeFirecracker("firecracker", "Firecracker v1.17.0").message, /pause/);
  });

  test("an agent that was not built", async () => {
    // A copy of the program as it is installed, without the agent.
    const build = join(host.env.HOME, "build");
    const original = join(dirname(bangerBinary), "..");
    await mkdir(join(build, "bin"), { recursive: true });
    await cp(bangerBinary, join(build, "bin", "banger"));
    for (const name of ["banger.cjs", "banger.bundle.cjs", "catalog"])
      await cp(join(original, "lib", name), join(build, "lib", name), { recursive: true });
    await symlink(await realpath(join(original, "lib", "node")), join(build, "lib", "node"));
    const child = spawn(join(build, "bin", "banger"), ["doctor"], { env: { ...process.env, ...host.env } });
    let text = "";
    child.stdout.on("data", (chunk) => {
      text += String(chunk);
    });
    const [status] = await once(child, "close");
    assert.equal(status, 1);
    assert.match(text, /^fail {2}guest agent .* is not there\n.*make build$/m);
  });
});

describe("settings", () => {
  test("one that is not valid is a finding with file and line; the rest is looked at all the same", async () => {
    await setConfig('\nvmm = "qmeu"\n');
    const findings = await look();
    const found = finding(findings, "config");
    assert.equal(found.status, "fail");
    assert.match(found.message, /config\.toml line 2: `vmm`/);
    assert.match(found.hint ?? "", /did you mean "qemu"/);
    assert.equal(finding(findings, "architecture").status, "pass");
  });

  test("paths that lead nowhere, an image that nobody has, more memory than there is, a VMM that is not there yet", async () => {
    await setConfig(`vmm = "firecracker"
firecracker_bin = "/no/such/firecracker"
catalogs = ["/no/such/catalog.json"]
default_image_name = "my-image"
default_kernel_name = "my-kernel"
[vm_defaults]
memory = "900T"
[[file_sync]]
host = "/no/such/file"
guest = "~/x"
`);
    const findings = await look();
    const expected: [string, "warn" | "fail", RegExp, RegExp][] = [
      ["firecracker", "fail", /no `\/no\/such\/firecracker`/, /vmm = "qemu"/],
      ["catalogs", "fail", /\/no\/such\/catalog\.json is not there/, /`catalogs`/],
      ["default image", "fail", /my-image is neither/, /default_image_name/],
      ["default kernel", "fail", /my-kernel is neither/, /default_kernel_name/],
      ["memory", "fail", /900 TiB/, /vm_defaults\.memory/],
      ["file_sync", "warn", /\/no\/such\/file/, /file_sync/],
    ];
    for (const [name, status, message, hint] of expected) {
      const found = finding(findings, name);
      assert.equal(found.status, status, name);
      assert.match(found.message, message);
      assert.match(found.hint ?? "", hint);
    }
  });
});

describe("the state folder", () => {
  const start = async () => assert.equal((await host.banger("daemon", "start")).status, 0);

  test("a service of another build is installed anew; without a systemd that is told", async () => {
    const unit = join(host.env.XDG_CONFIG_HOME, "systemd", "user", "bangerd.service");
    await mkdir(dirname(unit), { recursive: true });
    await writeFile(
      unit,
      "# Written by `banger daemon install`; taken away by `banger daemon uninstall`.\n[Service]\n",
    );
    try {
      const found = await see("service");
      assert.equal(found.status, "warn");
      assert.deepEqual(found.fix, [["banger", "daemon", "install"]]);
      // Not the systemd of whoever runs this test.
      const env = { DBUS_SESSION_BUS_ADDRESS: "" };
      const done = await host.run(["daemon", "install"], { env });
      assert.equal(done.status, 1);
      assert.match(done.stderr, /no systemd[\s\S]*nothing is lost/);
      assert.match(await readFile(unit, "utf8"), /\[Service\]\n$/);
    } finally {
      await rm(join(host.env.XDG_CONFIG_HOME, "systemd"), { recursive: true });
    }
  });

  test("a running daemon and its database are fine, and are only looked at", async () => {
    await start();
    const names = (await readdir(state)).sort();
    const findings = await look();
    for (const name of [
      "daemon",
      "state database",
      "file modes",
      "sockets",
      "stray processes",
      "stray sockets",
      "stray folders",
    ])
      assert.equal(finding(findings, name).status, "pass", name);
    assert.match(finding(findings, "daemon").message, /running, pid \d+/);
    assert.match(finding(findings, "state database").message, /^whole, format \d+, 0 VMs$/);
    assert.deepEqual((await readdir(state)).filter((name) => name !== "staging").sort(), names);
    await host.banger("daemon", "stop");
    const stopped = (await readdir(state)).sort();
    assert.equal((await see("state database")).status, "pass");
    assert.deepEqual(
      (await readdir(state)).sort(),
      stopped.includes("staging") ? stopped : [...stopped, "staging"].sort(),
    );
  });

  test("a database that is damaged is put away, and the daemon starts again", async () => {
    await start();
    await host.banger("daemon", "stop");
    const path = join(state, "banger.db");
    await writeFile(path, "garbage".repeat(2000));
    assert.equal((await host.banger("daemon", "start")).status, 1);
    await mended("state database", "fail", /not a database/, [
      ["banger", "daemon", "stop"],
      ["mv", path, `${path}.damaged`],
    ]);
    await start();
    assert.match(await readFile(`${path}.damaged`, "utf8"), /^garbage/);
  });

  test("what is open to others is closed", async () => {
    await start();
    await chmod(state, 0o755);
    await chmod(config, 0o777);
    await mended("file modes", "fail", /state\/banger is open to others; .*config\/banger can be written by others/, [
      ["chmod", "go-rwx", state],
      ["chmod", "go-w", config],
    ]);
    const socket = join(runtime, "bangerd.sock");
    await chmod(socket, 0o666);
    await mended("sockets", "fail", /bangerd\.sock is open/, [["chmod", "600", socket]]);
    await chmod(runtime, 0o755);
    await mended("sockets", "fail", /is open to others/, [["chmod", "700", runtime]]);
    await host.banger("daemon", "stop");
    await rm(runtime, { recursive: true });
    await writeFile(runtime, "");
    await mended("sockets", "fail", /is no folder/, [["rm", runtime]]);
  });

  test("a folder of sockets whose paths would be too long", async () => {
    const done = await host.run(["doctor", "--json"], { env: { XDG_RUNTIME_DIR: `/tmp/${"x".repeat(80)}` } });
    const found = finding(JSON.parse(done.stdout) as Finding[], "sockets");
    assert.equal(found.status, "fail");
    assert.match(found.message, /107 bytes/);
    assert.match(found.hint ?? "", /XDG_RUNTIME_DIR/);
  });

  test("an image without its disk, and half-made ones", async () => {
    const folder = (name: string) => join(state, "images", name);
    await mkdir(folder("debian-bookworm"), { recursive: true });
    await writeFile(join(folder("debian-bookworm"), "manifest.json"), "{}");
    const broken = await see("default image");
    assert.equal(broken.status, "fail");
    assert.deepEqual(broken.fix[0], ["banger", "image", "delete", "debian-bookworm"]);
    // A user's file, made known by its path, and an image of a registry, whose name is no folder's.
    await mkdir(folder("docker.io%2Flibrary%2Falpine"));
    await writeFile(join(folder("docker.io%2Flibrary%2Falpine"), "manifest.json"), "{}");
    const own = { rootfs: { path: join(host.env.HOME, "own.ext4") } };
    await writeFile(join(folder("debian-bookworm"), "manifest.json"), JSON.stringify(own));
    const gone = await see("default image");
    assert.deepEqual([gone.status, gone.fix], ["fail", []]);
    await writeFile(own.rootfs.path, "");
    assert.equal((await see("default image")).status, "pass");
    await mkdir(folder("half"));
    await mkdir(join(state, "staging", "kernel-1-5-0123abcd"), { recursive: true });
    const found = await see("stray folders");
    assert.equal(found.status, "warn");
    assert.deepEqual(found.fix, [
      ["rm", "-r", join(state, "staging", "kernel-1-5-0123abcd")],
      ["rm", "-r", folder("half")],
    ]);
  });

  test("a disk that no VM owns is shown, and no command takes it away", async () => {
    await start();
    const folder = join(state, "vms", "0123456789abcdef0123456789abcdef");
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "disk.ext4"), "somebody's work");
    const found = await see("stray folders");
    assert.equal(found.status, "warn");
    assert.deepEqual(found.fix, []);
    assert.ok(found.hint?.includes(`rm -r '${folder}'`));
    await look("--fix", "--yes");
    assert.equal(await readFile(join(folder, "disk.ext4"), "utf8"), "somebody's work");
  });

  test("a VMM and sockets that no VM owns", async () => {
    await start();
    const id = "fedcba9876543210fedcba9876543210";
    await mkdir(join(runtime, "vms", id), { recursive: true });
    // The machine of a template that is being made is in no record either; it listens, though.
    const making = join(runtime, "vms", "00000000000000000000000000000000");
    await mkdir(making);
    const listener = createServer();
    listener.listen(join(making, "agent.sock"));
    await once(listener, "listening");
    // Not a QEMU, but it looks like one to whoever reads the list of processes.
    const stray = spawn(
      process.execPath,
      ["-e", "setInterval(() => 0, 1e6)", `file=${join(state, "vms", id, "disk.ext4")},format=raw`],
      { argv0: "qemu-system-x86_64", stdio: "ignore" },
    );
    await once(stray, "spawn");
    try {
      const findings = await look();
      assert.deepEqual(finding(findings, "stray processes").fix, [["kill", String(stray.pid)]]);
      const ended = once(stray, "exit");
      await mended("stray sockets", "warn", new RegExp(id), [["rm", "-r", join(runtime, "vms", id)]]);
      assert.deepEqual((await ended)[1], "SIGTERM");
      assert.equal((await see("stray processes")).status, "pass");
    } finally {
      stray.kill("SIGKILL");
      listener.close();
    }
  });
});

describe("ssh", () => {
  const keyPath = () => join(host.env.HOME, ".ssh", "mine");
  afterEach(() => rm(join(host.env.HOME, ".ssh"), { recursive: true, force: true }));

  test("a key that others can read, one that is not there, and one that is none", async () => {
    const key = keyPath();
    await mkdir(dirname(key), { mode: 0o700, recursive: true });
    await setConfig('ssh_key_path = "~/.ssh/mine"\n');
    const missing = await see("ssh key");
    assert.equal(missing.status, "fail");
    assert.deepEqual(missing.fix, [["ssh-keygen", "-t", "ed25519", "-f", key]]);
    const [program = "", ...args] = [...(missing.fix[0] ?? []), "-N", "", "-q"];
    await once(spawn(program, args, { stdio: "ignore" }), "exit");
    await chmod(key, 0o644);
    await mended("ssh key", "fail", /can be read by others/, [["chmod", "600", key]]);
    await rm(`${key}.pub`);
    assert.match((await see("ssh key")).message, /public half is made from it/);
    await writeFile(key, "no key\n");
    assert.match((await see("ssh key")).message, /it is no key, or has a passphrase/);
  });

  test("a config that does not know the VMs", () =>
    mended("ssh config", "warn", /does not include banger's/, [["banger", "ssh-config", "--install"]]));
});

test("another program on the port of the DNS server", async () => {
  const socket = createSocket("udp4");
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  await setConfig(`[network]\ndns = "127.0.0.1:${socket.address().port}"\n`);
  try {
    const found = await see("names");
    assert.equal(found.status, "warn");
    assert.match(found.message, new RegExp(`taken by \\S+ \\(process ${process.pid}\\)`));
  } finally {
    socket.close();
  }
});

/** A port that nobody has, neither for UDP nor for TCP. */
const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const socket = createSocket("udp4");
  socket.bind(port, "127.0.0.1");
  await once(socket, "listening");
  socket.close();
  await new Promise((resolve) => server.close(resolve));
  return port;
};

test("a resolver that does not ask banger's DNS server is told how to", async () => {
  const port = await freePort();
  await setConfig(`[network]\ndns = "127.0.0.1:${port}"\n`);
  assert.equal((await see("names")).status, "pass");
  const started = await host.banger("daemon", "start");
  assert.equal(started.status, 0, started.stderr);
  const found = await see("names");
  assert.deepEqual([found.status, found.fix], ["warn", []], found.message);
  assert.match(found.message, /resolver \(\S+\) does not ask it/);
  assert.match(found.hint ?? "", new RegExp(`127\\.0\\.0\\.1[:#]${port}`));
  assert.equal((await host.banger("daemon", "stop")).status, 0);
  await setConfig('[network]\ndns = "off"\n');
  assert.match((await see("names")).message, /`network.dns` is off/);
});

describe("--fix", () => {
  test("asks, and does what it is allowed to", async () => {
    await mkdir(state, { recursive: true });
    await chmod(state, 0o755);
    const run = async (answer: string) => {
      await using terminal = await startInTerminal(host, ["doctor", "--fix"], { size: { columns: 300, rows: 50 } });
      await terminal.shows(`run \`chmod go-rwx ${state}\`?`);
      terminal.type(`${answer}\r`);
      await terminal.shows("ssh-config --install`?");
      terminal.type("n\r");
      const { status } = await terminal.end();
      return status;
    };
    assert.equal(await run("n"), 1);
    assert.equal((await stat(state)).mode & 0o777, 0o755);
    assert.equal(await run("y"), 0);
    assert.equal((await stat(state)).mode & 0o777, 0o700);
  });

  test("--yes alone is wrong usage", async () => {
    const done = await host.banger("doctor", "--yes");
    assert.equal(done.status, 2);
    assert.match(done.stderr, /--fix, which is not given/);
  });

  test("without a terminal it says how to go unasked, and changes nothing", async () => {
    await mkdir(state, { recursive: true });
    await chmod(state, 0o755);
    const done = await host.banger("doctor", "--fix");
    assert.equal(done.status, 2);
    assert.match(done.stderr, /banger doctor --fix --yes/);
    assert.equal((await stat(state)).mode & 0o777, 0o755);
  });

  test("a command that fails is told, and the finding stays", async () => {
    await setConfig('ssh_key_path = "/proc/no/key"\n');
    const done = await host.banger("doctor", "--fix", "--yes");
    assert.equal(done.status, 1);
    assert.match(done.stderr, /it failed: ssh-keygen/);
    assert.match(done.stdout, /fail {2}ssh key/);
  });
});
