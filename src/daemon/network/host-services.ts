/** What the daemon offers on this machine beside its API: names below `.vm`, and VMs' web servers by name. Both as the settings say. */
import type { Config } from "../../contract/config.ts";
import { errnoOf } from "../../contract/errors.ts";
import { formatHostPort } from "../../contract/ports.ts";
import { silentProgress } from "../../contract/progress.ts";
import { portOwners } from "../../host/port-owner.ts";
import type { Log } from "../log.ts";
import { mutex } from "../vms/mutex.ts";
import { listenDns } from "./dns.ts";
import type { Listening } from "./tcp.ts";
import { type Connect, listenWeb } from "./web.ts";

/** Where one of them is, or why it is not. */
export type Offered = { address: string; problem?: string | undefined };

export type HostServices = {
  /** Takes up what the settings say now. Never fails: what cannot be had is told. */
  apply(config: Config["network"]): Promise<void>;
  offered(): { dns?: Offered; web?: Offered };
  close(): void;
};

type Service = {
  name: "dns" | "web";
  open(address: string, port: number): Promise<Listening>;
  /** As the settings named it. */
  wanted?: string | undefined;
  listening?: Listening | undefined;
  offered?: Offered | undefined;
};

const why = async (error: unknown, proto: "tcp" | "udp", port: number): Promise<string> => {
  if (errnoOf(error) !== "EADDRINUSE") return error instanceof Error ? error.message : String(error);
  const owners = (await portOwners(proto, port)).map(({ name, pid }) => `${name} (process ${pid})`);
  return `the port is in use by ${owners.join(" and ") || "a process of another user"}`;
};

export const hostServices = (
  log: Log,
  { addressOf, connect }: { addressOf(name: string): string | undefined; connect: Connect },
): HostServices => {
  const lock = mutex();
  const services: Service[] = [
    { name: "dns", open: (address, port) => listenDns(address, port, addressOf) },
    { name: "web", open: (address, port) => listenWeb(address, port, connect) },
  ];

  const take = async (service: Service, wanted: Config["network"]["dns"]): Promise<void> => {
    const text = wanted && formatHostPort(wanted.address, wanted.port);
    // One that could not be had is tried again: whoever had it may be gone.
    if (text === service.wanted && (service.listening || !wanted)) return;
    service.listening?.close();
    Object.assign(service, { wanted: text, listening: undefined, offered: undefined });
    if (!wanted || text === undefined) return;
    try {
      service.listening = await service.open(wanted.address, wanted.port);
      service.offered = { address: formatHostPort(wanted.address, service.listening.port) };
    } catch (error) {
      const problem = await why(error, service.name === "dns" ? "udp" : "tcp", wanted.port);
      service.offered = { address: text, problem };
      log.warn("not offered on this machine", { service: service.name, address: text, problem });
    }
  };

  return {
    apply: (config) =>
      lock.run(async () => {
        for (const service of services) await take(service, config[service.name]);
      }, silentProgress().signal),
    offered: () => Object.fromEntries(services.flatMap(({ name, offered }) => (offered ? [[name, offered]] : []))),
    close: () => {
      for (const { listening } of services) listening?.close();
    },
  };
};
