import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { type StandIn, type StandInStream, standInDaemon } from "../../test/support/stand-in-daemon.ts";
import { encodeJson, frameType } from "../contract/frames.ts";

const main = join(import.meta.dirname, "main.ts");

/** The CLI as a process of its own, with a stand-in for the daemon. */
const withCli = async (
  use: (
    daemon: StandIn,
    start: (args: string[], stdin?: "pipe" | "ignore") => ChildProcess,
    env: NodeJS.ProcessEnv,
  ) => Promise<void>,
): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-cli-"));
  const env = { ...process.env, XDG_RUNTIME_DIR: folder, NO_COLOR: "1", TERM: "xterm-test" };
  await mkdir(join(folder, "banger"), { mode: 0o700 });
  const children: ChildProcess[] = [];
  const start = (args: string[], stdin: "pipe" | "ignore" = "ignore") => {
    const child = spawn(process.execPath, [main, ...args], { env, stdio: [stdin, "pipe", "pipe"] });
    children.push(child);
    return child;
  };
  try {
    await using daemon = await standInDaemon(join(folder, "banger", "bangerd.sock"));
    await use(daemon, start, env);
  } finally {
    for (const child of children) child.kill("SIGKILL");
    await rm(folder, { recursive: true });
  }
};

const outcome = async (child: ChildProcess) => {
  const text = async (stream: NodeJS.ReadableStream | null) => {
    let all = "";
    for await (const chunk of stream ?? []) all += String(chunk);
    return all;
  };
  const exit = new Promise<number | null>((resolve) => child.once("close", resolve));
  const [stdout, stderr, status] = await Promise.all([text(child.stdout), text(child.stderr), exit]);
  return { stdout, stderr, status };
};

const open = (stream: StandInStream) => stream.send(frameType.opened, encodeJson({ pid: 1 }));

describe("a command", () => {
  test("its status, its outputs and its argv are exact", () =>
    withCli(async (daemon, start) => {
      let request: unknown;
      daemon.onStream = (stream) => {
        request = stream.request;
        open(stream);
        stream.send(frameType.data, "out\n");
        stream.send(frameType.data, "err\n", 1);
        stream.close({ exit: 42 });
      };
      const result = await outcome(start(["exec", "box", "-e", "A=b", "--", "sh", "-c", "exit  42"]));
      assert.deepEqual(result, { stdout: "out\n", stderr: "err\n", status: 42 });
      assert.deepEqual(request, { argv: ["sh", "-c", "exit  42"], env: { A: "b" } });
    }));

  test("a signal that ended it is 128 and its number", () =>
    withCli(async (daemon, start) => {
      daemon.onStream = (stream) => stream.close({ signal: 9 });
      assert.equal((await outcome(start(["exec", "box", "x"]))).status, 137);
    }));

  test("an error of ours has a message and its own status, never the command's", () =>
    withCli(async (daemon, start) => {
      daemon.onStream = (stream) =>
        stream.close({ error: { code: "EXEC_NOT_FOUND", message: "nope: not found in the guest", hint: "look" } });
      assert.deepEqual(await outcome(start(["exec", "box", "nope"])), {
        stdout: "",
        stderr: "banger: nope: not found in the guest\nhint: look\n",
        status: 127,
      });
      const json = await outcome(start(["exec", "--json", "box", "nope"]));
      assert.deepEqual(JSON.parse(json.stderr), {
        code: "EXEC_NOT_FOUND",
        message: "nope: not found in the guest",
        hint: "look",
      });
    }));

  test("a pipe on stdin is sent, and its end too", () =>
    withCli(async (daemon, start) => {
      daemon.onStream = (stream) => {
        open(stream);
        stream.onFrame = ({ type, payload }) => {
          if (type === frameType.data) stream.send(frameType.data, payload);
          if (type === frameType.end) stream.close({ exit: 0 });
        };
      };
      const child = start(["exec", "box", "cat"], "pipe");
      child.stdin?.end("hello");
      assert.deepEqual(await outcome(child), { stdout: "hello", stderr: "", status: 0 });
    }));

  test("an stdin that stays open does not keep it", () =>
    withCli(async (daemon, start) => {
      daemon.onStream = (stream) => {
        open(stream);
        stream.close({ exit: 5 });
      };
      assert.equal((await outcome(start(["exec", "box", "true"], "pipe"))).status, 5);
    }));

  test("a reader that goes away cuts the command off, quietly", () =>
    withCli(async (daemon, start) => {
      const cut = Promise.withResolvers<void>();
      daemon.onStream = (stream) => {
        open(stream);
        const pump = setInterval(() => stream.send(frameType.data, "line\n".repeat(1000)), 1);
        stream.onFrame = ({ type }) => {
          if (type !== frameType.close) return;
          clearInterval(pump);
          stream.close({ error: { code: "CANCELLED", message: "cancelled" } });
          cut.resolve();
        };
      };
      const child = start(["exec", "box", "yes"]);
      child.stdout?.once("data", () => child.stdout?.destroy());
      let stderr = "";
      child.stderr?.on("data", (chunk) => {
        stderr += chunk;
      });
      const status = await new Promise((resolve) => child.once("exit", resolve));
      await cut.promise;
      assert.deepEqual([status, stderr], [141, ""]);
    }));

  test("signals are sent to it, and a second Ctrl-C cuts it off", () =>
    withCli(async (daemon, start) => {
      const controls: unknown[] = [];
      let child: ChildProcess | undefined;
      daemon.onStream = (stream) => {
        open(stream);
        stream.send(frameType.data, "ready");
        stream.onFrame = ({ type, payload }) => {
          if (type === frameType.close) stream.close({ error: { code: "CANCELLED", message: "cancelled" } });
          if (type !== frameType.control) return;
          controls.push(JSON.parse(Buffer.from(payload).toString()));
          child?.kill("SIGINT");
        };
      };
      child = start(["exec", "box", "sleep", "100"]);
      child.stdout?.once("data", () => child?.kill("SIGTERM"));
      const { status, stderr } = await outcome(child);
      assert.deepEqual(controls, [{ signal: 15 }, { signal: 2 }]);
      assert.deepEqual([status, stderr], [130, ""]);
    }));

  test("Ctrl-C before it runs undoes all and leaves with 130", () =>
    withCli(async (daemon, start) => {
      let undone = false;
      let child: ChildProcess | undefined;
      daemon.onStream = (stream) => {
        stream.onFrame = ({ type }) => {
          if (type !== frameType.close) return;
          setTimeout(() => {
            undone = true;
            stream.close({ error: { code: "CANCELLED", message: "cancelled" } });
          }, 100);
        };
        setTimeout(() => child?.kill("SIGINT"), 50);
      };
      child = start(["run", "--", "true"]);
      assert.equal((await outcome(child)).status, 130);
      assert.equal(undone, true);
    }));
});

describe("a terminal", () => {
  /** Runs a shell line in a pty, and tells the terminal's settings before and after it. */
  const inPty = (line: string, env: NodeJS.ProcessEnv): ChildProcess =>
    spawn("script", ["-qec", `stty rows 33 cols 111; stty -g; ${line}; echo "status $?"; stty -g`, "/dev/null"], {
      env: { ...env, SHELL: "/bin/sh" },
      stdio: ["pipe", "pipe", "pipe"],
    });
  const cli = `'${process.execPath}' '${main}'`;

  const settings = (stdout: string): string[] =>
    stdout.split(/\r?\n/).filter((text) => /^[0-9a-f]+(:[0-9a-f]+){10,}$/.test(text));

  test("a shell gets size, TERM, every key and each new size; it is given back at the end", () =>
    withCli(async (daemon, _start, env) => {
      const keys: string[] = [];
      let request: Record<string, unknown> = {};
      daemon.onStream = (stream) => {
        ({ request } = stream);
        open(stream);
        stream.send(frameType.data, "prompt");
        stream.onFrame = ({ type, payload }) => {
          if (type !== frameType.data) return;
          keys.push(Buffer.from(payload).toString());
          if (keys.join("").endsWith("\x03q")) stream.close({ exit: 7 });
        };
      };
      const child = inPty(`${cli} shell box`, env);
      child.stdout?.on("data", (chunk) => {
        if (String(chunk).includes("prompt")) setTimeout(() => child.stdin?.write("\x03q"), 100);
      });
      const { stdout } = await outcome(child);
      assert.deepEqual(request.pty, { cols: 111, rows: 33, term: "xterm-test" });
      assert.match(stdout, /status 7/);
      const [before, after] = settings(stdout);
      assert.ok(before);
      assert.equal(after, before);
    }));

  const ends: [what: string, end: (stream: StandInStream) => void][] = [
    ["the daemon is lost", (stream) => void stream.socket.destroy()],
    ["the daemon fails", (stream) => stream.close({ error: { code: "VM_STOPPED", message: "it stopped" } })],
  ];
  for (const [what, end] of ends) {
    test(`it is given back when ${what}`, () =>
      withCli(async (daemon, _start, env) => {
        daemon.onStream = (stream) => {
          open(stream);
          setTimeout(() => end(stream), 100);
        };
        const { stdout } = await outcome(inPty(`${cli} shell box`, env));
        assert.match(stdout, /status 1\b/);
        const [before, after] = settings(stdout);
        assert.ok(before);
        assert.equal(after, before);
      }));
  }

  test("it is given back when the command is asked to end, which cuts the shell off", () =>
    withCli(async (daemon, _start, env) => {
      daemon.onStream = (stream) => {
        open(stream);
        stream.send(frameType.data, "prompt");
        stream.onFrame = ({ type }) => {
          if (type === frameType.close) stream.close({ error: { code: "CANCELLED", message: "cancelled" } });
        };
      };
      // The shell's own pid is handed on by exec, so that the test knows whom to end.
      const child = inPty(`sh -c 'echo pid $$; exec ${cli.replaceAll("'", "")} shell box'`, env);
      let seen = "";
      child.stdout?.on("data", (chunk) => {
        seen += String(chunk);
        const pid = Number(/pid (\d+)/.exec(seen)?.[1]);
        if (pid && seen.includes("prompt")) {
          seen = "";
          setTimeout(() => process.kill(pid, "SIGTERM"), 50);
        }
      });
      const { stdout } = await outcome(child);
      assert.match(stdout, /status 143/);
      const [before, after] = settings(stdout);
      assert.ok(before);
      assert.equal(after, before);
    }));
});
