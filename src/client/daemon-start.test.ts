import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { standInDaemon } from "../../test/support/stand-in-daemon.ts";
import { BangerError } from "../contract/errors.ts";
import { buildId } from "../contract/version.ts";
import { daemonSocket } from "../host/paths.ts";
import { openClient } from "./client.ts";
import { stopDaemon } from "./daemon-stop.ts";

/** The real daemon, in folders of the test's own. */
const withHome = async (use: (home: string) => Promise<void>): Promise<void> => {
  const home = await mkdtemp(join(tmpdir(), "bd-"));
  const variables = ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "NODE_OPTIONS"];
  const before = variables.map((name) => [name, process.env[name]] as const);
  for (const name of variables.slice(0, 4)) process.env[name] = join(home, name.slice(4, 7).toLowerCase());
  await mkdir(join(home, "run/banger"), { recursive: true, mode: 0o700 });
  try {
    await use(home);
  } finally {
    await stopDaemon().catch(() => undefined);
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    await rm(home, { recursive: true, maxRetries: 5 });
  }
};

const status = async () => {
  using client = openClient();
  return await client.call("status", {}, {});
};

describe("a command that finds no daemon", () => {
  test("starts one; several at once share it", () =>
    withHome(async () => {
      const pids = (await Promise.all([status(), status(), status()])).map(({ pid }) => pid);
      assert.equal(new Set(pids).size, 1);
      assert.equal((await status()).pid, pids[0]);
    }));

  test("starts one over a socket that a dead daemon left, which it does not touch itself", () =>
    withHome(async () => {
      const dead = createServer();
      await new Promise<void>((resolve) => dead.listen(daemonSocket(), resolve));
      // Closing a server unlinks its socket: the descriptor is dropped in a way that a crash would.
      const { _handle: handle } = dead as unknown as { _handle: { close(): void } };
      process.getBuiltinModule("node:fs").linkSync(daemonSocket(), `${daemonSocket()}.kept`);
      handle.close();
      await process.getBuiltinModule("node:fs/promises").rename(`${daemonSocket()}.kept`, daemonSocket());
      assert.ok((await status()).pid > 0);
    }));

  test("is told the daemon's own error", () =>
    withHome(async (home) => {
      await mkdir(join(home, "con/banger"), { recursive: true });
      await writeFile(join(home, "con/banger/config.toml"), "\nvmmm = 1\n");
      await assert.rejects(status(), (error: BangerError) => {
        assert.equal(error.code, "INVALID_CONFIG");
        assert.match(error.message, /line 2: unknown key `vmmm`/);
        return true;
      });
    }));

  test("is shown the end of the log when the daemon dies without a word", () =>
    withHome(async (home) => {
      process.env.NODE_OPTIONS = "--require=/nonexistent/module.cjs";
      await assert.rejects(status(), (error: unknown) => {
        assert.ok(error instanceof BangerError);
        assert.equal(error.code, "DAEMON_START_FAILED");
        assert.match(String(error.details?.tail), /nonexistent/);
        return true;
      });
      assert.match(await readFile(join(home, "sta/banger/daemon.log"), "utf8"), /nonexistent/);
    }));
});

describe("a daemon of another build", () => {
  test("is asked to end, and nothing is changed through it; its own takes over", () =>
    withHome(async () => {
      const asked: string[] = [];
      const old = await standInDaemon(daemonSocket(), "another");
      old.onRequest = (request, response) => {
        asked.push(`${request.method} ${request.url}`);
        response.end("{}");
        if (request.url === "/v1/shutdown") setTimeout(() => void old[Symbol.asyncDispose](), 20);
      };
      using client = openClient();
      await assert.rejects(
        client.operation("vmDelete", { vm: "box" }, {}),
        (error: BangerError) => error.code === "VM_NOT_FOUND",
      );
      // Asked once more before it is stopped: a peer may have replaced it meanwhile.
      assert.deepEqual(asked, ["GET /v1/status", "GET /v1/status", "POST /v1/shutdown"]);
      assert.equal((await client.call("status", {}, {})).build, buildId());
    }));

  test("a stream is opened at the new one only", () =>
    withHome(async () => {
      const old = await standInDaemon(daemonSocket(), "another");
      let opened = 0;
      old.onStream = () => void opened++;
      old.onRequest = (request, response) => {
        response.end("{}");
        if (request.method !== "POST") return;
        setTimeout(() => void old[Symbol.asyncDispose](), 20);
      };
      using client = openClient();
      const stream = await client.stream("vmExec", { vm: "box" }, { argv: ["true"] });
      await assert.rejects(stream.closed, (error: BangerError) => error.code === "VM_NOT_FOUND");
      assert.equal(opened, 0);
    }));
});
