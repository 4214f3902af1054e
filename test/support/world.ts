/**
 * A small world for this machine's network: namespaces that stand for this machine, for another one in its local network, and for the Internet. Made without privileges; nothing
 * of it is in the real machine's network, and all of it is gone when its processes are, which end with the test's.
 *
 *     this machine 192.168.50.1, fd50::1 --- 192.168.50.2, fd50::2 the local network's other machine
 *                  198.51.100.2, 2001:db8:ffff::2 --- 198.51.100.1, 2001:db8:ffff::1 the Internet
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { finish } from "./host.ts";
import { outputHolds } from "./wait.ts";

const server = join(import.meta.dirname, "world-server.ts");
const PATH = `${process.env.PATH}:/usr/sbin:/sbin`;

/** Of the machine in the local network. */
export const LAN = { four: "192.168.50.2", six: "fd50::2" };
/** Of this machine, in the local network. */
export const OWN = { four: "192.168.50.1", six: "fd50::1" };
export const METADATA = "169.254.169.254";
/** Addresses on the Internet: `WEB.four(80)` is 203.0.113.80. */
export const WEB = { four: (n: number) => `203.0.113.${n}`, six: (n: number) => `2001:db8:1::${n}` };
/** Where it answers DNS, and where somebody else does. */
export const RESOLVER = WEB.four(53);
export const RESOLVER6 = WEB.six(53);
export const OTHER_RESOLVER = WEB.four(54);
/** Private addresses behind the Internet's router: nobody's here, and yet a way leads there. */
export const BEYOND = ["10.77.0.5", "100.64.7.7", "fd77::5"];
/** Addresses that lead to an IPv4 address, here the local network's, through somebody's translator. */
export const TRANSLATED = ["64:ff9b::c0a8:3202", "2002:c0a8:3202::1"];

/** A machine with servers: TCP on all of `TCP_PORTS`, which tell who they are and then send back what they get, and UDP on `UDP_PORTS`. */
export const TCP_PORTS = [53, 80, 443, 5432, 8080];
export const UDP_PORTS = [53, 123, 443];

/** Answers in turn; the last one stays. */
export type Answers = { A?: string[][]; AAAA?: string[][] };
export type Machine = {
  /** Program and arguments that come before those of a program that is to run there. */
  through: readonly string[];
  /** Who has come since the last time: `tcp ADDRESS:PORT`. Everything that had been sent before the question is among it. */
  visits(): Promise<string[]>;
  /** Names that it answers for, where it is the Internet. */
  setZone(zone: Record<string, Answers>): Promise<void>;
  /** How many pings its kernel has heard, over IPv4 and IPv6. */
  pings(): Promise<number>;
};
export type World = AsyncDisposable & {
  here: Machine;
  lan: Machine;
  internet: Machine;
  /** Which protocols lead from here to the Internet. */
  setWaysOut(ways: { four: boolean; six: boolean }): Promise<void>;
  /** Whom this machine asks for names. */
  setResolvers(...addresses: string[]): Promise<void>;
  /** This machine comes to be on another network, by this address, or leaves it. */
  join(subnet: string): Promise<void>;
  leave(subnet: string): Promise<void>;
};

const inside = (pid: number): string[] => [
  "nsenter",
  ...["--target", String(pid), "--user", "--net", "--mount", "--preserve-credentials"],
];

/** A process that keeps namespaces alive until its input ends. */
const holder = async (argv: readonly string[]): Promise<ChildProcess & { pid: number }> => {
  const [program = "", ...args] = [...argv, "sh", "-c", "echo ready; exec cat"];
  const child = spawn(program, args, { stdio: "pipe", env: { ...process.env, PATH } });
  await outputHolds(child, "ready");
  if (child.pid === undefined) throw new Error("a process without a number");
  return child as ChildProcess & { pid: number };
};

const runScript = async (through: readonly string[], script: string): Promise<string> => {
  const [program = "", ...args] = [...through, "sh", "-ec", script];
  const done = await finish(spawn(program, args, { stdio: "pipe", env: { ...process.env, PATH } }));
  if (done.status !== 0) throw new Error(`${script}\nended with ${done.status}: ${done.stderr}`);
  return done.stdout;
};

const startMachine = async (
  name: string,
  pid: number,
  addresses: readonly string[],
): Promise<{ machine: Machine; child: ChildProcess }> => {
  const through = inside(pid);
  const [program = "", ...args] = [...through, process.execPath, server, name, ...addresses];
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, PATH } });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (command: unknown): Promise<unknown> => {
    child.stdin.write(`${JSON.stringify(command)}\n`);
    const { value } = await lines.next();
    if (value === undefined) throw new Error(`the servers of ${name} have ended`);
    return JSON.parse(value);
  };
  await ask({ ports: { tcp: TCP_PORTS, udp: UDP_PORTS } });
  const machine: Machine = {
    through,
    visits: async () => (await ask({ visits: true })) as string[],
    setZone: async (zone) => void (await ask({ zone })),
    pings: async () => Number((await runScript(through, pingScript)).trim()),
  };
  return { machine, child };
};

/** The first line that begins with `Icmp:` names the columns of the second. */
const pingScript = `awk '/^Icmp:/ { if (!seen++) for (i = 1; i <= NF; i++) at[$i] = i; else sum += $at["InEchos"] }
  $1 == "Icmp6InEchos" { sum += $2 } END { print sum + 0 }' /proc/net/snmp /proc/net/snmp6`;

export const makeWorld = async (): Promise<World> => {
  const folder = await mkdtemp(join(tmpdir(), "world-"));
  const children: ChildProcess[] = [];
  const end = async (): Promise<void> => {
    await Promise.all(
      children.toReversed().map(async (child) => {
        if (child.exitCode !== null || child.signalCode !== null) return;
        const gone = once(child, "exit");
        child.stdin?.end();
        child.kill();
        await gone;
      }),
    );
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const own = await holder(["unshare", "--user", "--map-root-user", "--net", "--mount"]);
    children.push(own);
    const other = () => holder([...inside(own.pid), "unshare", "--net"]);
    const [lan, internet] = await Promise.all([other(), other()]);
    children.push(lan, internet);
    // Written over, never replaced: it is mounted.
    const setResolvers = (...addresses: string[]) =>
      writeFile(join(folder, "resolv.conf"), addresses.map((address) => `nameserver ${address}\n`).join(""));
    await setResolvers(RESOLVER);
    const add6 = (device: string, address: string) => `ip address add ${address} dev ${device} nodad`;
    await runScript(
      inside(own.pid),
      `mount --bind ${join(folder, "resolv.conf")} /etc/resolv.conf
      ip link set lo up
      ip link add lan0 type veth peer name eth0 netns ${lan.pid}
      ip link add wan0 type veth peer name eth0 netns ${internet.pid}
      ip address add ${OWN.four}/24 dev lan0; ${add6("lan0", `${OWN.six}/64`)}; ip link set lan0 up
      ip address add 198.51.100.2/24 dev wan0; ${add6("wan0", "2001:db8:ffff::2/64")}; ip link set wan0 up`,
    );
    await runScript(
      inside(lan.pid),
      `ip link set lo up; ip address add ${LAN.four}/24 dev eth0; ${add6("eth0", `${LAN.six}/64`)}; ip link set eth0 up`,
    );
    const numbers = [53, 54, ...Array.from({ length: 10 }, (_, index) => 80 + index)];
    const four = [METADATA, ...numbers.map(WEB.four), ...BEYOND.filter((address) => !address.includes(":"))];
    const beyond6 = [...BEYOND.filter((address) => address.includes(":")), ...TRANSLATED];
    const sixes = [...numbers.map(WEB.six), ...beyond6];
    await runScript(
      inside(internet.pid),
      `ip link set lo up; ip address add 198.51.100.1/24 dev eth0; ${add6("eth0", "2001:db8:ffff::1/64")}; ip link set eth0 up
      for address in ${four.join(" ")}; do ip address add $address/32 dev lo; done
      for address in ${sixes.join(" ")}; do ip address add $address/128 dev lo nodad; done`,
    );
    const setWaysOut: World["setWaysOut"] = async (ways) => {
      const four = ways.four ? "replace default via 198.51.100.1" : "flush default";
      const six = ways.six ? "replace default via 2001:db8:ffff::1" : "flush default";
      await runScript(inside(own.pid), `ip route ${four}; ip -6 route ${six}`);
    };
    // The other end is there.
    await setWaysOut({ four: true, six: true });
    const own6 = [OWN.six, "::1", "2001:db8:ffff::2"];
    const started = await Promise.all([
      startMachine("here", own.pid, [OWN.four, "127.0.0.1", "198.51.100.2", ...own6]),
      startMachine("lan", lan.pid, [LAN.four, LAN.six]),
      startMachine("internet", internet.pid, ["198.51.100.1", ...four, ...sixes]),
    ]);
    children.push(...started.map(({ child }) => child));
    const [here, near, far] = started.map(({ machine }) => machine);
    if (!here || !near || !far) throw new Error("three machines");
    const address = async (verb: string, subnet: string): Promise<void> =>
      void (await runScript(
        inside(own.pid),
        `ip address ${verb} ${subnet} dev lan0 ${verb === "add" ? "noprefixroute" : ""}`,
      ));
    return {
      here,
      lan: near,
      internet: far,
      setWaysOut,
      setResolvers,
      join: (subnet) => address("add", subnet),
      leave: (subnet) => address("delete", subnet),
      [Symbol.asyncDispose]: end,
    };
  } catch (error) {
    await end();
    throw error;
  }
};
