/** Ports of a VM on this machine: published as they are asked for, recorded, there after restarts, gone with the VM. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { Resolver } from "node:dns/promises";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { after, before, test } from "node:test";
import type { DaemonStatus } from "../../src/contract/api.ts";
import type { GuestPort, Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Done, type Host, testHost } from "../support/host.ts";
import { outputHolds, processEnds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;
let address: string;

const ok = async (...args: string[]): Promise<Done> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, `${args.join(" ")}: ${done.stderr}`);
  return done;
};
const show = (name = "box") => host.json<Vm>("vm", "show", name);
const ports = (name = "box") => host.json<GuestPort[]>("vm", "ports", name);

/** A server in the guest, on its loopback alone, that goes on by itself: every line comes back with a word before it. */
const lineServer = (port: number, word: string, listen = "127.0.0.1") =>
  `use IO::Socket::IP; $SIG{CHLD} = "IGNORE"; $SIG{HUP} = "IGNORE"; my $s = IO::Socket::IP->new(LocalHost => "${listen}", LocalPort => ${port}, Listen => 64, ReuseAddr => 1) or die $@; print "listens\\n"; close STDOUT; while (my $c = $s->accept) { next if fork; while (<$c>) { print $c "${word} $_" } exit }`;
const udpServer = (port: number) =>
  `use IO::Socket::IP; $SIG{HUP} = "IGNORE"; my $s = IO::Socket::IP->new(LocalHost => "127.0.0.1", LocalPort => ${port}, Proto => "udp", Type => SOCK_DGRAM) or die $@; print "listens\\n"; close STDOUT; while ($s->recv(my $d, 65535)) { $s->send("udp $d") }`;

/** Starts it in the background of the guest; returns when it listens. */
const inBackground = (program: string, vm = "box") =>
  ok(
    "vm",
    "exec",
    vm,
    "--",
    "sh",
    "-c",
    'mkfifo /tmp/f$$; setsid perl -e "$1" >/tmp/f$$ 2>/tmp/err & read said </tmp/f$$; test "$said" = listens',
    "sh",
    program,
  );

const dial = async (port: number, at = address): Promise<Socket> => {
  const socket = connect({ host: at, port });
  await once(socket, "connect");
  return socket;
};
const ask = async (port: number, line: string, at = address): Promise<string> => {
  const socket = await dial(port, at);
  socket.write(`${line}\n`);
  const [answer] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  return String(answer);
};
const askUdp = async (port: number, datagram: string): Promise<string> => {
  const socket = createSocket("udp4");
  socket.send(datagram, port, address);
  const [answer] = (await once(socket, "message")) as [Buffer];
  socket.close();
  return String(answer);
};
const refusal = async (port: number, at = address): Promise<string | undefined> => {
  const socket = connect({ host: at, port });
  try {
    await once(socket, "connect");
    await once(socket, "data");
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  } finally {
    socket.destroy();
  }
};

before(async () => {
  host = await testHost(
    `default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "192M"\ndisk_size = "1G"\n[network]\ndns = "127.0.0.1:0"\nweb = "127.0.0.1:0"\n`,
  );
  await installFixture(host, [SLIM]);
});
after(() => host[Symbol.asyncDispose]());

test("what cannot be published is refused before a VM is made, and says what to do", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const taken = await host.banger("vm", "run", "-d", "--publish", `127.0.0.1:${port}:80`);
  assert.equal(taken.status, 1);
  assert.match(
    taken.stderr,
    new RegExp(
      `127\\.0\\.0\\.1:${port} is in use by \\S+ \\(process ${process.pid}\\)[\\s\\S]*banger vm publish \\S+ 0:80[\\s\\S]*kill ${process.pid}`,
    ),
  );
  for (const wrong of ["0", "80:x", "host:80:80", "70000"]) {
    const refused = await host.banger("vm", "run", "-d", "--publish", wrong);
    assert.equal(refused.status, 2, wrong);
  }
  assert.deepEqual(await host.json("vm", "list"), []);
  server.close();
});

test("`--publish`: a server on the guest's loopback answers on the VM's own address", async () => {
  const done = await ok("vm", "run", "-d", "--name", "box", "--publish", "3000", "-p", "5300:53/udp", "--net", "none");
  assert.doesNotMatch(done.stderr, /whoever/);
  ({ address } = await show());
  assert.match(address, /^127\.(6[4-9]|[7-9]\d|1\d\d)\./);
  assert.equal(await refusal(3000), "ECONNRESET");
  await inBackground(lineServer(3000, "tcp"));
  await inBackground(udpServer(53));
  assert.equal(await ask(3000, "one"), "tcp one\n");
  assert.equal(await askUdp(5300, "two"), "udp two");
  assert.equal(await refusal(3000, "127.0.0.1"), "ECONNREFUSED");
  const [udp, tcp] = await ports();
  assert.deepEqual(
    [tcp, udp].map((found) => [found?.proto, found?.address, found?.process, found?.published]),
    [
      ["tcp", "127.0.0.1", "perl", [{ proto: "tcp", guest: 3000, host: 3000, address }]],
      ["udp", "127.0.0.1", "perl", [{ proto: "udp", guest: 53, host: 5300, address }]],
    ],
  );
  assert.match(
    (await ok("vm", "ports", "box")).stdout,
    new RegExp(`3000 +tcp +127\\.0\\.0\\.1 +${address}:3000 +perl`),
  );
});

/** Answers any request and ends. */
const webServer = (port: number) =>
  `use IO::Socket::IP; $SIG{HUP} = "IGNORE"; my $s = IO::Socket::IP->new(LocalHost => "127.0.0.1", LocalPort => ${port}, Listen => 4) or die $@; print "listens\\n"; close STDOUT; while (my $c = $s->accept) { while (<$c>) { last if /^\\r?$/ } print $c "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nfrom the guest"; close $c }`;

test("NAME.vm is the VM's address, and PORT.NAME.localhost its server, published or not", async () => {
  const status = await host.json<DaemonStatus>("daemon", "status");
  const resolver = new Resolver();
  resolver.setServers([status.dns?.address ?? ""]);
  assert.deepEqual(await resolver.resolve4("box.vm"), [address]);
  await assert.rejects(resolver.resolve4("fox.vm"), { code: "ENOTFOUND" });
  await inBackground(webServer(8000));
  const [, port] = status.web?.address.split(":") ?? [];
  const asked = request({ host: "127.0.0.1", port, headers: { Host: `8000.box.localhost:${port}` } }).end();
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  const [body] = (await once(response, "data")) as [Buffer];
  assert.deepEqual([response.statusCode, String(body)], [200, "from the guest"]);
});

test("ports come and go on a running VM; another address only when asked, with a warning", async () => {
  await inBackground(lineServer(3001, "six", "::1"));
  const { stdout } = await ok("vm", "publish", "box", "0:3001");
  const [, port] = /^127\.\S+:(\d+) -> 3001$/m.exec(stdout) ?? [];
  assert.equal(await ask(Number(port), "x"), "six x\n");
  const everywhere = await ok("vm", "publish", "box", "0.0.0.0:0:3001");
  assert.match(everywhere.stderr, /whoever can reach this machine by 0\.0\.0\.0:\d+ reaches port 3001 of VM box/);
  const missing = await host.banger("vm", "unpublish", "box", "9");
  assert.deepEqual(
    [missing.status, /port 9 of VM box is not published[\s\S]*banger vm ports box/.test(missing.stderr)],
    [1, true],
  );
  const open = await dial(Number(port));
  open.write("held\n");
  await once(open, "data");
  const cut = assert.rejects(once(open, "data"), { code: "ECONNRESET" });
  await ok("vm", "unpublish", "box", "3001");
  await cut;
  assert.equal(await refusal(Number(port)), "ECONNREFUSED");
  assert.equal((await show()).published.length, 2);
  const other = await ok("vm", "create", "--name", "other");
  assert.equal(other.status, 0);
  const clash = await host.banger("vm", "publish", "other", `${address}:3000:80`);
  assert.match(clash.stderr, /is in use by VM box[\s\S]*banger vm unpublish box/);
  await ok("vm", "delete", "other");
});

test("published ports outlive the daemon, its `kill -9` and the VM's restart", async () => {
  const daemon = await host.daemonPid();
  process.kill(daemon, "SIGKILL");
  await processEnds(daemon);
  await ok("vm", "list");
  assert.equal(await ask(3000, "still"), "tcp still\n");
  await ok("vm", "stop", "box");
  assert.equal(await refusal(3000), "ECONNREFUSED");
  await ok("vm", "start", "box");
  await inBackground(lineServer(3000, "anew"));
  assert.equal(await ask(3000, "x"), "anew x\n");
});

test("a connection to a published port wakes a VM that sleeps", async () => {
  await ok("vm", "sleep", "box");
  assert.deepEqual(
    (await ports()).map(({ port }) => port),
    [53, 3000],
  );
  assert.equal((await show()).state, "asleep");
  assert.equal(await ask(3000, "woken"), "anew woken\n");
  assert.equal((await show()).state, "running");
});

test("with --auto, what comes to listen in the guest is published at once, for as long as it listens", async () => {
  await ok("vm", "publish", "box", "--auto");
  const watching = host.start(["vm", "list", "--watch", "--json"]);
  await outputHolds(watching, '"vms"');
  const told = outputHolds(watching, '"guest":3002');
  await inBackground(lineServer(3002, "auto"));
  await told;
  const found = (await show()).published.find(({ guest }) => guest === 3002);
  assert.deepEqual(found, { proto: "tcp", guest: 3002, host: 3002, address, auto: true });
  assert.equal(await ask(3002, "x"), "auto x\n");
  const toldUdp = outputHolds(watching, '"proto":"udp","guest":3004,"host":3004');
  await inBackground(udpServer(3004));
  await toldUdp;
  assert.equal(await askUdp(3004, "y"), "udp y");
  // A socket of a client's waits for datagrams too: it is shown, and not published.
  await inBackground(udpServer(40_000));
  const client = (await ports()).find(({ port }) => port === 40_000);
  assert.deepEqual([client?.proto, client?.process, client?.published], ["udp", "perl", []]);
  watching.kill("SIGINT");
  await once(watching, "close");
  // The next daemon watches anew.
  const daemon = await host.daemonPid();
  process.kill(daemon, "SIGKILL");
  await processEnds(daemon);
  const again = host.start(["vm", "list", "--watch", "--json"]);
  await outputHolds(again, '"guest":3002');
  assert.equal(await ask(3002, "x"), "auto x\n");
  const gone = outputHolds(again, /"published":\[(?:(?!3002)[^\]])*\]/);
  await ok(
    "vm",
    "exec",
    "box",
    "--",
    "sh",
    "-c",
    "kill $(grep -l 3002 /proc/[0-9]*/cmdline | cut -d/ -f3 | grep -v $$) 2>/dev/null; true",
  );
  await gone;
  again.kill("SIGINT");
  await once(again, "close");
  assert.equal(await refusal(3002), "ECONNREFUSED");
});

test("clients at once get their own answers, and a VM takes its ports with it", async () => {
  const answers = await Promise.all(Array.from({ length: 20 }, (_, index) => ask(3000, String(index))));
  assert.deepEqual(
    answers,
    answers.map((_, index) => `anew ${index}\n`),
  );
  await ok("vm", "delete", "box");
  assert.equal(await refusal(3000), "ECONNREFUSED");
  const resolver = new Resolver();
  resolver.setServers([(await host.json<DaemonStatus>("daemon", "status")).dns?.address ?? ""]);
  await assert.rejects(resolver.resolve4("box.vm"), { code: "ENOTFOUND" });
});
