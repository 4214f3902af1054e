/** What a guest reaches and what it does not: the world outside yes, this machine's own loopback no. */
import assert from "node:assert/strict";
import { mkdir, readdir, symlink } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { processEnds } from "../support/wait.ts";

const GOLDEN = "debian-bookworm";
const SLIM = "debian-bookworm-slim";
const config = `default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "256M"\ndisk_size = "4G"\n`;
let host: Host;

before(async () => {
  host = await testHost(config);
  await installFixture(host, [GOLDEN, SLIM]);
  const shape = ["--image", GOLDEN, "--memory", "768M", "--vcpu", "2"];
  const done = await host.banger("vm", "run", "-d", "--name", "net", ...shape);
  assert.equal(done.status, 0, done.stderr);
  assert.doesNotMatch(done.stderr, /passt is not installed/);
});
after(() => host[Symbol.asyncDispose]());

const inGuest = async (script: string, vm = "net"): Promise<string> => {
  const done = await host.run(["vm", "exec", vm, "--", "sh", "-ec", script], { timeout: 300_000 });
  assert.equal(done.status, 0, `${done.stdout}\n${done.stderr}`);
  return done.stdout;
};
const passts = async (of = host) => (await of.processes()).filter(({ command }) => command.startsWith("passt "));

/** A server on this machine's loopback that counts who comes. */
const loopbackServer = async () => {
  let visitors = 0;
  const server = createServer((socket) => {
    visitors++;
    socket.on("error", () => socket.destroy());
    socket.end("secret\n");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    visitors: () => visitors,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
};

test("names resolve, TCP goes out, and a package is installed from the distribution", async () => {
  const [, mirror = ""] = /^URIs: https?:\/\/([^/\s]+)/m.exec(await inGuest("cat /etc/apt/sources.list.d/*")) ?? [];
  assert.match(await inGuest(`getent ahostsv4 ${mirror}`), /^\d+\.\d+\.\d+\.\d+ /);
  await inGuest("apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y cowsay");
  assert.match(await inGuest("/usr/games/cowsay reached"), /< reached >/);
});

test("what is behind addresses that the guest translates, as its containers are, gets all that it asks for", async () => {
  const [, mirror = ""] = /^URIs: (\S+)/m.exec(await inGuest("cat /etc/apt/sources.list.d/*")) ?? [];
  await inGuest(`ip netns add box && ip link add outer type veth peer name inner netns box
    ip addr add 10.99.0.1/24 dev outer && ip link set outer up
    ip -n box addr add 10.99.0.2/24 dev inner && ip -n box link set inner up && ip -n box route add default via 10.99.0.1
    sysctl -q net.ipv4.ip_forward=1 && iptables -t nat -A POSTROUTING -s 10.99.0.0/24 -j MASQUERADE`);
  const fetched = await inGuest(
    `ip netns exec box curl -fsS --max-time 120 ${mirror}/dists/bookworm/InRelease | tail -n 1`,
  );
  assert.equal(fetched, "-----END PGP SIGNATURE-----\n");
});

/** Whether a server of this machine answers the guest at this address: nc ends with 0 when it has connected. */
const reached = (address: string, port: number): Promise<string> =>
  inGuest(`nc -w 2 ${address} ${port} </dev/null && echo reached || echo not`);

test("the services on this machine's loopback are out of the guest's reach, by any address", async () => {
  await using server = await loopbackServer();
  const own = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ family }) => family === "IPv4")
    .map(({ address }) => address);
  for (const address of new Set([
    "10.0.2.2",
    "10.0.2.3",
    "10.0.2.15",
    "127.0.0.1",
    "127.0.0.53",
    "169.254.169.254",
    ...own,
  ]))
    assert.equal(await reached(address, server.port), "not\n", address);
  assert.equal(server.visitors(), 0);
});

test("a guest that sends packets for 127.0.0.1 itself out of its network card does not reach this machine", async () => {
  await using server = await loopbackServer();
  const leave =
    "sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1; " +
    "ip rule add pref 1 lookup local; ip route add table 9 127.0.0.1 via 10.0.2.2 dev eth0; " +
    "ip rule add pref 0 to 127.0.0.1 lookup 9; ip rule del pref 0 lookup local; ip route get 127.0.0.1 | head -n 1";
  assert.match(await inGuest(leave), /127\.0\.0\.1 via 10\.0\.2\.2 dev eth0/);
  assert.equal(await reached("127.0.0.1", server.port), "not\n");
  assert.equal(server.visitors(), 0);
});

test("passt lives and dies with its VM, one for each", async () => {
  assert.equal((await passts()).length, 1);
  assert.equal((await host.banger("vm", "run", "-d", "--name", "second")).status, 0);
  const two = await passts();
  assert.equal(two.length, 2);
  assert.equal((await host.banger("vm", "stop", "second")).status, 0);
  const [first] = await passts();
  const gone = two.find(({ pid }) => pid !== first?.pid);
  assert.ok(gone);
  await processEnds(gone.pid);
  assert.equal((await passts()).length, 1);
  assert.equal((await host.banger("vm", "start", "second")).status, 0);
  const { pid } = await host.json<Vm>("vm", "show", "second");
  assert.ok(pid);
  const [latest] = (await passts()).filter((candidate) => candidate.pid !== first?.pid);
  assert.ok(latest);
  process.kill(pid, "SIGKILL");
  await processEnds(latest.pid);
  assert.equal((await host.banger("vm", "delete", "second")).status, 0);
});

test("`--net none`: no network card, no passt, and commands run", async () => {
  const before = (await passts()).length;
  assert.equal((await host.banger("vm", "run", "-d", "--name", "island", "--net", "none")).status, 0);
  assert.equal(await inGuest("ls /sys/class/net; cat /proc/net/route | wc -l", "island"), "lo\n1\n");
  assert.equal((await passts()).length, before);
  assert.equal((await host.json<Vm>("vm", "show", "island")).network, "none");
  assert.equal((await host.banger("vm", "delete", "island")).status, 0);
});

test("without passt a VM starts with QEMU's own network and a note that says what that costs", async () => {
  await using poor = await testHost(config);
  await installFixture(poor, [SLIM]);
  const bin = join(poor.env.HOME, "bin");
  await mkdir(bin);
  for (const folder of ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]) {
    for (const name of await readdir(folder).catch(() => [])) {
      if (name !== "passt") await symlink(join(folder, name), join(bin, name)).catch(() => undefined);
    }
  }
  // The control of the test above: here a server on the loopback is reached, as the note says.
  await using server = await loopbackServer();
  const visit = `cat </dev/tcp/10.0.2.2/${server.port}`;
  const done = await poor.run(["vm", "run", "--rm", "--", "bash", "-c", visit], { env: { PATH: bin } });
  assert.deepEqual([done.status, done.stdout], [0, "secret\n"], done.stderr);
  assert.match(done.stderr, /note: passt is not installed[\s\S]*loopback[\s\S]*apt-get install -y passt/);
  assert.deepEqual(await passts(poor), []);
});
