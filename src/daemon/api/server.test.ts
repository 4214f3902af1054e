import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connectTo, listenAt } from "../../host/sockets.ts";
import { stopAccepting } from "./server.ts";

test("a daemon that ends takes no connections, and keeps those that wait for its end", {
  timeout: 10_000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), "banger-server-"));
  const path = join(folder, "s");
  const server = createServer((_request, response) => response.end("done"));
  try {
    await listenAt(server, path);
    const [waiting] = await Promise.all([connectTo(path), once(server, "connection")]);
    stopAccepting(server);
    await assert.rejects(connectTo(path), { code: "ECONNREFUSED" });
    waiting.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    const [answer] = (await once(waiting, "data")) as [Buffer];
    assert.match(String(answer), /200 OK/);
    server.closeAllConnections();
    await once(waiting, "close");
  } finally {
    await rm(folder, { recursive: true });
  }
});
