/**
 * What every VMM must do for banger, as one list that is run with each of them: docs/vmm.md has the table, and a test holds the two together. Each
 * behaviour builds on those before it: the VM `one` is there all along.
 */
import assert from "node:assert/strict";
import type { Vm, VmStats } from "../../src/contract/vms.ts";
import type { Done } from "../support/host.ts";
import { NESTED_ADDRESS } from "../support/nested.ts";

export const drivers = ["QEMU, TCG", "QEMU, KVM", "Firecracker's stand-in", "Firecracker"] as const;
export type DriverName = (typeof drivers)[number];

/** A machine with a banger of this build, and the image of its config: 1 vcpu, no network, templates off. */
export type World = {
  banger(args: readonly string[], input?: string): Promise<Done>;
  /** A shell script of banger's user on the same machine, with banger on its PATH. */
  shell(script: string): Promise<Done>;
  /** As `vm show` tells it: `qemu/kvm`. */
  vmm: string;
};

export type Behaviour = {
  name: string;
  run(world: World): Promise<void>;
  /** Drivers that do not have it, and why. */
  not?: Partial<Record<DriverName, string>>;
};

const ok = async ({ banger }: World, ...args: string[]): Promise<string> => {
  const done = await banger(args);
  assert.equal(done.status, 0, `banger ${args.join(" ")}: ${done.stdout}${done.stderr}`);
  return done.stdout.trim();
};
const sh = async ({ shell }: World, script: string): Promise<string> => {
  const done = await shell(script);
  assert.equal(done.status, 0, `${script}: ${done.stdout}${done.stderr}`);
  return done.stdout.trim();
};
const inGuest = (world: World, vm: string, script: string) => ok(world, "vm", "exec", vm, "--", "bash", "-ec", script);
const show = async (world: World, vm: string) => JSON.parse(await ok(world, "vm", "show", vm, "--json")) as Vm;

const NOT_CONFINED = "it runs as its user does, within its own seccomp filter";

const bootId = "cat /proc/sys/kernel/random/boot_id";

/** A server on the machine that says a word to each who connects, and its address; what the guest's bash reads from there. */
const greeting = async (world: World, vm: string): Promise<string> => {
  const address = await sh(
    world,
    `server=$(mktemp); setsid python3 -c '
import socket
server = socket.create_server(("0.0.0.0", 0))
route = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
route.connect(("${NESTED_ADDRESS}", 9))
print(f"{route.getsockname()[0]}/{server.getsockname()[1]}", flush=True)
server.settimeout(60)
server.accept()[0].sendall(b"hello")' >$server 2>/dev/null </dev/null &
    until grep -q / $server; do sleep 0.1; done; cat $server; rm $server`,
  );
  return await inGuest(world, vm, `exec 3<>/dev/tcp/${address}; cat <&3`);
};

export const behaviours: readonly Behaviour[] = [
  {
    name: "boots cold and runs commands: argv, input, output and status are exact",
    run: async (world) => {
      await ok(world, "vm", "run", "-d", "--name", "one");
      const { vmm, accel, state } = await show(world, "one");
      assert.deepEqual([`${vmm}/${accel}`, state], [world.vmm, "running"]);
      const script = 'printf "[%s]" "$@"; cat; echo wrong >&2; exit 7';
      const done = await world.banger(
        ["vm", "exec", "-i", "one", "--", "sh", "-c", script, "sh", "a b", "", "*"],
        "in\n",
      );
      assert.deepEqual([done.status, done.stdout, done.stderr], [7, "[a b][][*]in\n", "wrong\n"]);
    },
  },
  {
    name: "copies files in and out",
    run: async (world) => {
      await sh(world, "rm -rf /tmp/parity; mkdir /tmp/parity; head -c 3000000 /dev/urandom >/tmp/parity/in");
      await ok(world, "vm", "cp", "/tmp/parity/in", "one:/root/in");
      await ok(world, "vm", "cp", "one:/root/in", "/tmp/parity/out");
      await sh(world, "cmp /tmp/parity/in /tmp/parity/out; rm -r /tmp/parity");
    },
  },
  {
    name: "keeps the console's output, with `serial_console`",
    run: async (world) => {
      await inGuest(world, "one", "echo on the console >/dev/console");
      assert.match(await ok(world, "vm", "logs", "one"), /on the console/);
    },
  },
  {
    name: "tells what a VM uses",
    run: async (world) => {
      await inGuest(world, "one", "head -c 1000000 /dev/zero >/root/zeros; sync");
      const told = await ok(world, "vm", "stats", "one", "--json");
      const [use] = JSON.parse(told) as VmStats[];
      assert.ok(use?.guest && use.memory.rss && use.disk.written, told);
      assert.ok(use.memory.rss > 2 ** 20 && use.guest.memory.total > 2 ** 27, told);
    },
  },
  {
    name: "has a VMM that finds no file of its user's, no other process and no network",
    not: {
      "QEMU, TCG": NOT_CONFINED,
      "QEMU, KVM": NOT_CONFINED,
      "Firecracker's stand-in": "it is a script, which may need anything; the launcher has a test of its own",
    },
    run: async (world) => {
      const { pid } = await show(world, "one");
      const script = `cd /proc/${pid}
        ls root/dev | tr '\\n' ' '; echo
        for path in proc etc $HOME/.config $HOME/.local/state/banger/banger.db; do test ! -e root/$path || echo $path; done
        sed 1,2d net/dev | cut -d: -f1; awk '/^NSpid:/ { print $3 } /^(CapEff|CapBnd|Seccomp):/ { print $2 }' status; wc -c <environ`;
      const none = "0".repeat(16);
      assert.deepEqual(
        (await sh(world, script)).split("\n").map((line) => line.trim()),
        ["kvm net null urandom", "lo", "1", none, none, "2", "0"],
      );
    },
  },
  {
    name: "goes on under a guest that opens connections to its host without end",
    not: {
      "QEMU, TCG": "its channel is a serial port, not vsock",
      "QEMU, KVM": "its channel is a serial port, not vsock",
      "Firecracker's stand-in": "its guest has no vsock",
    },
    run: async (world) => {
      const flood = `use Socket; my (@held, $met);
        for my $round (1..3000) {
          socket(my $to, 40, SOCK_STREAM, 0) or die "socket: $!";
          $met++ if connect($to, pack("S S L L L", 40, 0, $round % 3 ? 1024 : $round, 2, 0));
          push @held, $to if $round % 6 == 0;
        }
        print $met // 0`;
      assert.equal(await ok(world, "vm", "exec", "one", "--", "perl", "-e", flood), "0");
      assert.equal(await inGuest(world, "one", "echo here"), "here");
      await sh(world, `test $(ls $XDG_RUNTIME_DIR/banger/vms/*/ | grep -c agent.sock_) = 0`);
    },
  },
  {
    name: "grows a disk while its VM runs",
    run: async (world) => {
      const blocks = "stat -fc %b /";
      const before = Number(await inGuest(world, "one", blocks));
      await ok(world, "vm", "set", "--disk-size", "2G", "one");
      assert.ok(Number(await inGuest(world, "one", blocks)) > 1.5 * before);
    },
  },
  {
    name: "pauses and goes on",
    run: async (world) => {
      const boot = await inGuest(world, "one", bootId);
      await ok(world, "vm", "pause", "one");
      assert.equal((await show(world, "one")).state, "paused");
      await ok(world, "vm", "resume", "one");
      assert.equal(await inGuest(world, "one", bootId), boot);
    },
  },
  {
    name: "outlives its daemon, and is taken up by the next one",
    run: async (world) => {
      const boot = await inGuest(world, "one", bootId);
      const { pid } = JSON.parse(await ok(world, "daemon", "status", "--json")) as { pid: number };
      await sh(world, `kill -9 ${pid}; while test -e /proc/${pid}/exe; do sleep 0.1; done`);
      assert.equal(await inGuest(world, "one", bootId), boot);
    },
  },
  {
    name: "saves memory and disk of one instant, and goes on; a copy goes on from there as a machine of its own",
    run: async (world) => {
      await inGuest(world, "one", "echo disk >/root/mark; echo memory >/dev/shm/mark");
      await ok(world, "vm", "snapshot", "one", "--as", "first");
      await inGuest(world, "one", "rm /root/mark /dev/shm/mark");
      const before = Number(await sh(world, "date +%s"));
      await ok(world, "vm", "restore", "first", "--name", "two");
      assert.equal((await show(world, "two")).restored, "snapshot");
      const copy = await inGuest(world, "two", "cat /root/mark /dev/shm/mark; hostname; date +%s; cat /etc/machine-id");
      const [disk, memory, name, date, machine] = copy.split("\n");
      assert.deepEqual([disk, memory, name], ["disk", "memory", "two"]);
      assert.ok(Number(date) >= before, `the guest's clock goes on from ${before}: ${date}`);
      assert.notEqual(await inGuest(world, "one", "cat /etc/machine-id"), machine);
    },
  },
  {
    name: "saves a copy again, with what it has changed since",
    run: async (world) => {
      await inGuest(world, "two", "echo more >>/dev/shm/mark; head -c 4000000 /dev/urandom >/dev/shm/new");
      const sum = await inGuest(world, "two", "sha256sum </dev/shm/new");
      await ok(world, "vm", "fork", "two", "--prefix", "copy");
      assert.equal(
        await inGuest(world, "copy-1", "cat /dev/shm/mark; sha256sum </dev/shm/new"),
        `memory\nmore\n${sum}`,
      );
      await ok(world, "vm", "delete", "copy-1", "two");
    },
  },
  {
    name: "sleeps, and wakes when it is used",
    run: async (world) => {
      const boot = await inGuest(world, "one", `${bootId}; echo awake >/dev/shm/mark`);
      await ok(world, "vm", "sleep", "one");
      const { state, pid } = await show(world, "one");
      assert.deepEqual([state, pid], ["asleep", undefined]);
      assert.equal(await inGuest(world, "one", `${bootId}; cat /dev/shm/mark`), `${boot}\nawake`);
    },
  },
  {
    name: "stops with all that was written, and boots again",
    run: async (world) => {
      await inGuest(world, "one", "echo kept >/root/kept");
      await ok(world, "vm", "stop", "one");
      await ok(world, "vm", "start", "one");
      assert.equal(await inGuest(world, "one", "cat /root/kept"), "kept");
    },
  },
  {
    name: "moves no more from and to its disk in a second than `limits.disk_bandwidth` says",
    not: { "Firecracker's stand-in": "its guest's disk is a QEMU's, which knows no rate limiter" },
    run: async (world) => {
      const config = '"$(banger config path)"';
      await sh(world, `printf '[limits]\\ndisk_bandwidth = "1M"\\n' >>${config}`);
      await ok(world, "vm", "restart", "one");
      const write = "dd if=/dev/zero of=/root/slow bs=1M count=6 oflag=direct 2>/dev/null";
      const ms = await inGuest(world, "one", `began=$(date +%s%3N); ${write}; echo $(($(date +%s%3N) - began))`);
      await sh(world, `sed -i '/^\\[limits\\]/,$d' ${config}`);
      await ok(world, "vm", "restart", "one");
      // What may go at once, before the limit holds, is at most a second's worth.
      assert.ok(Number(ms) >= 2500, `${ms} ms for 6 MiB`);
    },
  },
  {
    name: "ends when its guest restarts, and says so",
    run: async (world) => {
      await world.banger(["vm", "exec", "one", "--", "sh", "-c", "echo b >/proc/sysrq-trigger"]);
      await sh(world, `until banger vm show one --json | grep -q '"state": *"stopped"'; do sleep 0.1; done`);
      assert.match((await show(world, "one")).reason ?? "", /guest|restart/);
    },
  },
  {
    name: "has a network that reaches out, and still has it after a restore",
    not: { "Firecracker's stand-in": "its guest has no tap; tap and relay have a test of their own" },
    run: async (world) => {
      // The machine itself is near, and refused otherwise.
      await ok(world, "vm", "run", "-d", "--name", "net", "--net", "user", "--allow", "any");
      assert.equal(await greeting(world, "net"), "hello");
      await ok(world, "vm", "snapshot", "net", "--as", "net");
      assert.equal(await greeting(world, "net"), "hello");
      await ok(world, "vm", "restore", "net", "--name", "net-2");
      assert.equal(await greeting(world, "net-2"), "hello");
    },
  },
  {
    name: "starts from a template",
    run: async (world) => {
      await sh(world, "sed -i '/^templates.enabled/s/false/true/' \"$(banger config path)\"");
      await ok(world, "image", "warm");
      await ok(world, "vm", "run", "-d", "--name", "warm");
      assert.equal((await show(world, "warm")).restored, "template");
      assert.equal(await inGuest(world, "warm", "hostname"), "warm");
    },
  },
  {
    name: "is gone when it is deleted, with its processes and sockets",
    run: async (world) => {
      const vms = JSON.parse(await ok(world, "vm", "list", "--json")) as Vm[];
      await ok(world, "vm", "delete", ...vms.map(({ name }) => name));
      const pids = vms.flatMap(({ pid }) => pid ?? []);
      assert.equal(await sh(world, `for pid in ${pids.join(" ")}; do test ! -e /proc/$pid/exe || echo $pid; done`), "");
      assert.equal(await sh(world, "find $XDG_RUNTIME_DIR/banger/vms -mindepth 1"), "");
    },
  },
];
