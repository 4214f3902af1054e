/** A published port against QEMU's own host forward into the same guest, to the same server. */
import { once } from "node:events";
import { mkdir, readdir, symlink } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { Vm } from "../src/contract/vms.ts";
import type { Host } from "../test/support/host.ts";
import { type Figure, interleaved, median, round, spreadOf } from "./measure.ts";

const VM = "bench-publish";
const GUEST_PORT = 3000;
const MIB = 32;
/** Round trips timed together: one alone is shorter than the noise. */
const BATCH = 50;

/** Answers each line; `get N` with N bytes, `put N` after N bytes. */
const server = `
use IO::Socket::INET; use Socket qw(IPPROTO_TCP TCP_NODELAY); $SIG{CHLD} = "IGNORE"; $SIG{HUP} = "IGNORE";
my $s = IO::Socket::INET->new(LocalPort => ${GUEST_PORT}, Listen => 64, ReuseAddr => 1) or die; print "listens\\n"; close STDOUT;
while (my $c = $s->accept) {
  if (fork) { close $c; next }
  setsockopt($c, IPPROTO_TCP, TCP_NODELAY, 1); my $block = "x" x 65536; my $buffer;
  while (my $line = readline $c) {
    if ($line =~ /^get (\\d+)/) { my $left = $1; while ($left > 0) { $left -= syswrite $c, $block, $left < 65536 ? $left : 65536 } }
    elsif ($line =~ /^put (\\d+)/) { my $left = $1; while ($left > 0) { $left -= read $c, $buffer, $left < 65536 ? $left : 65536 } syswrite $c, "got it\\n" }
    else { syswrite $c, $line }
  }
  exit;
}`;

const open = async (host: string, port: number): Promise<Socket> => {
  const socket = connect({ host, port, noDelay: true });
  await once(socket, "connect");
  return socket;
};

/** A port of this machine that is free now. */
const freePort = async (): Promise<number> => {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise<void>((resolve) => probe.close(() => resolve()));
  return port;
};

/** Asks QEMU for a forward, over the control socket that the daemon has let go of. */
const forward = async (host: Host, id: string): Promise<number> => {
  const port = await freePort();
  const control = connect({ path: join(host.env.XDG_RUNTIME_DIR, "banger", "vms", id, "qmp.sock") });
  let said = "";
  control.on("data", (chunk) => {
    said += String(chunk);
  });
  const line = `hostfwd_add net0 tcp:127.0.0.1:${port}-10.0.2.15:${GUEST_PORT}`;
  const commands = [
    { execute: "qmp_capabilities" },
    { execute: "human-monitor-command", arguments: { "command-line": line } },
  ];
  control.write(commands.map((command) => JSON.stringify(command)).join("\n"));
  while (said.split('"return"').length < 3) await once(control, "data");
  if (!said.includes('"return": ""')) throw new Error(`no forward: ${said}`);
  control.destroy();
  return port;
};

export const publishedPort = async (host: Host): Promise<Figure[]> => {
  // The forward is one of QEMU's own user network, which banger uses where it does not find passt.
  const bin = join(host.env.HOME, "without-passt");
  await mkdir(bin);
  for (const folder of (process.env.PATH ?? "").split(":").concat("/usr/sbin", "/sbin")) {
    for (const name of await readdir(folder).catch(() => []))
      if (name !== "passt") await symlink(join(folder, name), join(bin, name)).catch(() => undefined);
  }
  const must = async (...args: string[]) => {
    const done = await host.run(args, { env: { PATH: bin } });
    if (done.status !== 0) throw new Error(done.stderr);
    return done.stdout;
  };
  await must("daemon", "stop");
  const image = ["--image", "debian-bookworm-slim", "--vcpu", "2", "--memory", "512M"];
  await must("vm", "run", "-d", "--name", VM, "--publish", String(GUEST_PORT), ...image);
  const start = 'mkfifo /tmp/f; setsid perl -e "$1" >/tmp/f & read said </tmp/f; test "$said" = listens';
  await must("vm", "exec", VM, "--", "sh", "-c", start, "sh", server);
  const { id, address } = JSON.parse(await must("vm", "show", VM, "--json")) as Vm;
  await must("daemon", "stop");
  const forwarded = await forward(host, id);
  await must("daemon", "start");

  const ours = () => open(address, GUEST_PORT);
  const theirs = () => open("127.0.0.1", forwarded);
  const roundTrip = async (socket: Socket) => {
    socket.write("ping\n");
    await once(socket, "data");
  };
  const take = async (socket: Socket, bytes: number) => {
    let left = bytes;
    while (left > 0) left -= ((await once(socket, "data")) as [Buffer])[0].length;
  };
  const held = [await ours(), await theirs()] as const;
  const batch = (socket: Socket) => async () => {
    for (let i = 0; i < BATCH; i++) await roundTrip(socket);
  };
  const fresh = (connected: () => Promise<Socket>) => async () => {
    const socket = await connected();
    await roundTrip(socket);
    socket.destroy();
  };
  const bytes = MIB * 2 ** 20;
  const get = (socket: Socket) => async () => {
    socket.write(`get ${bytes}\n`);
    await take(socket, bytes);
  };
  const block = Buffer.alloc(bytes);
  const put = (socket: Socket) => async () => {
    socket.write(`put ${bytes}\n`);
    socket.write(block);
    await once(socket, "data");
  };
  await batch(held[0])();
  await batch(held[1])();
  const latency = await interleaved(10, [batch(held[0]), batch(held[1])]);
  const first = await interleaved(20, [fresh(ours), fresh(theirs)]);
  const out = await interleaved(5, [get(held[0]), get(held[1])]);
  const into = await interleaved(5, [put(held[0]), put(held[1])]);
  for (const socket of held) socket.destroy();
  await must("vm", "delete", VM);
  await must("daemon", "stop");

  const baseline = "the same through QEMU's own host forward";
  const time = (what: string, [mine = [], its = []]: number[][], per: number): Figure => {
    const ratio = median(mine) / median(its);
    return {
      what,
      value: round(median(mine) / per),
      unit: "ms",
      n: mine.length,
      spread: spreadOf(mine).map((value) => round(value / per)) as [number, number],
      baseline: { what: baseline, value: round(median(its) / per) },
      limit: `at most 1.5 times: ${ratio.toFixed(2)}`,
      holds: ratio <= 1.5,
    };
  };
  const rate = (what: string, [mine = [], its = []]: number[][]): Figure => {
    const speed = (ms: number) => round(bytes / 1e6 / (ms / 1000));
    const ratio = median(its) / median(mine);
    const [fast, slow] = spreadOf(mine);
    return {
      what,
      value: speed(median(mine)),
      unit: "MB/s",
      n: mine.length,
      spread: [speed(slow), speed(fast)],
      baseline: { what: baseline, value: speed(median(its)) },
      limit: `at least 0.8 times: ${ratio.toFixed(2)}`,
      holds: ratio >= 0.8,
    };
  };
  return [
    time("a round trip through a published port", latency, BATCH),
    time("connecting to a published port and a first answer", first, 1),
    rate(`${MIB} MiB out of the guest through a published port`, out),
    rate(`${MIB} MiB into the guest through a published port`, into),
  ];
};
