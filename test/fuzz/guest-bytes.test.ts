/** A hostile guest, client or daemon can make its own stream fail, and nothing else. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { encodeFrame, type FrameType, frameType } from "../../src/contract/frames.ts";
import { silentProgress } from "../../src/contract/progress.ts";
import { connectGuest } from "../../src/guest/connection.ts";
import { runTool } from "../../src/host/process.ts";
import { nextFrame, scriptedGuest } from "../support/scripted-guest.ts";
import { type Failure, fuzz, repeat } from "./byte-fuzz.ts";
import { EPOCH, openStreams, targets } from "./targets.ts";

const json = fc.oneof(
  fc.json(),
  fc.constantFrom(
    '{"exit":0}',
    '{"exit":-1}',
    '{"signal":9}',
    '{"ok":null}',
    '{"ok":{"size":1e308}}',
    "{}",
    "null",
    "",
  ),
  fc
    .record({ error: fc.record({ code: fc.anything(), message: fc.anything() }) })
    .map((value) => JSON.stringify(value)),
  fc.record({ event: fc.string(), state: fc.anything() }).map((value) => JSON.stringify(value)),
);
const payload = fc.oneof(
  json.map((text) => Buffer.from(text).subarray(0, 32_000)),
  fc.uint8Array({ maxLength: 64 }),
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.integer({ min: 0, max: 32_756 }).map((length) => Buffer.alloc(length, 120)),
);

/** Frames that look right: any type, on streams that are open and others, in any order. */
const frames = (epoch: fc.Arbitrary<number>, stream: fc.Arbitrary<number>) =>
  fc
    .tuple(fc.constantFrom(...Object.values(frameType)), payload, fc.nat(2), epoch, stream)
    .map(([type, body, channel, number, id]) => encodeFrame(type as FrameType, id, body, channel, number));

const conversation = (epoch: fc.Arbitrary<number>, stream: fc.Arbitrary<number>) =>
  fc.array(
    fc.oneof(
      { weight: 8, arbitrary: frames(epoch, stream) },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }) },
    ),
    { maxLength: 40 },
  );

const epochs = fc.oneof({ weight: 9, arbitrary: fc.constant(EPOCH) }, { weight: 1, arbitrary: fc.nat(65_535) });
const guestSays = conversation(epochs, fc.oneof({ weight: 9, arbitrary: fc.nat(4) }, fc.nat(0xffff_ffff)));

/** What this process may have grown by after all runs, in bytes: garbage included. */
const MEMORY_LIMIT = 200 * 2 ** 20;

test("whatever a guest sends after its HELLO ends its streams or its connection, over a real socket", async () => {
  const before = process.memoryUsage().rss;
  await fc.assert(
    fc.asyncProperty(guestSays, async (chunks) => {
      await using guest = await scriptedGuest();
      const connecting = connectGuest(
        { channel: guest.channel, epoch: EPOCH, onEvent: () => undefined },
        silentProgress(),
      );
      guest.socket.write(guest.hello(await nextFrame(guest, frameType.sync)));
      const streams = openStreams(await connecting);
      for (const chunk of chunks) guest.socket.write(chunk);
      guest.socket.end();
      // It reads no more than it likes; its end of the socket is drained so that it can be closed.
      guest.socket.resume();
      streams.bounded();
      await streams.settle();
    }),
    { numRuns: 100, endOnFailure: true },
  );
  assert.ok(process.memoryUsage().rss - before < MEMORY_LIMIT);
});

test("whatever a guest sends in place of a HELLO is refused or waited through", async () => {
  await fc.assert(
    fc.asyncProperty(guestSays, async (chunks) => {
      await using guest = await scriptedGuest();
      const connecting = connectGuest(
        { channel: guest.channel, epoch: EPOCH, onEvent: () => undefined },
        silentProgress(),
      );
      connecting.catch(() => undefined);
      await nextFrame(guest, frameType.sync);
      for (const chunk of chunks) guest.socket.write(chunk);
      guest.socket.end();
      guest.socket.resume();
      await assert.rejects(connecting);
    }),
    { numRuns: 50, endOnFailure: true },
  );
});

for (const name of ["client", "daemon"] as const) {
  test(`whatever the ${name}'s end of a stream receives, the stream ends`, async () => {
    const says = conversation(fc.constant(0), fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, fc.nat(3)));
    await fc.assert(
      fc.asyncProperty(says, (chunks) => targets[name].feed(chunks)),
      { numRuns: 200, endOnFailure: true },
    );
  });
}

test("recorded conversations go well as they are", async () => {
  for (const { conversations, feed } of Object.values(targets)) for (const bytes of conversations) await feed([bytes]);
});

test("mutated conversations break nothing", async () => {
  const { cases, failure } = await fuzz({
    names: ["guest", "client", "daemon", "proxy"],
    seed: 4711,
    milliseconds: 6000,
  });
  assert.equal(failure?.message, undefined, JSON.stringify(failure));
  assert.ok(cases > 100, `${cases} cases`);
});

test("the fuzzer itself can fail, and its file repeats what it found", async () => {
  const folder = await mkdtemp(join(tmpdir(), "banger-fuzz-"));
  try {
    const file = join(folder, "failure.json");
    // In a process of its own: the test runner takes what escapes for its own failure.
    const script = `
      import { targets } from ${JSON.stringify(join(import.meta.dirname, "targets.ts"))};
      import { fuzz } from ${JSON.stringify(join(import.meta.dirname, "byte-fuzz.ts"))};
      const { feed } = targets.client;
      targets.client.feed = async (chunks) => {
        await feed(chunks);
        if (Buffer.concat(chunks).includes(0xff)) queueMicrotask(() => { throw new Error("an escape"); });
      };
      const { failure } = await fuzz({ names: ["client"], seed: 1, milliseconds: 30000 });
      process.stdout.write(JSON.stringify(failure));`;
    const { stdout } = await runTool({ argv: [process.execPath, "--input-type=module", "--eval", script] });
    assert.match((JSON.parse(stdout) as Failure).message, /an escape/);
    await writeFile(file, stdout);
    assert.equal(await repeat(file), undefined);
  } finally {
    await rm(folder, { recursive: true });
  }
});
