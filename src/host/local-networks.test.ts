import assert from "node:assert/strict";
import { networkInterfaces } from "node:os";
import { test } from "node:test";
import { leadsOut4, leadsOut6, localNetworks, localRoutes, localRoutes6 } from "./local-networks.ts";

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

const zeros = "0".repeat(32);
const six = `fd000000000000000000000000000000 40 ${zeros} 00 ${zeros} 00000100 00000001 00000000 00000001     eth0
fd000000000000000000000000000002 80 ${zeros} 00 ${zeros} 00000000 00000003 00000000 80200001     eth0
`;
const route6 = (flags: string, device: string) =>
  `${zeros} 00 ${zeros} 00 fd000000000000000000000000000001 00000400 00000003 00000000 ${flags} ${device}\n`;

test("so it is for IPv6, and whether it leads anywhere", () => {
  assert.deepEqual(localRoutes6(six), ["fd00:0000:0000:0000:0000:0000:0000:0002/128"]);
  assert.deepEqual(localRoutes6(""), []);
  assert.equal(leadsOut6(six), false);
  assert.equal(leadsOut6(six + route6("00200200", "lo")), false);
  assert.equal(leadsOut6(six + route6("00000201", "eth0")), false);
  assert.equal(leadsOut6(six + route6("00000003", "eth0")), true);
  const four = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n";
  assert.equal(leadsOut4(`${four}eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n`), false);
  assert.equal(leadsOut4(`${four}eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n`), true);
});

test("every address of this machine is among its networks", async () => {
  const networks = await localNetworks();
  for (const { family, cidr, address } of Object.values(networkInterfaces()).flatMap((each) => each ?? []))
    if (family === "IPv4" && !address.startsWith("127."))
      for (const network of [cidr, `${address}/32`]) assert.ok(networks.includes(network ?? ""), `${network}`);
    else if (family === "IPv6") assert.ok(cidr !== null && networks.includes(cidr), `${cidr}`);
});
