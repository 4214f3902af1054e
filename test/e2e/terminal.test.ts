/** A person at a terminal: keys, window and screen are the guest's while a session lives, and the user's own again after it. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { startInTerminal, type Terminal } from "../support/terminal.ts";
import { folderHolds, processEnds } from "../support/wait.ts";

const GOLDEN = "debian-bookworm";
const SLIM = "debian-bookworm-slim";
const CTRL_C = "\x03";
const CTRL_D = "\x04";
const CTRL_Z = "\x1a";
const ESCAPE = "\x1b";
let host: Host;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "256M"\ndisk_size = "2G"\n`);
  await installFixture(host, [GOLDEN, SLIM]);
  const done = await host.banger(
    "vm",
    "run",
    "-d",
    "--name",
    "box",
    "--image",
    GOLDEN,
    "--memory",
    "1G",
    "--vcpu",
    "2",
  );
  assert.equal(done.status, 0, done.stderr);
});
after(() => host[Symbol.asyncDispose]());

const list = () => host.json<Vm[]>("vm", "list");
const others = async () => (await list()).filter(({ name }) => name !== "box");

/** A root prompt of bash, colours or not. */
const prompt = /root@[^\r\n]*?[#$] /;

const shellIn = async (vm: string, size?: { columns: number; rows: number }): Promise<Terminal> => {
  const terminal = await startInTerminal(host, ["vm", "shell", vm], size ? { size } : {});
  await terminal.shows(prompt);
  return terminal;
};

/** Ends a shell, and checks that the terminal is as it was found. */
const leave = async (terminal: Terminal, status = 0) => {
  terminal.type(`exit ${status}\r`);
  assert.deepEqual(await terminal.end(), { status, signal: null, modes: terminal.before });
};

test("a shell has the user's terminal: prompt, size, TERM, COLORTERM, colours; its status is forwarded", async () => {
  await using terminal = await shellIn("box", { columns: 97, rows: 31 });
  assert.notEqual(await terminal.modes(), terminal.before, "raw while the session lives");
  assert.ok(terminal.output().includes(`${ESCAPE}[1;32mroot@box${ESCAPE}[0m`), "a prompt in colour");
  terminal.type('echo "<$(stty size)|$TERM|$COLORTERM|$(tty)>"\r');
  await terminal.shows(/<31 97\|xterm-256color\|truecolor\|\/dev\/pts\/\d+>/);
  terminal.type("ls -d /tmp\r");
  await terminal.shows("\x1b[30;42m/tmp\x1b[0m");
  await leave(terminal, 3);
});

test("what the guest writes reaches the screen byte for byte: its own terminal has made the line ends", async () => {
  await using terminal = await startInTerminal(host, [
    ...["vm", "exec", "-t", "box", "--", "sh", "-c"],
    "echo cooked; stty -opost; printf 'raw\\ndown\\tend\\n'",
  ]);
  assert.deepEqual(await terminal.end(), { status: 0, signal: null, modes: terminal.before });
  assert.equal(terminal.output(), "cooked\r\nraw\ndown\tend\n");
});

test("a new size of the window reaches the guest", async () => {
  await using terminal = await startInTerminal(host, [
    ...["vm", "exec", "-t", "box", "--", "sh", "-c"],
    "trap 'echo new: $(stty size)' WINCH; echo armed; while :; do sleep 0.1; done",
  ]);
  await terminal.shows("armed");
  terminal.resize(133, 44);
  await terminal.shows("new: 44 133");
  terminal.resize(40, 10);
  await terminal.shows("new: 10 40");
  terminal.type(CTRL_C);
  assert.deepEqual(await terminal.end(), { status: 130, signal: null, modes: terminal.before });
});

test("Ctrl-C, Ctrl-Z and Ctrl-D are keys of the guest: the shell lives on, its jobs obey", async () => {
  await using terminal = await shellIn("box");
  terminal.type("sh -c 'echo begun-$((1+1)); exec sleep 4711'\r");
  await terminal.shows("begun-2");
  terminal.type(CTRL_C);
  await terminal.shows(prompt);
  terminal.type("echo status-$?\r");
  await terminal.shows("status-130");
  terminal.type("sh -c 'echo begun-$((2+2)); exec sleep 4712'\r");
  await terminal.shows("begun-4");
  terminal.type(CTRL_Z);
  await terminal.shows("Stopped");
  terminal.type("kill %1; wait; echo jobs-$(jobs -r | wc -l)\r");
  await terminal.shows("jobs-0");
  terminal.type("sh -c 'echo begun-$((3+3)); exec cat'; echo read-$((3+3))\r");
  await terminal.shows("begun-6");
  terminal.type(CTRL_D);
  await terminal.shows("read-6");
  await terminal.shows(prompt);
  terminal.type(CTRL_D);
  const { status, modes } = await terminal.end();
  assert.deepEqual([status, modes], [0, terminal.before]);
});

test("vim draws in its own screen, saves, and gives the screen back", async () => {
  await using terminal = await shellIn("box");
  terminal.type("vim /root/note\r");
  await terminal.shows(`${ESCAPE}[?1049h`);
  await terminal.shows('"~/note" [New]');
  terminal.type(`iwritten in vim${ESCAPE}:wq\r`);
  await terminal.shows(`${ESCAPE}[?1049l`);
  await terminal.shows(prompt);
  terminal.type("cat /root/note | tr a-z A-Z\r");
  await terminal.shows("WRITTEN IN VIM");
  await leave(terminal);
});

test("top draws the guest's processes and ends with q", async () => {
  await using terminal = await startInTerminal(host, ["exec", "box", "-it", "--", "top"]);
  await terminal.shows("load average");
  await terminal.shows(/PID.*USER.*COMMAND/);
  terminal.type("q");
  const { status, modes } = await terminal.end();
  assert.deepEqual([status, modes], [0, terminal.before]);
});

test("a program that cannot be started leaves the terminal as it was", async () => {
  await using terminal = await startInTerminal(host, ["vm", "exec", "-t", "box", "--", "no-such-program"]);
  assert.deepEqual(await terminal.end(), { status: 127, signal: null, modes: terminal.before });
  assert.match(terminal.output(), /no-such-program: not found/);
});

test("a CLI that is asked to end gives the terminal back, and ends what ran in the guest", async () => {
  await using terminal = await startInTerminal(host, [
    ...["vm", "exec", "-t", "box", "--", "sh", "-c"],
    "echo pid $$.; exec sleep 4713",
  ]);
  const [, pid] = /pid (\d+)\./.exec(await terminal.shows(/pid \d+\./)) ?? [];
  assert.notEqual(await terminal.modes(), terminal.before);
  terminal.signal("SIGTERM");
  assert.deepEqual(await terminal.end(), { status: 143, signal: null, modes: terminal.before });
  const script = `while kill -0 ${pid} 2>/dev/null; do sleep 0.05; done; echo gone`;
  assert.equal((await host.banger("vm", "exec", "box", "--", "sh", "-c", script)).stdout, "gone\n");
});

test("a daemon that is killed under a shell ends it with an error, and the terminal is as it was", async () => {
  await using terminal = await shellIn("box");
  assert.notEqual(await terminal.modes(), terminal.before);
  process.kill(await host.daemonPid(), "SIGKILL");
  assert.deepEqual(await terminal.end(), { status: 1, signal: null, modes: terminal.before });
  assert.match(terminal.output(), /banger:.* daemon/);
  // The VM has not noticed.
  await using again = await shellIn("box");
  await leave(again);
});

test("a VM that ends under a shell is an error, and the terminal is as it was", async () => {
  await using terminal = await startInTerminal(host, ["vm", "run", "--name", "brief"]);
  await terminal.shows(prompt);
  assert.equal((await host.banger("vm", "kill", "brief")).status, 0);
  assert.deepEqual(await terminal.end(), { status: 1, signal: null, modes: terminal.before });
  assert.match(terminal.output(), /banger:/);
  assert.equal((await host.banger("vm", "delete", "brief")).status, 0);
});

test("`vm run` in a terminal is a shell in a new VM that goes on running, and says how to return", async () => {
  await using terminal = await startInTerminal(host, ["vm", "run"]);
  await terminal.shows(/debian-bookworm-slim, 1 vcpu, 256 MiB, 2 GiB disk, qemu\/(tcg|kvm)/);
  await terminal.shows(prompt);
  terminal.type("exit\r");
  const { status, modes } = await terminal.end();
  assert.deepEqual([status, modes], [0, terminal.before]);
  const [vm] = await others();
  assert.equal(vm?.state, "running");
  assert.match(
    terminal.output(),
    new RegExp(
      `${vm?.name} goes on running\\. Return: banger vm shell ${vm?.name} +Delete: banger vm delete ${vm?.name}`,
    ),
  );
  await using back = await shellIn(vm?.name ?? "");
  await leave(back);
  assert.equal((await host.banger("vm", "delete", vm?.name ?? "")).status, 0);
});

test("`vm run --rm` in a terminal leaves no VM, and does not say that one runs", async () => {
  await using terminal = await startInTerminal(host, ["vm", "run", "--rm"]);
  await terminal.shows(prompt);
  await leave(terminal, 4);
  assert.doesNotMatch(terminal.output(), /goes on running/);
  assert.deepEqual(await others(), []);
});

test("a terminal that is closed under `run --rm` leaves no VM", async () => {
  await using terminal = await startInTerminal(host, ["vm", "run", "--rm"]);
  await terminal.shows(prompt);
  const [vm] = await others();
  assert.ok(vm?.pid);
  await terminal.close();
  await processEnds(vm.pid);
  await folderHolds(host.env.XDG_STATE_HOME, async () => (await others()).length === 0);
  assert.deepEqual(await readdir(join(host.env.XDG_STATE_HOME, "banger", "vms")), [(await list())[0]?.id]);
  assert.equal((await terminal.end()).signal, null, "the CLI ends by itself");
});

test("Ctrl-C at a terminal while a VM boots cancels, and nothing is left", async () => {
  await using terminal = await startInTerminal(host, ["vm", "run", "--image", GOLDEN, "--memory", "1G"]);
  await terminal.shows("boot: ");
  terminal.type(CTRL_C);
  assert.deepEqual(await terminal.end(), { status: 130, signal: null, modes: terminal.before });
  assert.deepEqual(await others(), []);
});
