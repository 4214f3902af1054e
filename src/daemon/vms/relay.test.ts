import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { mock, test } from "node:test";
import { nextFrame, scriptedGuest } from "../../../test/support/scripted-guest.ts";
import { frameType } from "../../contract/frames.ts";
import { silentProgress } from "../../contract/progress.ts";
import { connectGuest } from "../../guest/connection.ts";
import type { ClientStream } from "../api/client-stream.ts";
import { relay } from "./relay.ts";

test("a guest that does not end the work of a client that is gone is not waited for forever", async () => {
  await using guest = await scriptedGuest();
  const connecting = connectGuest({ channel: guest.channel, epoch: 1, onEvent: () => undefined }, silentProgress());
  guest.socket.write(guest.hello(await nextFrame(guest, frameType.sync)));
  const connection = await connecting;
  const gone = new AbortController();
  const [input, output, errors] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const client = { input, output, errors, gone: gone.signal, onControl: () => undefined, opened: () => undefined };
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const relayed = relay(client as unknown as ClientStream, connection, { op: "exec", argv: ["sleep", "9"] });
    gone.abort();
    await nextFrame(guest, frameType.close);
    mock.timers.tick(10_000);
    await assert.rejects(relayed, { code: "CANCELLED" });
  } finally {
    mock.timers.reset();
  }
});
