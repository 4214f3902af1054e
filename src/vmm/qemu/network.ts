/**
 * How a VM's NIC reaches the outside without privileges: passt, a process of its own without rights, on the other end of an inherited
 * socket; where it is not installed, QEMU's built-in user network (libslirp).
 */
import { access, constants, open } from "node:fs/promises";
import { join } from "node:path";
import type { Socket } from "node:net";
import { errnoOf } from "../../contract/errors.ts";
import { readFileIfThere } from "../../host/files.ts";
import { hasIpv4, hasIpv6 } from "../../host/local-networks.ts";
import { agentBinary } from "../../host/paths.ts";
import { startProcess, toolPath } from "../../host/process.ts";
import { socketPair } from "../../host/sockets.ts";
import type { GuestNetwork, NetworkBackend } from "../driver.ts";

/** The same in every VM: each has a network of its own. */
const ADDRESS = "10.0.2.15";
const four = { address: `${ADDRESS}/24`, gateway: "10.0.2.2" };
const DNS = "10.0.2.3";
/** A unique local one (RFC 4193), so that programs try IPv4 first where a name has both (RFC 6724). The filter knows it too (agent/src/host/address.rs). */
const ADDRESS6 = "fd62:616e:6765:7200::15";
const six = { address6: `${ADDRESS6}/64`, gateway6: "fd62:616e:6765:7200::2" };
const DNS6 = "fd62:616e:6765:7200::3";

const slirpGuest: GuestNetwork = { ...four, dns: [DNS] };

/** Its forwarder for DNS leads to a resolver of the host's that has an address of the same kind. @param resolvers text of resolv.conf */
export const passtGuest = (has: { four: boolean; six: boolean }, resolvers: string): GuestNetwork => {
  if (!has.six) return slirpGuest;
  const servers = [...resolvers.matchAll(/^nameserver\s+(\S+)/gm)].map(([, server = ""]) => server);
  const only6 = servers.length > 0 && servers.every((server) => server.includes(":"));
  return has.four ? { ...four, ...six, dns: [only6 ? DNS6 : DNS] } : { ...six, dns: [DNS6] };
};

const passtGuestNow = async (): Promise<GuestNetwork> => {
  const [hasFour, hasSix, resolvers] = await Promise.all([hasIpv4(), hasIpv6(), readFileIfThere("/etc/resolv.conf")]);
  return passtGuest({ four: hasFour, six: hasSix }, resolvers ?? "");
};

const slirpNote =
  "passt is not installed: the network goes through QEMU's built-in user mode, slower, and with the services on this machine's loopback " +
  "reachable from the guest at 10.0.2.2; install it: sudo apt-get install -y passt";

const onPath = async (program: string): Promise<boolean> => {
  for (const folder of toolPath().split(":")) {
    try {
      await access(join(folder, program), constants.X_OK);
      return true;
    } catch (error) {
      if (!["ENOENT", "EACCES", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
  return false;
};

export const chooseNetwork = async (): Promise<NetworkBackend> =>
  (await onPath("passt"))
    ? { name: "passt", address: ADDRESS, guest: passtGuestNow, note: undefined }
    : { name: "slirp", address: ADDRESS, guest: async () => slirpGuest, note: slirpNote };

/** QEMU's `-netdev` argument; `fd` is the descriptor that `preparePasst`'s socket has in QEMU. */
export const netdevArgument = (backend: NetworkBackend, fd: number): string =>
  backend.name === "passt"
    ? `stream,id=net0,server=off,addr.type=fd,addr.str=${fd}`
    : `user,id=net0,net=10.0.2.0/24,host=10.0.2.2,dns=10.0.2.3,dhcpstart=10.0.2.15,ipv6=off`;

/** passt's answers to the network of the guest: nothing is mapped to the host's loopback, and nothing of the host is forwarded in. */
const passtArguments = async (): Promise<string[]> => [
  ...["--foreground", "--quiet"],
  ...["--address", ADDRESS, "--netmask", "24", "--gateway", four.gateway, "--dns-forward", DNS, "--no-dhcp"],
  ...((await hasIpv6())
    ? ["--address", ADDRESS6, "--gateway", six.gateway6, "--dns-forward", DNS6, "--no-dhcpv6", "--no-ra"]
    : ["--ipv4-only"]),
  "--no-map-gw",
  ...["--tcp-ports", "none", "--udp-ports", "none"],
];

/** A log that begins anew, and is appended to, since others write to it too. */
const ANEW = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_APPEND;

/**
 * Starts passt alone, for a VMM whose frames are filtered elsewhere.
 * @returns the other end of its socket, and its process, which ends when that is closed everywhere
 */
export const startPlainPasst = async (folder: string, log: string): Promise<{ nic: Socket; pid: number }> => {
  await using output = await open(log, ANEW, 0o600);
  const [nic, forPasst] = await socketPair(folder);
  try {
    const { pid } = await startProcess({
      argv: ["passt", "--fd", "0", ...(await passtArguments())],
      cwd: "/",
      stdio: [forPasst, output.fd, output.fd],
      outlive: true,
    });
    return { nic, pid };
  } catch (error) {
    nic.destroy();
    throw error;
  } finally {
    forPasst.destroy();
  }
};

/**
 * Prepares passt for one VM, and the filter before it that refuses what a guest may not reach (agent/src/host/net_filter.rs). They are started once QEMU
 * is, which takes longer to come up than they do.
 *
 * Both get their sockets as stdin and stdout, because those are made blocking on the way, which passt counts on: with a socket that does not
 * block it loses track of its stream at the first full buffer, and ends.
 */
export const preparePasst = async (folder: string, log: string, rules: string): Promise<Passt> => {
  const [[forQemu, guestSide], [hostSide, forPasst], passtFlags] = await Promise.all([
    socketPair(folder),
    socketPair(folder),
    passtArguments(),
  ]);
  const start = async () => {
    await using output = await open(log, ANEW, 0o600);
    const started = await Promise.all([
      startProcess({
        argv: [agentBinary(), "--filter-network", rules],
        cwd: "/",
        stdio: [guestSide, hostSide, output.fd],
        outlive: true,
      }),
      startProcess({
        argv: ["passt", "--fd", "0", ...passtFlags],
        cwd: "/",
        stdio: [forPasst, output.fd, output.fd],
        outlive: true,
      }),
    ]);
    return started.map(({ pid }) => pid);
  };
  return {
    nic: forQemu,
    start,
    [Symbol.dispose]: () => {
      for (const given of [forQemu, guestSide, hostSide, forPasst]) given.destroy();
    },
  };
};

export type Passt = Disposable & {
  /** To be given to QEMU. */
  nic: Socket;
  /**
   * Starts the filter and passt.
   * @returns their pids. Both end by themselves when QEMU (or, before that, this process) closes its socket.
   */
  start(): Promise<number[]>;
};
