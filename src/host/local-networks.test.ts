import assert from "node:assert/strict";
import { networkInterfaces } from "node:os";
import { test } from "node:test";
import { localNetworks, localRoutes } from "./local-networks.ts";

const trie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/31 1 0 0
        |-- 127.0.0.0
           /8 host LOCAL
     |-- 192.0.2.0
        /24 link UNICAST
     |-- 192.0.2.2
        /25 link UNICAST
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
Local:
     |-- 192.0.2.2
        /32 host LOCAL
`;

test("what leads to this machine itself is read from the table of routes", () => {
  assert.deepEqual(localRoutes(trie), ["127.0.0.0/8", "192.0.2.2/32"]);
  assert.deepEqual(localRoutes(""), []);
});

test("every address of this machine is among its networks", async () => {
  const networks = await localNetworks();
  for (const { family, cidr, address } of Object.values(networkInterfaces()).flatMap((each) => each ?? []))
    if (family === "IPv4" && !address.startsWith("127."))
      for (const network of [cidr, `${address}/32`]) assert.ok(networks.includes(network ?? ""), `${network}`);
});
