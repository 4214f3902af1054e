/**
 * What a guest reaches of a local network and of an Internet that are really there (test/support/world.ts), by IPv4 and IPv6: what its policy says, at once, after every kind of
 * start, and whatever root in it tries. That each target can be reached is proven from this machine.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Done, finish, type Host, testHost } from "../support/host.ts";
import { outputHolds } from "../support/wait.ts";
import {
  BEYOND,
  LAN,
  METADATA,
  makeWorld,
  OTHER_RESOLVER,
  OWN,
  RESOLVER,
  RESOLVER6,
  TRANSLATED,
  WEB,
  type World,
} from "../support/world.ts";

const SLIM = "debian-bookworm-slim";
let world: World;
let host: Host;

const zone = {
  "www.world.test": { A: [[WEB.four(80)]], AAAA: [[WEB.six(80)]] },
  "a.cdn.world.test": { A: [[WEB.four(81)]] },
  "six.world.test": { AAAA: [[WEB.six(86)]] },
  "other.world.test": { A: [[WEB.four(82)]], AAAA: [[WEB.six(82)]] },
  "near.world.test": { A: [[LAN.four]], AAAA: [[LAN.six]] },
  "loop.world.test": { A: [["127.0.0.1"]], AAAA: [["::1"]] },
  "turns.world.test": { A: [[WEB.four(83)], [LAN.four]], AAAA: [[WEB.six(83)], [LAN.six]] },
};

before(async () => {
  world = await makeWorld();
  await world.internet.setZone(zone);
  host = await testHost(
    `default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "192M"\ndisk_size = "1G"\n`,
    world.here.through,
  );
  await installFixture(host, [SLIM]);
});
after(async () => {
  await host[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

const ok = async (...args: string[]): Promise<Done> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, `${args.join(" ")}: ${done.stderr}`);
  return done;
};

/** `KIND HOST PORT` of each: what the other side said first, or why there is none. No answer at all is a timeout, which nothing here may be. */
const visitor = String.raw`
use Socket qw(:all);
while (my ($kind, $host, $port) = splice @ARGV, 0, 3) {
  my %wanted = (family => $kind =~ /6/ ? AF_INET6 : AF_INET, socktype => $kind =~ /udp/ ? SOCK_DGRAM : SOCK_STREAM);
  my ($error, $to) = getaddrinfo($host, $port, \%wanted);
  if ($error) { print "no address\n"; next }
  socket(my $s, $to->{family}, $to->{socktype}, $to->{protocol}) or die $!;
  my $said = eval {
    local $SIG{ALRM} = sub { die "timeout\n" };
    alarm 30;
    connect($s, $to->{addr}) or die "$!\n";
    send($s, "hello\n", 0) if $kind =~ /udp/;
    defined sysread($s, my $line, 4096) or die "$!\n";
    $line;
  } // $@;
  alarm 0;
  print $said =~ /^(.*)/, "\n";
}`;
type Target = readonly [kind: "tcp4" | "tcp6" | "udp4" | "udp6", host: string, port: number];
const words = (targets: readonly Target[]) => targets.flat().map(String);
const linesOf = ({ stdout }: Done) => stdout.trim().split("\n");
const visit = async (vm: string, ...targets: Target[]): Promise<string[]> =>
  linesOf(await ok("vm", "exec", vm, "--", "perl", "-e", visitor, ...words(targets)));
/** The same from this machine. */
const visitFromHere = async (...targets: Target[]): Promise<string[]> => {
  const [program = "", ...args] = [...world.here.through, "perl", "-e", visitor, ...words(targets)];
  return linesOf(await finish(spawn(program, args, { stdio: "pipe" })));
};

/** A target, and who answers there. */
const web = (kind: Target[0], n: number, port: number): [Target, string] => {
  const address = kind.endsWith("6") ? WEB.six(n) : WEB.four(n);
  return [[kind, address, port], `internet ${address}`];
};
const escaped = (text: string) => text.replaceAll(/[[\].()]/g, String.raw`\$&`);
const REFUSED = "Connection refused";
/** As a refused datagram is told of: ICMP "administratively prohibited". */
const PROHIBITED = { udp4: "No route to host", udp6: "Permission denied" };
const refusal = ([kind]: Target) => (kind === "udp4" || kind === "udp6" ? PROHIBITED[kind] : REFUSED);

/** Everything that is near, or nobody's business, by each protocol. */
const near: Target[] = [
  ["tcp4", LAN.four, 80],
  ["udp4", LAN.four, 53],
  ["tcp6", LAN.six, 80],
  ["udp6", LAN.six, 53],
  ["tcp4", OWN.four, 80],
  ["tcp6", OWN.six, 80],
  ["tcp4", "198.51.100.1", 80],
  ["tcp4", METADATA, 80],
  ...BEYOND.map((address): Target => [address.includes(":") ? "tcp6" : "tcp4", address, 80]),
  ...TRANSLATED.map((address): Target => ["tcp6", address, 80]),
];

const quiet = async (): Promise<void> => {
  for (const machine of [world.here, world.lan]) assert.deepEqual(await machine.visits(), []);
};

test("by default a guest reaches the Internet by both protocols and nothing near; the log tells whose it was", async () => {
  await ok("vm", "run", "-d", "--name", "box");
  const far = [web("tcp4", 80, 80), web("udp4", 81, 123), web("tcp6", 82, 443), web("udp6", 83, 123)];
  const named: [Target, string][] = [
    [["tcp4", "www.world.test", 80], `internet ${WEB.four(80)}`],
    [["tcp6", "six.world.test", 443], `internet ${WEB.six(86)}`],
  ];
  const all = [...far, ...named];
  assert.deepEqual(
    await visit("box", ...all.map(([target]) => target)),
    all.map(([, said]) => said),
  );
  assert.deepEqual(await visit("box", ...near), near.map(refusal));
  await quiet();
  // It is all there: who may go there comes there.
  for (const said of await visitFromHere(...near)) assert.match(said, /^(?:lan|here|internet) /);
  for (const machine of [world.here, world.lan]) assert.ok((await machine.visits()).length > 0);
  const { stdout } = await ok("vm", "net", "log", "box");
  for (const line of [`tcp ${LAN.four}:80`, `tcp [${LAN.six}]:80`, `udp [${LAN.six}]:53`, `tcp [${TRANSLATED[0]}]:80`])
    assert.match(
      stdout.replaceAll(/\(\d+\)/g, "(PID)"),
      new RegExp(`^${escaped(`${line} from perl(PID) by: private`)}$`, "m"),
    );
  const objects = (await ok("vm", "net", "log", "--json", "box")).stdout.trim().split("\n");
  const told = objects.map((line) => JSON.parse(line) as { address: string; process?: { name: string } });
  assert.equal(told.find(({ address }) => address === METADATA)?.process?.name, "perl");
});

test("a name that leads elsewhere the second time, or near from the first, opens nothing", async () => {
  const turns: Target[] = [
    ["tcp4", "turns.world.test", 80],
    ["tcp4", "turns.world.test", 80],
    ["tcp6", "turns.world.test", 80],
    ["tcp6", "turns.world.test", 80],
  ];
  const first = [`internet ${WEB.four(83)}`, REFUSED, `internet ${WEB.six(83)}`, REFUSED];
  await world.internet.setZone(zone);
  assert.deepEqual(await visit("box", ...turns, ["tcp4", "near.world.test", 80]), [...first, REFUSED]);
  // A rule for the name makes no difference, and one for its address does.
  await ok("vm", "net", "allow", "box", "*.world.test");
  await world.internet.setZone(zone);
  assert.deepEqual(await visit("box", ...turns), first);
  assert.deepEqual(await visit("box", ["tcp4", "near.world.test", 80], ["tcp6", "near.world.test", 80]), [
    REFUSED,
    REFUSED,
  ]);
  await quiet();
  await ok("vm", "net", "allow", "box", `[${LAN.six}]:80`);
  while ((await visit("box", ["tcp6", "near.world.test", 80]))[0] !== `lan ${LAN.six}`);
  await world.lan.visits();
});

const FILTERED = ["www.world.test:80/tcp", "*.cdn.world.test:443", "six.world.test"];
const NETWORKS = [`203.0.113.84/31:8080/tcp`, `[${WEB.six(88)}/125]:123/udp`, `${LAN.four}:5432`];
/** What a VM with these rules, and `deny` of one of its addresses, may do. */
const table: [Target, string][] = [
  [["tcp4", "www.world.test", 80], `internet ${WEB.four(80)}`],
  [["tcp6", "www.world.test", 80], `internet ${WEB.six(80)}`],
  [["tcp4", "www.world.test", 443], REFUSED],
  [["tcp4", "a.cdn.world.test", 443], `internet ${WEB.four(81)}`],
  [["tcp4", "a.cdn.world.test", 80], REFUSED],
  [["udp6", "six.world.test", 123], `internet ${WEB.six(86)}`],
  [["tcp4", "other.world.test", 80], REFUSED],
  [["tcp6", "other.world.test", 80], REFUSED],
  web("tcp4", 84, 8080),
  [web("tcp4", 85, 8080)[0], REFUSED],
  [web("tcp4", 84, 80)[0], REFUSED],
  [web("udp4", 84, 123)[0], PROHIBITED.udp4],
  web("udp6", 88, 123),
  [web("tcp6", 88, 443)[0], REFUSED],
  [["tcp4", LAN.four, 5432], `lan ${LAN.four}`],
  [["tcp4", LAN.four, 80], REFUSED],
  [["tcp6", LAN.six, 5432], REFUSED],
  [["tcp4", METADATA, 80], REFUSED],
  [["udp4", OTHER_RESOLVER, 53], PROHIBITED.udp4],
  [["udp4", RESOLVER, 53], PROHIBITED.udp4],
  [["tcp4", "10.0.2.3", 53], REFUSED],
];
const holds = async (vm: string): Promise<void> =>
  assert.deepEqual(
    await visit(vm, ...table.map(([target]) => target)),
    table.map(([, said]) => said),
    vm,
  );

test("a network that this machine joins is near from that moment on, and not when it has left it", async () => {
  const targets = [web("tcp4", 84, 80)[0], web("tcp6", 84, 80)[0]];
  const answers = [web("tcp4", 84, 80)[1], web("tcp6", 84, 80)[1]];
  assert.deepEqual(await visit("box", ...targets), answers);
  const subnets = [`${WEB.four(94)}/28`, "2001:db8:1::ffff/64"];
  for (const subnet of subnets) await world.join(subnet);
  while ((await visit("box", ...targets)).some((said) => said !== REFUSED));
  // They can still be reached.
  assert.deepEqual(await visitFromHere(...targets), answers);
  for (const subnet of subnets) await world.leave(subnet);
  while ((await visit("box", ...targets)).some((said) => said === REFUSED));
});

test("a policy by name, suffix, network, port and protocol; so in forks, after sleep, from a saved machine, and after the daemon's end", async () => {
  const rules = [...FILTERED, ...NETWORKS].map((rule) => `--allow=${rule}`);
  const strict = ["--net", "policy", "--deny", WEB.four(85), ...rules];
  await ok("vm", "delete", "box");
  await ok("vm", "run", "-d", "--name", "strict", ...strict);
  await holds("strict");
  const [copy = ""] = linesOf(await ok("vm", "fork", "strict"));
  await ok("vm", "sleep", "strict");
  process.kill(await host.daemonPid(), "SIGKILL");
  await Promise.all([holds("strict"), holds(copy)]);
  assert.match(
    (await ok("vm", "net", "log", "strict")).stdout,
    / a\.cdn\.world\.test from perl\(\d+\) by: default deny$/m,
  );
  await ok("vm", "snapshot", "strict", "--as", "saved");
  await ok("vm", "delete", copy);
  await ok("vm", "restore", "saved", "--name", "again");
  await holds("again");
  assert.deepEqual((await host.json<Vm>("vm", "show", "again")).network, "policy");
  await ok("vm", "delete", "again");
});

test("a guest has the protocols that its host has when it starts, and nothing is left of one that has gone", async () => {
  const start = async (): Promise<string> => {
    await ok("vm", "sleep", "strict");
    const { stdout } = await ok(
      "vm",
      "exec",
      "strict",
      "--",
      "cat",
      "/proc/net/if_inet6",
      "/proc/net/ipv6_route",
      "/etc/resolv.conf",
    );
    return stdout.replaceAll(/^fe80.*\n/gm, "");
  };
  const six: Target = ["tcp6", "www.world.test", 80];
  const four: Target = ["tcp4", "www.world.test", 80];
  const [answers6, answers4] = [`internet ${WEB.six(80)}`, `internet ${WEB.four(80)}`];
  await world.setWaysOut({ four: true, six: false });
  assert.doesNotMatch(await start(), /^fd62|^0{32} 00 .* eth0$/m);
  assert.deepEqual(await visit("strict", six, four), ["Network is unreachable", answers4]);
  await world.setWaysOut({ four: false, six: true });
  await world.setResolvers(RESOLVER6);
  assert.match(await start(), /^fd62616e67657200[\s\S]*^nameserver fd62:616e:6765:7200::3$/m);
  assert.deepEqual(await visit("strict", six, four), [answers6, "Network is unreachable"]);
  await world.setWaysOut({ four: true, six: true });
  await world.setResolvers(RESOLVER);
  assert.match(await start(), /^nameserver 10\.0\.2\.3$/m);
  await holds("strict");
});

/** Answers any request, on the guest's loopback alone. */
const webServer = String.raw`
use Socket; socket(my $s, AF_INET, SOCK_STREAM, 0); bind($s, pack_sockaddr_in(8000, INADDR_LOOPBACK)) or die $!; listen($s, 4);
exit if fork; close STDOUT; close STDERR;
while (accept(my $c, $s)) { while (<$c>) { last if /^\r?$/ } syswrite $c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfrom the guest"; close $c }`;

test("dig finds VMs by name, and so do curl and the rest of a machine whose resolver is told what doctor says", async () => {
  const { address } = await host.json<Vm>("vm", "show", "strict");
  const here = async (...argv: string[]): Promise<Done> => {
    const [program = "", ...args] = [...world.here.through, ...argv];
    const PATH = `${process.env.PATH}:/usr/sbin:/sbin`;
    return finish(spawn(program, args, { stdio: "pipe", env: { ...process.env, PATH } }));
  };
  const dig = async (...argv: string[]) => (await here("dig", "@127.0.0.1", "-p", "42069", ...argv)).stdout.trim();
  for (const argv of [
    ["strict.vm"],
    ["+tcp", "strict.vm"],
    ["+noedns", "STRICT.vm"],
    ["+bufsize=4096", "+nsid", "+cookie", "+dnssec", "strict.vm"],
  ])
    assert.equal(await dig("+short", ...argv), address, argv.join(" "));
  assert.equal(await dig("+short", "strict.vm", "AAAA"), "");
  for (const [status, ...argv] of [
    ["NOERROR", "strict.vm", "AAAA"],
    ["NXDOMAIN", "nobody.vm"],
    ["REFUSED", "example.org"],
    ["BADVERS", "+edns=1", "+noednsnegotiation", "strict.vm"],
    ["NOTIMP", "+opcode=status", "strict.vm"],
  ] as const)
    assert.match(await dig(...argv), new RegExp(`status: ${status}`), argv.join(" "));
  const advice = async (): Promise<string> => {
    const { stdout } = await host.banger("doctor", "--json");
    const names = (JSON.parse(stdout) as { name: string; message: string; hint?: string }[]).find(
      ({ name }) => name === "names",
    );
    return `${names?.message} ${names?.hint}`;
  };
  const [, route = ""] = /(server=\/vm\/[\d.#]+)/.exec(await advice()) ?? [];
  const resolver = spawn(
    world.here.through[0] ?? "",
    [
      ...world.here.through.slice(1),
      ...[
        "/usr/sbin/dnsmasq",
        "--no-daemon",
        "--listen-address=127.0.0.2",
        "--bind-interfaces",
        "--user=",
        "--log-facility=-",
      ],
      ...["--no-resolv", "--no-hosts", "--conf-file=/dev/null", `--${route}`, `--server=${RESOLVER}`],
    ],
    { stdio: "pipe" },
  );
  try {
    await outputHolds(resolver, "started");
    await world.setResolvers("127.0.0.2");
    assert.match(await advice(), /this machine's resolver asks it/);
    assert.equal((await here("getent", "hosts", "strict.vm")).stdout.split(/\s+/)[0], address);
    assert.equal((await here("getent", "hosts", "nobody.vm")).status, 2);
    assert.equal((await here("getent", "ahostsv4", "www.world.test")).stdout.split(/\s+/)[0], WEB.four(80));
    await ok("vm", "publish", "strict", "8000");
    await ok("vm", "exec", "strict", "--", "perl", "-e", webServer);
    assert.equal((await here("curl", "-sS", "http://strict.vm:8000/")).stdout, "from the guest");
    await ok("vm", "unpublish", "strict", "8000");
  } finally {
    resolver.kill();
    await world.setResolvers(RESOLVER);
  }
});

/** Speaks with the other side without end, and says how it ended. */
const talker = String.raw`
use Socket qw(:all); $| = 1;
my ($error, $to) = getaddrinfo($ARGV[0], $ARGV[1], {family => $ARGV[0] =~ /:/ ? AF_INET6 : AF_INET, socktype => SOCK_STREAM});
socket(my $s, $to->{family}, SOCK_STREAM, 0) or die $!;
connect($s, $to->{addr}) or die "$!\n";
while (1) { last unless syswrite($s, "x\n") && sysread($s, my $line, 4096); print "talks\n" unless $n++; select undef, undef, undef, 0.02 }
print "ended: $!\n";`;

test("rules that change reach connections that are open, by both protocols", async () => {
  const talk = async (address: string, port: number): Promise<ChildProcess> => {
    const talking = host.start(["vm", "exec", "strict", "--", "perl", "-e", talker, address, String(port)]);
    await outputHolds(talking, "talks");
    return talking;
  };
  const talks = await Promise.all([talk("www.world.test", 80), talk(WEB.four(84), 8080), talk(LAN.four, 5432)]);
  await ok("vm", "net", "allow", "strict", `[${WEB.six(89)}]:443`);
  while ((await visit("strict", web("tcp6", 89, 443)[0]))[0] === REFUSED);
  talks.push(await talk(WEB.six(89), 443));
  const ended = talks.map((talking) => outputHolds(talking, "ended: Connection reset by peer"));
  await ok("vm", "net", "deny", "strict", "www.world.test", WEB.four(84), `${LAN.four}/24`, `${WEB.six(88)}/125`);
  await Promise.all(ended);
  await ok(
    "vm",
    "net",
    "deny",
    "--remove",
    "strict",
    "www.world.test",
    WEB.four(84),
    `${LAN.four}/24`,
    `${WEB.six(88)}/125`,
  );
  while ((await visit("strict", ["tcp4", LAN.four, 5432]))[0] === REFUSED);
  await holds("strict");
});

/** As root: frames of its own making, whatever its routes say. `KIND SOURCE DESTINATION PORT` of each; prints one line at the end. */
const attack = String.raw`
use Socket qw(:all);
my ($name) = map { (split)[0] } grep { (split)[1] eq "00000000" } do { open my $f, "/proc/net/route"; <$f> };
sub text { open my $f, "/sys/class/net/$name/$_[0]" or die $!; my $line = <$f>; chomp $line; $line }
socket(my $link, 17, 3, 0) or die "packet socket: $!";
my $mac = pack("H12", text("address") =~ s/://gr);
my $at = pack("SnlSCCa8", 17, 0x0800, text("ifindex"), 1, 0, 6, "\xff" x 6);
sub sum { my $s = 0; $s += $_ for unpack("n*", $_[0] . (length($_[0]) % 2 ? "\0" : "")); $s = ($s & 65535) + ($s >> 16) while $s > 65535; ~$s & 65535 }
sub body {
  my ($proto, $pseudo, $port) = @_;
  my $bytes = $proto == 6 ? pack("nnNNCCnnn", 4444, $port, 1, 0, 0x50, 2, 1024, 0, 0) : $proto == 17 ? pack("nnnn", 4444, $port, 14, 0) . "hello\n"
    : pack("CCnnn", $proto == 1 ? 8 : $port || 128, 0, 0, 7, 7) . ($port ? "\0" x 4 . "\xff" x 16 : "");
  my $where = $proto == 6 ? 16 : $proto == 17 ? 6 : 2;
  my $sum = sum(($proto == 1 ? "" : $pseudo->(length $bytes)) . $bytes);
  substr($bytes, $where, 2) = pack("n", $sum || 65535);
  $bytes;
}
while (my ($kind, $from, $dest, $port) = splice(@ARGV, 0, 4)) {
  my ($how, $proto) = $kind =~ /^(\w+)-(\d+)$/ or die $kind;
  my $frame;
  if ($how eq "arp") {
    my ($s, $d) = map { inet_aton($_) } $from, $dest;
    $frame = pack("n", 0x0806) . pack("nnCCn", 1, 0x0800, 6, 4, $proto) . $mac . $s . "\0" x 6 . $d;
  } elsif ($dest !~ /:/) {
    my ($s, $d) = map { inet_aton($_) } $from, $dest;
    my $bytes = body($proto, sub { $s . $d . pack("CCn", 0, $proto, $_[0]) }, $port);
    my $extra = $how eq "options" ? "\x83\x07\x04" . $d . "\0" : "";
    my @ip = (0x45 + length($extra) / 4, 0, 20 + length($extra) + length $bytes, 1, $how eq "fragment" ? 0x2000 : $how eq "later" ? 1 : 0, 64, $proto, 0, $s, $d);
    $ip[7] = sum(pack("CCnnnCCna4a4", @ip) . $extra);
    my $ip = pack("CCnnnCCna4a4", @ip) . $extra . $bytes;
    $frame = ($how eq "vlan" ? pack("nnn", 0x8100, 1, 0x0800) : pack("n", 0x0800)) . $ip;
  } else {
    my ($s, $d) = map { inet_pton(AF_INET6, $_) } $from, $dest;
    my $bytes = body($proto, sub { $s . $d . pack("NN", $_[0], $proto) }, $port);
    my %before = (plain => [$proto, ""], hop => [0, pack("CCNn", $proto, 0, 0x01040000, 0)], options => [60, pack("CCNn", $proto, 0, 0x01040000, 0)],
      route => [43, pack("CCCCN", $proto, 2, 0, 1, 0) . $d], fragment => [44, pack("CCnN", $proto, 0, 1, 7)], atomic => [44, pack("CCnN", $proto, 0, 0, 7)], inside => [4, ""]);
    my ($next, $extra) = @{$before{$how}};
    my $to = $how eq "route" ? inet_pton(AF_INET6, $ENV{VIA}) : $d;
    $frame = pack("n", 0x86dd) . pack("NnCC", 6 << 28, length($extra) + length $bytes, $next, $proto == 58 ? 255 : 64) . $s . $to . $extra . $bytes;
  }
  defined send($link, "\xff" x 6 . $mac . $frame, 0, $at) or die "send: $!";
}
print "sent\n";`;
/** One ping, as root of this machine. */
const ping = String.raw`
use Socket qw(:all);
my ($six, $to) = ($ARGV[0] eq "AF_INET6", $ARGV[1]);
socket(my $s, $six ? AF_INET6 : AF_INET, SOCK_RAW, $six ? 58 : 1) or die $!;
my $bytes = pack("CCnnn", $six ? 128 : 8, 0, $six ? 0 : 0xf7f8, 7, 0);
send($s, $bytes, 0, $six ? pack_sockaddr_in6(0, inet_pton(AF_INET6, $to)) : pack_sockaddr_in(0, inet_aton($to))) or die $!;
local $SIG{ALRM} = sub { die "no answer" }; alarm 30;
while (recv($s, my $answer, 1500, 0) // die $!) { last if ord(substr $answer, $six ? 0 : 20) == ($six ? 129 : 0) }
print "answered\n";`;
type Frame = [kind: string, from: string, to: string, port: number];

const GUEST = { four: "10.0.2.15", six: "fd62:616e:6765:7200::15" };

test("root in a guest that writes its own packets reaches nothing that it may not; a packet made in the same way arrives where it may", async () => {
  const send = async (...frames: Frame[]) => {
    const { stdout } = await ok(
      ...["vm", "exec", "strict", "-e", `VIA=${WEB.six(80)}`, "--", "perl", "-e", attack],
      ...frames.flat().map(String),
    );
    assert.equal(stdout, "sent\n");
  };
  await Promise.all([world.here.visits(), world.lan.visits(), world.internet.visits()]);
  const pings = await Promise.all([world.lan.pings(), world.internet.pings()]);
  const four = [LAN.four, "127.0.0.1", OWN.four, "198.51.100.1", METADATA, WEB.four(82), OTHER_RESOLVER, "10.0.3.2"];
  const six = [
    ...[LAN.six, "::1", OWN.six, "2001:db8:ffff::1", WEB.six(82), "fe80::1", ...TRANSLATED, "fd77::5"],
    ...[LAN.four, "127.0.0.1", WEB.four(82)].map((address) => `::ffff:${address}`),
    `::${LAN.four}`,
  ];
  const spoofed4 = [GUEST.four, "127.0.0.1", "10.0.2.2", LAN.four, OWN.four, "10.0.3.9"];
  const spoofed6 = [GUEST.six, "::1", "fd62:616e:6765:7200::2", LAN.six, OWN.six, "fe80::2"];
  const frames: Frame[] = [
    ...four.flatMap((to) => [
      ...spoofed4.map((from): Frame => ["plain-6", from, to, 80]),
      ...["fragment-6", "later-6", "options-6", "vlan-6"].map((kind): Frame => [kind, GUEST.four, to, 80]),
      ...["plain-17", "fragment-17"].map((kind): Frame => [kind, GUEST.four, to, 53]),
      ["plain-1", GUEST.four, to, 0] as Frame,
    ]),
    ...six.flatMap((to) => [
      ...spoofed6.map((from): Frame => ["plain-6", from, to, 80]),
      ...["hop-6", "options-6", "route-6", "fragment-6", "atomic-6", "inside-6"].map(
        (kind): Frame => [kind, GUEST.six, to, 80],
      ),
      ...["plain-17", "atomic-17"].map((kind): Frame => [kind, GUEST.six, to, 53]),
      ["plain-58", GUEST.six, to, 0] as Frame,
    ]),
    // ARP: its own address is another's, and who has one of the local network? DHCP and names for everybody, by broadcast and multicast.
    ...[1, 2].map((kind): Frame => [`arp-${kind}`, "10.0.2.2", LAN.four, 0]),
    ["plain-17", "0.0.0.0", "255.255.255.255", 67],
    ["plain-17", GUEST.four, "224.0.0.251", 5353],
    ["plain-17", GUEST.six, "ff02::fb", 5353],
    ["plain-17", GUEST.six, "ff02::1:2", 547],
    // What routers say to their neighbours, and neighbours to one another.
    ...[133, 134, 136, 137].map((kind): Frame => ["plain-58", "fe80::2", "ff02::1", kind]),
  ];
  await send(...frames);
  // What was sent before this has been judged when this is.
  assert.deepEqual(await visit("strict", ["tcp4", METADATA, 80]), [REFUSED]);
  await quiet();
  assert.deepEqual(await world.internet.visits(), []);
  assert.deepEqual(await Promise.all([world.lan.pings(), world.internet.pings()]), pings);
  // A ping would have been counted.
  for (const [family, address] of [
    ["AF_INET", LAN.four],
    ["AF_INET6", LAN.six],
  ] as const) {
    const [program = "", ...args] = [...world.here.through, "perl", "-e", ping, family, address];
    assert.equal((await finish(spawn(program, args, { stdio: "pipe" }))).stdout, "answered\n");
  }
  assert.equal(await world.lan.pings(), (pings[0] ?? 0) + 2);
  // Its own network still is what it was.
  await holds("strict");
  await Promise.all([world.lan.visits(), world.internet.visits()]);
  await ok("vm", "net", "allow", "strict", `${LAN.four}:80`, `[${LAN.six}]:80`);
  const arrived = new Set<string>();
  while (arrived.size < 2) {
    await send(["plain-6", GUEST.four, LAN.four, 80], ["plain-6", GUEST.six, LAN.six, 80]);
    for (const one of await world.lan.visits()) arrived.add(one);
  }
  assert.deepEqual(arrived, new Set([`tcp ${LAN.four}:80`, `tcp ${LAN.six}:80`]));
});

test("`--net-learn` writes what a run has needed, whatever its end; `--net-policy` takes that, and no more is reached", async () => {
  await ok("vm", "delete", "strict");
  const file = join(host.env.HOME, "run.policy");
  const needs: Target[] = [
    ["tcp4", "www.world.test", 80],
    ["tcp6", "six.world.test", 443],
    ["udp4", WEB.four(84), 123],
    ["tcp4", LAN.four, 80],
  ];
  const visits = (...targets: Target[]) => ["--", "perl", "-e", visitor, ...words(targets)];
  await ok("vm", "run", "--rm", "--net-learn", file, ...visits(...needs));
  assert.deepEqual(await readdir(host.env.HOME), ["run.policy"]);
  assert.equal(
    await readFile(file, "utf8"),
    `# What a run has reached, and no more: banger vm run --net-policy FILE
allow ${WEB.four(84)}:123/udp
allow six.world.test:443/tcp
allow www.world.test:80/tcp
# What it was refused:
#   ${LAN.four} 80/tcp by: private
`,
  );
  const more: Target[] = [["tcp4", "www.world.test", 443], web("tcp6", 82, 80)[0]];
  const held = await ok("vm", "run", "--rm", "--net-policy", file, ...visits(...needs, ...more));
  assert.deepEqual(linesOf(held), [
    `internet ${WEB.four(80)}`,
    `internet ${WEB.six(86)}`,
    `internet ${WEB.four(84)}`,
    REFUSED,
    REFUSED,
    REFUSED,
  ]);
  const talking = ["--", "perl", "-e", talker, WEB.four(87), "443"];
  const interrupted = host.start(["vm", "run", "--rm", "--net-learn", file, ...talking]);
  await outputHolds(interrupted, "talks");
  interrupted.kill("SIGINT");
  assert.equal((await finish(interrupted)).status, 130);
  assert.match(await readFile(file, "utf8"), new RegExp(`^allow ${escaped(WEB.four(87))}:443/tcp$`, "m"));
  assert.deepEqual(await host.json<Vm[]>("vm", "list"), []);
});

test("what cannot be learned or heeded is refused before a VM is made", async () => {
  const file = join(host.env.HOME, "run.policy");
  for (const [args, message] of [
    [["--net-learn", join(host.env.HOME, "no", "such")], /cannot be written[\s\S]*ENOENT/],
    [["--net-learn", host.env.HOME], /is a folder/],
    [["--net-learn", file, "--net", "none"], /--net-learn and --net none contradict/],
    [["--net-learn", file, "--net-policy", file], /contradict/],
    [["--net-policy", join(host.env.HOME, "none")], /cannot be read[\s\S]*--net-learn FILE/],
    [
      ["--net-policy", join(host.env.XDG_CONFIG_HOME, "banger", "config.toml")],
      /config\.toml line 1: .* is no line of a policy/,
    ],
  ] as const) {
    const done = await host.banger("vm", "run", "--rm", ...args, "--", "true");
    assert.deepEqual([done.status, message.test(done.stderr)], [2, true], done.stderr);
  }
  assert.deepEqual(await host.json<Vm[]>("vm", "list"), []);
});
