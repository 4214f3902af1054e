import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { ownerIn } from "./owner.ts";
import { listenWhose, questionIn } from "./whose.ts";

test("a question names a VM, a protocol and two ports; all else is none", () => {
  assert.deepEqual(questionIn("0a1b udp 40000 53"), { vm: "0a1b", proto: "udp", port: 40000, to: 53 });
  for (const wrong of ["", "box tcp 1 2", "0a tcp 1", "0a icmp 1 2", "0a tcp 1 2 3", "0a tcp -1 2", "0a tcp 1 2\n"])
    assert.equal(questionIn(wrong), undefined, wrong);
});

test("what a guest says of its processes is written down without what could break a line, and not at all where it makes no sense", () => {
  assert.equal(ownerIn({ pid: 612, process: "curl" }), "curl(612)");
  assert.equal(ownerIn({ pid: 1, process: "a b\n(2) by: \u001b[31m\u00fc" }), "a_b__2__by:___31m_(1)");
  assert.equal(ownerIn({ pid: 1, process: "x".repeat(1000) }), `${"x".repeat(32)}(1)`);
  for (const wrong of [
    {},
    undefined,
    "curl",
    { pid: 0, process: "a" },
    { pid: 1 },
    { pid: 1, process: "" },
    { pid: "1", process: "a" },
  ])
    assert.equal(ownerIn(wrong), "", JSON.stringify(wrong));
});

test("of a VM that nobody knows nothing is said, and a question that does not end gets no answer", async () => {
  const folder = await mkdtemp(join(tmpdir(), "whose-"));
  const path = join(folder, "whose.sock");
  const log = { debug: () => undefined } as unknown as Parameters<typeof listenWhose>[2];
  const server = await listenWhose(path, () => undefined, log);
  try {
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    const ask = async (question: string): Promise<string> => {
      const socket = connect({ path });
      await once(socket, "connect");
      socket.on("error", () => socket.destroy());
      socket.write(question);
      return text(socket);
    };
    assert.equal(await ask("0a tcp 1 2\n"), "\n");
    assert.equal(await ask("what?\n"), "\n");
    assert.equal(await ask("x".repeat(1000)), "");
  } finally {
    server.close();
    await rm(folder, { recursive: true });
  }
});
