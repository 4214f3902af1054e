/** Connections that the daemon makes in a VM's name: names are looked up here, at that moment, and what was judged is what is connected to. */
import { lookup } from "node:dns/promises";
import { connect as connectTo, isIP, type Socket } from "node:net";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { quoted } from "../../contract/names.ts";
import { formatHostPort } from "../../contract/ports.ts";
import { abortable, throwIfAborted } from "../../contract/progress.ts";
import { hasIpv6, localNetworks } from "../../host/local-networks.ts";
import { type Destination, refusalOf } from "./judge.ts";
import type { NetworkRules } from "./rules-file.ts";
import type { Tell, Whose } from "./told.ts";

/** Of one attempt, in ms. */
const CONNECT_LIMIT = 20_000;
/** Of a name's addresses so many are tried. */
const ADDRESSES_MAX = 8;
/** Each occupies one of libuv's four threads, for seconds where a server does not answer, and files of all VMs need them too. */
const LOOKUPS_AT_ONCE = 2;

let looking = 0;
const queue: (() => void)[] = [];

const inTurn = async <T>(work: () => Promise<T>): Promise<T> => {
  if (looking >= LOOKUPS_AT_ONCE) await new Promise<void>((resolve) => queue.push(resolve));
  else looking++;
  try {
    return await work();
  } finally {
    // A place is handed on, not given back, while others wait.
    const next = queue.shift();
    if (next) next();
    else looking--;
  }
};

/** Of IPv6 where this machine has a way out by it. */
const lookUp = async (host: string): Promise<string[]> => {
  const found = await lookup(host, { all: true, order: "ipv4first" });
  const six = found.some(({ family }) => family === 6) && (await hasIpv6());
  return found.flatMap(({ address, family }) => (family === 4 || six ? [address] : []));
};

const addressesOf = async (host: string, look: typeof lookUp, signal: AbortSignal): Promise<string[]> => {
  if (isIP(host) > 0) return [host];
  const found = inTurn(async () => {
    throwIfAborted(signal);
    return await look(host);
  });
  found.catch(() => undefined);
  try {
    return (await abortable(found, signal)).slice(0, ADDRESSES_MAX);
  } catch (error) {
    throwIfAborted(signal);
    throw new BangerError("UPSTREAM_FAILED", `${quoted(host)} has no address: ${errnoOf(error) ?? "not found"}`, {
      hint: "check the name, and that this machine can look it up",
      cause: error,
    });
  }
};

const connected = (destination: Destination, signal: AbortSignal): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const { address, port } = destination;
    const socket = connectTo({ host: address, port, allowHalfOpen: true, noDelay: true, keepAlive: true });
    const timer = setTimeout(() => socket.destroy(new Error("it does not answer")), CONNECT_LIMIT);
    const abort = () => socket.destroy(new Error("nobody waits for it any more"));
    signal.addEventListener("abort", abort, { once: true });
    const settle = (act: () => void) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      socket.removeAllListeners("error");
      // Whoever takes it over has listeners of its own; until then a reset is seen by its end.
      socket.on("error", () => undefined);
      act();
    };
    socket.once("connect", () => settle(() => resolve(socket)));
    socket.once("error", (error) => settle(() => reject(error)));
  });

export type Outgoing = {
  /**
   * @param host a name in lower case, or an address
   * @param whose which process of the guest wants it, for the network log
   * @throws NET_REFUSED by the VM's rules, UPSTREAM_FAILED
   */
  connect(host: string, port: number, signal: AbortSignal, whose?: Whose): Promise<Socket>;
  /** The rules have changed: what they do not allow any more is cut off. */
  judgeAgain(): Promise<void>;
  close(): void;
};

/**
 * @param rules as they are when they are asked for
 * @param tell writes the VM's network log
 * @param look a name's addresses, asked for once a connection
 */
export const outgoing = (rules: () => NetworkRules, tell: Tell, look = lookUp): Outgoing => {
  const open = new Map<Socket, { to: Destination; whose: Whose | undefined }>();

  const refuse = async (
    { host, address, port }: Destination,
    rule: string,
    whose: Whose | undefined,
  ): Promise<BangerError> => {
    const name = host === address ? "" : ` ${host}`;
    await tell({ what: `refused tcp ${formatHostPort(address, port)}${name}`, rule, whose });
    return new BangerError("NET_REFUSED", `this VM may not reach ${host} port ${port} (${address}): ${rule}`, {
      hint: "on the machine that runs the VM: banger vm net allow VM RULE",
      details: { host, address, port, rule },
    });
  };

  const connect: Outgoing["connect"] = async (host, port, signal, whose) => {
    const addresses = await addressesOf(host, look, signal);
    const near = await localNetworks();
    let failure: unknown;
    let refusal: BangerError | undefined;
    for (const address of addresses) {
      const to = { host, address, port };
      const rule = refusalOf(rules(), near, to);
      if (rule !== undefined) {
        refusal ??= await refuse(to, rule, whose);
        continue;
      }
      try {
        const socket = await connected(to, signal);
        open.set(socket, { to, whose });
        socket.once("close", () => open.delete(socket));
        if (rules().network === "learn")
          await tell({ what: `passed tcp ${formatHostPort(address, port)}${host === address ? "" : ` ${host}`}` });
        return socket;
      } catch (error) {
        throwIfAborted(signal);
        failure ??= error;
      }
    }
    if (failure === undefined && refusal) throw refusal;
    const why = failure instanceof Error ? failure.message : "it has no address";
    throw new BangerError("UPSTREAM_FAILED", `${host} port ${port} cannot be reached: ${why}`, { cause: failure });
  };

  return {
    connect,
    judgeAgain: async () => {
      const near = await localNetworks();
      for (const [socket, { to, whose }] of [...open]) {
        const rule = refusalOf(rules(), near, to);
        if (rule === undefined) continue;
        // Asked before it is told, for which nobody has to wait here.
        void refuse(to, rule, whose);
        socket.resetAndDestroy();
      }
    },
    close: () => {
      for (const socket of open.keys()) socket.destroy();
    },
  };
};
