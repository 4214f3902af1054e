import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { standInDaemon } from "../../test/support/stand-in-daemon.ts";
import { BangerError } from "../contract/errors.ts";
import { encodeFrame, encodeJson, frameType, MAX_PAYLOAD } from "../contract/frames.ts";
import { type Client, openClient } from "./client.ts";

const clientOf = (daemon: { socketPath: string }): Client =>
  openClient({ socketPath: daemon.socketPath, autostart: false });

const code = (expected: string) => (error: unknown) => {
  assert.ok(error instanceof BangerError, String(error));
  assert.equal(error.code, expected, error.message);
  return true;
};

const collect = async (source: AsyncIterable<Uint8Array>): Promise<Buffer> => {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
};

const json = (value: unknown) => JSON.stringify(value);

describe("json calls", () => {
  test("fill in the path and carry the body", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    const seen: string[] = [];
    daemon.onRequest = (request, response, body) => {
      seen.push(`${request.method} ${request.url} ${body}`);
      response.end(json({ name: "box" }));
    };
    assert.deepEqual(await client.call("vmShow", { vm: "a/b" }, {}), { name: "box" });
    await client.call("vmList", {}, {});
    await client.call("shutdown", {}, {});
    assert.deepEqual(seen, ["GET /v1/vms/a%2Fb ", "GET /v1/vms ", "POST /v1/shutdown {}"]);
  });

  test("an error body is the error that is thrown", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    daemon.onRequest = (_request, response) =>
      void response.writeHead(404).end(json({ code: "VM_NOT_FOUND", message: "there is no VM x", hint: "look" }));
    await assert.rejects(client.call("vmShow", { vm: "x" }, {}), (error: BangerError) => {
      assert.deepEqual([error.code, error.message, error.hint], ["VM_NOT_FOUND", "there is no VM x", "look"]);
      return true;
    });
  });

  test("nobody there, without autostart, is DAEMON_UNREACHABLE with a hint", async () => {
    using client = openClient({ socketPath: "/tmp/banger-nobody.sock", autostart: false });
    await assert.rejects(client.call("status", {}, {}), (error: BangerError) => {
      assert.equal(error.code, "DAEMON_UNREACHABLE");
      assert.match(error.hint ?? "", /banger daemon start/);
      return true;
    });
    await assert.rejects(client.stream("vmExec", { vm: "x" }, { argv: ["a"] }), code("DAEMON_UNREACHABLE"));
  });

  test("an answer that breaks off is DAEMON_UNREACHABLE", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    daemon.onRequest = (_request, response) => {
      response.writeHead(200, { "content-length": 100 });
      response.write("[", () => response.destroy());
    };
    await assert.rejects(client.call("vmList", {}, {}), code("DAEMON_UNREACHABLE"));
  });
});

describe("operations", () => {
  const begun = json({ operation: { id: "op1", what: "start box", startedAt: 0 } });

  test("report progress and give the result", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    daemon.onRequest = (_request, response) => {
      // Lines cut anywhere, also inside a character.
      const bytes = Buffer.from(
        `${begun}\n${json({ progress: { stage: "boot", message: "é" } })}\n${json({ result: { name: "box" } })}\n`,
      );
      const cut = bytes.indexOf(0xc3) + 1;
      response.write(bytes.subarray(0, cut));
      setTimeout(() => response.end(bytes.subarray(cut)), 20);
    };
    const events: unknown[] = [];
    const signal = new AbortController().signal;
    const vm = await client.operation("vmStart", { vm: "box" }, {}, { signal, report: (event) => events.push(event) });
    assert.equal(vm.name, "box");
    assert.deepEqual(events, [{ stage: "boot", message: "é" }]);
  });

  test("an abort asks the daemon to cancel and waits for its last word", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    let undone = false;
    let finish: () => void = () => undefined;
    daemon.onRequest = (request, response) => {
      if (request.method === "DELETE") {
        assert.equal(request.url, "/v1/operations/op1");
        response.end("{}");
        setTimeout(finish, 50);
        return;
      }
      response.write(`${begun}\n`);
      finish = () => {
        undone = true;
        response.end(`${json({ error: { code: "CANCELLED", message: "cancelled" } })}\n`);
      };
    };
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 20);
    await assert.rejects(
      client.operation("vmStart", { vm: "box" }, {}, { signal: controller.signal, report: () => undefined }),
      code("CANCELLED"),
    );
    assert.equal(undone, true);
  });

  test("a lost connection is DAEMON_UNREACHABLE", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    daemon.onRequest = (_request, response) => void response.write(`${begun}\n`, () => response.destroy());
    await assert.rejects(client.operation("vmStart", { vm: "box" }, {}), code("DAEMON_UNREACHABLE"));
  });

  test("an end without a result is DAEMON_UNREACHABLE too", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    daemon.onRequest = (_request, response) => void response.end(`${begun}\n`);
    await assert.rejects(client.operation("vmStart", { vm: "box" }, {}), code("DAEMON_UNREACHABLE"));
  });
});

describe("streams", () => {
  test("bytes both ways are exact, on both outputs", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    const data = randomBytes(3 * 1024 * 1024 + 17);
    daemon.onStream = (stream) => {
      stream.send(frameType.opened, encodeJson({ pid: 7 }));
      const chunks: Buffer[] = [];
      stream.onFrame = ({ type, payload }) => {
        if (type === frameType.data) chunks.push(Buffer.from(payload));
        if (type !== frameType.end) return;
        const all = Buffer.concat(chunks);
        for (let at = 0; at < all.length; at += MAX_PAYLOAD) {
          stream.send(frameType.data, all.subarray(at, at + MAX_PAYLOAD), (at / MAX_PAYLOAD) % 2);
        }
        stream.send(frameType.end);
        stream.close({ exit: 3 });
      };
    };
    const stream = await client.stream("vmExec", { vm: "box" }, { argv: ["cat"] });
    assert.deepEqual(await stream.opened, { pid: 7 });
    for (let at = 0; at < data.length; at += 100_001) stream.stdin.write(data.subarray(at, at + 100_001));
    stream.stdin.end();
    const [out, err, end] = await Promise.all([collect(stream.stdout), collect(stream.stderr), stream.closed]);
    assert.deepEqual(end, { exit: 3 });
    const joined: Buffer[] = [];
    for (let at = 0, side = 0; at < Math.max(out.length, err.length); side ^= 1, at += side === 0 ? MAX_PAYLOAD : 0) {
      joined.push((side === 0 ? out : err).subarray(at, at + MAX_PAYLOAD));
    }
    assert.ok(Buffer.concat(joined).equals(data));
  });

  test("a large request spans frames", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    const argv = ["echo", "x".repeat(100_000)];
    let seen: unknown;
    daemon.onStream = (stream) => {
      seen = stream.request.argv;
      stream.close({ exit: 0 });
    };
    await (await client.stream("vmExec", { vm: "box" }, { argv })).closed;
    assert.deepEqual(seen, argv);
    await assert.rejects(
      client.stream("vmExec", { vm: "box" }, { argv: ["x".repeat(5_000_000)] }),
      code("INVALID_REQUEST"),
    );
  });

  test("a reader that is slow stops the daemon, whichever output it is and whatever the other does", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    let sent = 0;
    daemon.onStream = (stream) => {
      const pump = () => {
        while (sent < 64 * 1024 * 1024) {
          sent += MAX_PAYLOAD;
          stream.send(frameType.data, "e", 1);
          if (!stream.send(frameType.data, new Uint8Array(MAX_PAYLOAD))) {
            stream.socket.once("drain", pump);
            return;
          }
        }
        stream.close({ exit: 0 });
      };
      pump();
    };
    const stream = await client.stream("vmExec", { vm: "box" }, { argv: ["yes"] });
    stream.stderr.resume();
    await sleep(200);
    const before = sent;
    assert.ok(before < 4 * 1024 * 1024, `${before} bytes were sent to a reader that reads nothing`);
    assert.ok(stream.stdout.readableLength < 1024 * 1024);
    await sleep(100);
    assert.equal(sent, before);
    assert.equal((await collect(stream.stdout)).length, sent);
    assert.deepEqual(await stream.closed, { exit: 0 });
  });

  test("a reader that gives up drops the rest, and the end still arrives", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    daemon.onStream = (stream) => {
      for (let i = 0; i < 200; i++) stream.send(frameType.data, new Uint8Array(MAX_PAYLOAD));
      stream.close({ exit: 0 });
    };
    const stream = await client.stream("vmExec", { vm: "box" }, { argv: ["yes"] });
    await sleep(50);
    stream.stdout.destroy();
    assert.deepEqual(await stream.closed, { exit: 0 });
  });

  test("a daemon that takes nothing stops the writer", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    let opened: { socket: { pause(): void; resume(): void } } | undefined;
    let received = 0;
    daemon.onStream = (stream) => {
      opened = stream;
      stream.socket.pause();
      stream.onFrame = ({ type, payload }) => {
        received += payload.length;
        if (type === frameType.end) stream.close({ exit: 0 });
      };
    };
    const stream = await client.stream("vmExec", { vm: "box" }, { argv: ["cat"] });
    let written = 0;
    const writing = (async () => {
      while (written < 16 * 1024 * 1024) {
        const free = stream.stdin.write(new Uint8Array(65536));
        written += 65536;
        if (!free) await new Promise((resolve) => stream.stdin.once("drain", resolve));
      }
      stream.stdin.end();
    })();
    await sleep(150);
    assert.ok(written < 4 * 1024 * 1024, `${written} bytes were taken for a daemon that reads nothing`);
    opened?.socket.resume();
    await writing;
    await stream.closed;
    assert.equal(received, written);
  });

  test("resize, signals and events arrive", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    const controls: unknown[] = [];
    daemon.onStream = (stream) => {
      stream.send(frameType.event, encodeJson({ progress: { stage: "boot" } }));
      stream.onFrame = ({ payload }) => {
        controls.push(JSON.parse(Buffer.from(payload).toString()));
        if (controls.length === 2) stream.close({ signal: 15 });
      };
    };
    const events: unknown[] = [];
    const stream = await client.stream(
      "vmExec",
      { vm: "box" },
      { argv: ["a"] },
      { onEvent: (event) => events.push(event) },
    );
    stream.resize(100, 40);
    stream.signal(15);
    assert.deepEqual(await stream.closed, { signal: 15 });
    assert.deepEqual(controls, [{ resize: { cols: 100, rows: 40 } }, { signal: 15 }]);
    assert.deepEqual(events, [{ progress: { stage: "boot" } }]);
  });

  test("an abort reaches the daemon even while nobody reads, and its error is the end", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    daemon.onStream = (stream) => {
      for (let i = 0; i < 100; i++) stream.send(frameType.data, new Uint8Array(MAX_PAYLOAD));
      stream.onFrame = ({ type }) => {
        if (type === frameType.close) stream.close({ error: { code: "CANCELLED", message: "undone" } });
      };
    };
    const controller = new AbortController();
    const stream = await client.stream("vmExec", { vm: "box" }, { argv: ["yes"] }, { signal: controller.signal });
    await sleep(50);
    controller.abort();
    await assert.rejects(stream.closed, /undone/);
    await assert.rejects(stream.opened, code("CANCELLED"));
  });

  test("an error instead of an upgrade, and one instead of OPENED", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    daemon.onStream = (stream) => stream.close({ error: { code: "EXEC_NOT_FOUND", message: "no such program" } });
    const stream = await client.stream("vmExec", { vm: "box" }, { argv: ["a"] });
    await assert.rejects(stream.opened, code("EXEC_NOT_FOUND"));
    await assert.rejects(stream.closed, code("EXEC_NOT_FOUND"));
    assert.equal((await collect(stream.stdout)).length, 0);
  });

  test("a connection that breaks is DAEMON_UNREACHABLE, after what had arrived", async () => {
    await using daemon = await standInDaemon();
    using client = clientOf(daemon);
    daemon.onStream = (stream) => {
      stream.send(frameType.data, "half");
      stream.socket.end();
    };
    const stream = await client.stream("vmExec", { vm: "box" }, { argv: ["a"] });
    const out = collect(stream.stdout);
    await assert.rejects(stream.closed, code("DAEMON_UNREACHABLE"));
    assert.equal((await out).toString(), "half");
    stream.stdin.write("late");
    stream.resize(1, 1);
    stream.abort();
  });

  const hostile: [string, Uint8Array][] = [
    ["an unknown type", Uint8Array.of(77, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)],
    ["a length over the limit", Uint8Array.of(5, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255)],
    ["another stream", encodeFrame(frameType.data, 2, Buffer.from("x"))],
    ["a third output", encodeFrame(frameType.data, 1, Buffer.from("x"), 2)],
    [
      "data after its end",
      Buffer.concat([encodeFrame(frameType.end, 1), encodeFrame(frameType.data, 1, Buffer.from("x"))]),
    ],
    ["CLOSE that is no JSON", encodeFrame(frameType.close, 1, Buffer.from("{"))],
    ["CLOSE that says nothing", encodeFrame(frameType.close, 1, Buffer.from("{}"))],
    ["CLOSE of null", encodeFrame(frameType.close, 1, Buffer.from("null"))],
    ["a frame only clients send", encodeFrame(frameType.control, 1, Buffer.from("{}"))],
    ["an event that is no JSON", encodeFrame(frameType.event, 1, Buffer.from("x"))],
  ];
  for (const [what, bytes] of hostile) {
    test(`hostile: ${what} ends the stream with an error`, async () => {
      await using daemon = await standInDaemon();
      using client = clientOf(daemon);
      daemon.onStream = ({ socket }) => void socket.write(bytes);
      const stream = await client.stream("vmExec", { vm: "box" }, { argv: ["a"] });
      stream.stdout.resume();
      await assert.rejects(stream.closed, code("INTERNAL"));
    });
  }
});
