/** What a guest may reach: the rules hold for root in it, whatever its packets say, at once and after every kind of start. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Done, type Host, testHost } from "../support/host.ts";
import { outputHolds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;
let lan: Awaited<ReturnType<typeof lanServer>>;

/** A server of this machine on an address that others reach, as a service in the local network is. */
const lanServer = async () => {
  const own = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal);
  assert.ok(own, "this machine has an address");
  let visitors = 0;
  const server = createServer((socket) => {
    visitors++;
    socket.on("error", () => socket.destroy());
    socket.end("lan\n");
  });
  await new Promise<void>((resolve) => server.listen(0, own.address, resolve));
  const { port } = server.address() as AddressInfo;
  return { address: own.address, port, visitors: () => visitors, close: () => server.close() };
};

const ok = async (...args: string[]): Promise<Done> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, `${args.join(" ")}: ${done.stderr}`);
  return done;
};

/** Tries each `address:port` in the guest and says what came of it. No answer at all is a timeout, which nothing here may be. */
const connector = `
use IO::Socket::INET;
for (@ARGV) { my $s = IO::Socket::INET->new(PeerAddr => $_, Timeout => 30); print "$_ ", ($s ? "connected" : $!), "\\n" }`;
const attempt = async (vm: string, ...targets: string[]): Promise<string[]> => {
  const { stdout } = await ok("vm", "exec", vm, "--", "perl", "-e", connector, ...targets);
  return stdout
    .trim()
    .split("\n")
    .map((line, index) => line.slice((targets[index]?.length ?? 0) + 1));
};
const lanTarget = () => `${lan.address}:${lan.port}`;

before(async () => {
  lan = await lanServer();
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "192M"\ndisk_size = "1G"\n`);
  await installFixture(host, [SLIM]);
  await ok("vm", "run", "-d", "--name", "box");
});
after(async () => {
  lan.close();
  await host[Symbol.asyncDispose]();
});

const refused = "Connection refused";

test("what is near is refused at once, for root too, and written down with its rule", async () => {
  const near = [
    "192.168.77.1:80",
    "10.9.9.9:22",
    "172.16.0.1:443",
    "169.254.169.254:80",
    "10.0.2.2:80",
    "10.0.2.3:80",
    "100.64.0.1:80",
  ];
  const results = await attempt("box", lanTarget(), ...near);
  assert.deepEqual(
    results,
    [lanTarget(), ...near].map(() => refused),
  );
  assert.equal(lan.visitors(), 0);
  const { stdout } = await ok("vm", "net", "log", "box");
  const lines = stdout
    .replaceAll(/\(\d+\)/g, "(PID)")
    .trim()
    .split("\n");
  assert.ok(lines.includes(`tcp ${lanTarget()} from perl(PID) by: private`), stdout);
  assert.ok(lines.includes("tcp 169.254.169.254:80 from perl(PID) by: never"), stdout);
});

/** As root: frames of its own making, whatever its routes say. Arguments: `KIND SOURCE DESTINATION PORT` of each. */
const forge = String.raw`
use Socket;
my ($name) = map { (split)[0] } grep { (split)[1] eq "00000000" } do { open my $f, "/proc/net/route"; <$f> };
sub text { open my $f, "/sys/class/net/$name/$_[0]" or die $!; my $line = <$f>; chomp $line; $line }
socket(my $link, 17, 3, 0) or die "packet socket: $!";
my $mac = pack("H12", text("address") =~ s/://gr);
my $to = pack("SnlSCCa8", 17, 0x0800, text("ifindex"), 1, 0, 6, "\xff" x 6);
sub sum { my $s = 0; $s += $_ for unpack("n*", $_[0]); $s = ($s & 65535) + ($s >> 16) while $s > 65535; ~$s & 65535 }
while (my ($kind, $from, $dest, $port) = splice(@ARGV, 0, 4)) {
  my ($s, $d) = map { inet_aton($_) } $from, $dest;
  my @tcp = (4444, $port, 1, 0, 0x50, 2, 1024, 0, 0);
  $tcp[7] = sum($s . $d . pack("CCn", 0, 6, 20) . pack("nnNNCCnnn", @tcp));
  my $tcp = pack("nnNNCCnnn", @tcp);
  my @ip = (0x45, 0, 40, 1, $kind eq "fragment" ? 0x2000 : 0, 64, 6, 0, $s, $d);
  $ip[7] = sum(pack("CCnnnCCna4a4", @ip));
  my $ip = pack("CCnnnCCna4a4", @ip) . $tcp;
  my $six = pack("NnCC", 6 << 28, 20, 6, 64) . "\0" x 15 . "\2" . ($kind eq "mapped" ? "\0" x 10 . "\xff\xff" . $d : "\0" x 15 . "\1") . $tcp;
  my %body = (plain => pack("n", 0x0800) . $ip, fragment => pack("n", 0x0800) . $ip, vlan => pack("nnn", 0x8100, 1, 0x0800) . $ip,
    qinq => pack("nnnnn", 0x88a8, 1, 0x8100, 1, 0x0800) . $ip, six => pack("n", 0x86dd) . $six, mapped => pack("n", 0x86dd) . $six);
  send($link, "\xff" x 6 . $mac . $body{$kind}, 0, $to) or die "send: $!";
}
print "sent\n";`;

test("packets of root's own making get no further", async () => {
  const unreached = (socket: Socket) => {
    socket.destroy();
    reached++;
  };
  let reached = 0;
  const own = createServer(unreached).listen(0, "127.0.0.1");
  await once(own, "listening");
  const { port } = own.address() as AddressInfo;
  const six = createServer(unreached).listen(port, "::1");
  await once(six, "listening");
  const send = async (...frames: [kind: string, from: string, to: string, port: number][]) =>
    assert.equal(
      (await ok("vm", "exec", "box", "--", "perl", "-e", forge, ...frames.flat().map(String))).stdout,
      "sent\n",
    );
  try {
    const sources = ["10.0.2.15", "127.0.0.1", "10.0.2.2", lan.address];
    await send(
      ...sources.map((from) => ["plain", from, "127.0.0.1", port] as [string, string, string, number]),
      ...sources.map((from) => ["plain", from, lan.address, lan.port] as [string, string, string, number]),
      ...["fragment", "vlan", "qinq", "six", "mapped"].map(
        (kind) => [kind, "10.0.2.15", "127.0.0.1", port] as [string, string, string, number],
      ),
      ["fragment", "10.0.2.15", lan.address, lan.port],
      ["vlan", "10.0.2.15", lan.address, lan.port],
      ["plain", "10.0.2.15", "169.254.169.254", port],
    );
    // What was sent before this has been judged when this is.
    assert.deepEqual(await attempt("box", `169.254.1.1:${port}`), [refused]);
    assert.deepEqual([reached, lan.visitors()], [0, 0]);
    const { stdout } = await ok("vm", "net", "log", "box");
    for (const line of [`127.0.0.1:${port}`, `169.254.169.254:${port}`])
      assert.ok(stdout.includes(`tcp ${line} by: never\n`), stdout);
    // A frame made in the same way arrives where it may: the others were stopped for what they are.
    await ok("vm", "net", "allow", "box", lanTarget());
    while (lan.visitors() === 0) await send(["plain", "10.0.2.15", lan.address, lan.port]);
    await ok("vm", "net", "allow", "--remove", "box", lanTarget());
    while ((await attempt("box", lanTarget()))[0] !== refused);
  } finally {
    own.close();
    six.close();
  }
});

test("rules count at once on a running VM; the latest one first", async () => {
  const watching = host.start(["vm", "net", "log", "-f", "box"]);
  const told = outputHolds(watching, "192.0.2.200:9");
  await ok("vm", "net", "allow", "box", `${lanTarget()}/tcp`);
  // The filter reads the file by itself: asked until it has.
  while ((await attempt("box", lanTarget()))[0] !== "connected");
  await ok("vm", "net", "deny", "box", lan.address, "192.0.2.200");
  while ((await attempt("box", lanTarget()))[0] !== refused);
  assert.deepEqual(await attempt("box", "192.0.2.200:9"), [refused]);
  await told;
  watching.kill("SIGINT");
  const { stdout } = await ok("vm", "net", "rules", "box");
  assert.equal(
    stdout,
    `deny   ${lan.address}\ndeny   192.0.2.200\nallow  ${lanTarget()}/tcp\nthen: this machine's networks and private addresses are refused, all else is allowed\n`,
  );
  const wrong = await host.banger("vm", "net", "allow", "box", "https://example.org");
  assert.deepEqual([wrong.status, /no network rule/.test(wrong.stderr)], [2, true]);
  const absent = await host.banger("vm", "net", "deny", "--remove", "box", "any:1");
  assert.match(absent.stderr, /has no rule deny any:1[\s\S]*banger vm net rules box/);
  await ok("vm", "net", "deny", "--remove", "box", lan.address);
  while ((await attempt("box", lanTarget()))[0] !== "connected");
});

test("`--net policy`: nothing but what is allowed, by address or by name; so in a fork, after sleep, and after a daemon's end", async () => {
  await ok("vm", "delete", "box");
  await ok("vm", "run", "-d", "--name", "strict", "--net", "policy", "--allow", lanTarget());
  const holds = async (vm: string) =>
    assert.deepEqual(await attempt(vm, lanTarget(), "203.0.113.9:443", "169.254.169.254:80"), [
      "connected",
      refused,
      refused,
    ]);
  await holds("strict");
  const [, uri = ""] =
    /^URIs: (\S+)/m.exec(
      (await ok("vm", "exec", "strict", "--", "sh", "-c", "cat /etc/apt/sources.list.d/*")).stdout,
    ) ?? [];
  const { hostname, port, protocol } = new URL(uri);
  const mirror = `${hostname}:${port || (protocol === "https:" ? 443 : 80)}`;
  assert.deepEqual(await attempt("strict", mirror), [refused]);
  assert.ok((await ok("vm", "net", "log", "strict")).stdout.includes(` ${hostname} from perl(`));
  await ok("vm", "net", "allow", "strict", `${hostname}:1-65535/tcp`);
  while ((await attempt("strict", mirror))[0] !== "connected");
  const [copy] = (await ok("vm", "fork", "strict")).stdout.trim().split("\n");
  assert.ok(copy);
  await holds(copy);
  assert.deepEqual(await attempt(copy, mirror), ["connected"]);
  await ok("daemon", "stop");
  await ok("vm", "sleep", "strict");
  await holds("strict");
  assert.equal((await host.json<Vm>("vm", "show", "strict")).network, "policy");
  // What a VM that may go anywhere has reached is a policy for one that may not.
  await ok("vm", "delete", "strict");
  await ok("vm", "run", "-d", "--name", "learner", "--net", "learn", "--allow", lanTarget());
  assert.deepEqual(await attempt("learner", mirror, lanTarget(), "192.168.77.1:80"), [
    "connected",
    "connected",
    refused,
  ]);
  const learned = (await ok("vm", "net", "learned", "learner")).stdout.trim().split("\n");
  assert.deepEqual(learned.toSorted(), [`--allow=${mirror}/tcp`, `--allow=${lanTarget()}/tcp`].toSorted());
  const unasked = await host.banger("vm", "net", "learned", copy);
  assert.match(unasked.stderr, /does not write down[\s\S]*--net learn/);
});

const serve = `
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalPort => 7000, Listen => 5, ReuseAddr => 1) or die;
exit if fork; close STDOUT; close STDERR; $SIG{PIPE} = "IGNORE";
while (my $c = $server->accept) { print $c chr(65 + $_ % 26) x 65536 for 0 .. 127; shutdown $c, 1; 1 while sysread $c, my $b, 65536; close $c }`;
const fetch = String.raw`
use IO::Socket::INET;
my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], Timeout => 60) or die "$!";
my ($n, $bad) = (0, 0);
while (sysread $s, my $b, 65536) { for my $at (0, length($b) - 1) { $bad++ if substr($b, $at, 1) ne chr(65 + int(($n + $at) / 65536) % 26) } $n += length $b }
print "$n $bad from ", $s->peerhost, "\n";`;

test("VMs of a team reach one another by name, and no others; a name goes with its VM", async () => {
  for (const name of ["strict", "learner"]) await host.banger("vm", "delete", name);
  await ok("vm", "run", "-d", "--name", "a", "--net", "policy", "--team", "web");
  await Promise.all([
    ok("vm", "run", "-d", "--name", "b", "--team", "web"),
    ok("vm", "run", "-d", "--name", "c", "--team", "db"),
  ]);
  const { team } = await host.json<Vm>("vm", "show", "b");
  assert.ok(team);
  await ok("vm", "exec", "b", "--", "perl", "-e", serve);
  const fetched = await ok("vm", "exec", "a", "--", "perl", "-e", fetch, "b.vm:7000");
  assert.equal(fetched.stdout, `${128 * 65_536} 0 from ${team.address}\n`);
  assert.deepEqual(await attempt("a", "b.vm:7001", "192.168.77.1:80", "10.0.3.200:1"), [refused, refused, refused]);
  assert.deepEqual(await attempt("c", `${team.address}:7000`), [refused]);
  const lookUp = async (name: string) => (await host.banger("vm", "exec", "c", "--", "getent", "hosts", name)).status;
  assert.deepEqual([await lookUp("b.vm"), await lookUp("c.vm")], [2, 0]);
  await ok("vm", "net", "deny", "a", team.address);
  while ((await attempt("a", "b.vm:7000"))[0] !== refused);
  await ok("vm", "net", "deny", "--remove", "a", team.address);
  while ((await attempt("a", "b.vm:7000"))[0] !== "connected");
  // Their network is theirs: it needs no daemon, and is there again after sleep.
  process.kill(await host.daemonPid(), "SIGKILL");
  await ok("vm", "sleep", "b");
  assert.deepEqual(await attempt("a", "b.vm:7000"), [refused]);
  await ok("vm", "start", "b");
  assert.deepEqual(await attempt("a", "b.vm:7000"), ["connected"]);
  await ok("vm", "stop", "b");
  assert.deepEqual(await attempt("a", "b.vm:7000"), [refused]);
  await ok("vm", "delete", "b");
  while ((await host.banger("vm", "exec", "a", "--", "getent", "hosts", "b.vm")).status === 0);
  const none = await host.banger("vm", "create", "--net", "none", "--team", "web");
  assert.match(none.stderr, /in no team[\s\S]*leave out --team/);
});
