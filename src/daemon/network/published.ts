/** The published ports of one VM: what waits on the host, as its record and its state say. */
import { isIP, type Socket } from "node:net";
import { BangerError, toBangerError } from "../../contract/errors.ts";
import { formatHostPort, formatPublish } from "../../contract/ports.ts";
import type { Publish, Published } from "../../contract/published.ts";
import { silentProgress } from "../../contract/progress.ts";
import { dialGuest } from "../../guest/dial.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import type { GuestStream } from "../../guest/stream.ts";
import type { Log } from "../log.ts";
import type { RecordedPort } from "../store/vms.ts";
import type { VmActor } from "../vms/actor.ts";
import { mutex } from "../vms/mutex.ts";
import { PROXY_PORT } from "../secrets/guest.ts";
import { bindError, UNPRIVILEGED } from "./bind-error.ts";
import { type Listener, protocolOf, watchListeners } from "./listeners.ts";
import { joinTcp, type Listening, listenTcp } from "./tcp.ts";
import { listenUdp } from "./udp.ts";

/** Ports of one VM that may be published; by themselves not so many: a guest decides about those. */
const MAX_PORTS = 256;
const MAX_AUTO = 64;
/** Connections into one guest at once; more are refused. */
const MAX_CONNECTIONS = 4000;
/** So many have the usual window, the others a small one: all that can wait in the guest and here stays below 160 MiB. */
const WIDE_CONNECTIONS = 64;
const SMALL_WINDOW = 32 * 1024;

/** From here on Linux chooses ports for clients: a datagram socket there is one of theirs, as a rule, and is published only when asked. */
const CLIENTS_PORTS = 32_768;

/** Addresses in the guest behind which a server may wait that the world is meant to reach. */
const LOOPBACKS = ["127.0.0.1", "::1"];
const ANY = ["0.0.0.0", "::"];

type Entry = {
  spec: RecordedPort;
  auto: boolean;
  listening: Listening | undefined;
  problem: BangerError | undefined;
};

export type PublishedPorts = {
  list(): Published[];
  /**
   * Connects to a server in the guest, published or not; the VM counts as used meanwhile.
   * @throws VM_STOPPED, HOST_LIMIT, GUEST_ERROR where nothing listens
   */
  connect(port: number, signal: AbortSignal): Promise<GuestStream>;
  /** The VM's record or state has changed: what has no place any more is closed when this returns. */
  changed(): void;
  /**
   * Opens what is recorded and not open yet.
   * @returns what could not be opened, for people
   */
  settle(): Promise<string[]>;
  /**
   * Publishes all of them or none.
   * @param auto also whatever comes to listen in the guest; undefined leaves that as it is
   * @throws PORT_IN_USE, PORT_REFUSED, USAGE
   */
  publish(requests: readonly Publish[], auto?: boolean): Promise<Published[]>;
  /** @throws PORT_NOT_FOUND for one that is not published; then all stay */
  unpublish(requests: readonly Publish[], options: { all?: boolean | undefined; auto?: boolean | undefined }): void;
  close(): void;
};

type Parts = {
  actor: VmActor;
  log: Log;
  /** The guest's own address on its network; undefined without one. */
  guestAddress(): Promise<string | undefined>;
  /** Which other VM has this port of the host. */
  ownerOf(address: string, spec: RecordedPort): string | undefined;
};

export const sameRequest = (wanted: Publish, { proto, guest, host, address }: RecordedPort): boolean =>
  proto === wanted.proto &&
  guest === wanted.guest &&
  (wanted.host === undefined || wanted.host === 0 || wanted.host === host) &&
  (wanted.address === undefined || wanted.address === address);

const portKey = ({ proto, guest }: Pick<RecordedPort, "proto" | "guest">): string => `${proto} ${guest}`;

/** @throws USAGE for an address that is none */
export const recordOf = ({ proto, guest, host, address }: Publish): RecordedPort => {
  if (address !== undefined && isIP(address) === 0)
    throw new BangerError("USAGE", `${JSON.stringify(address)} is not an IP address`, {
      hint: "leave it out to publish on the VM's own address",
    });
  return { proto, guest, host: host ?? guest, ...(address === undefined ? {} : { address }) };
};

export const publishedPorts = ({ actor, log, guestAddress, ownerOf }: Parts): PublishedPorts => {
  const unattended = silentProgress();
  const lock = mutex();
  const entries = new Set<Entry>();
  let connections = 0;
  let watching: AbortController | undefined;
  let closed = false;
  /** Where the server behind a port was found last, by protocol and port. */
  const found = new Map<string, string>();

  const addressOf = ({ address }: RecordedPort): string => address ?? actor.row().address;
  const up = (): boolean => !closed && actor.row().state !== "stopped";

  const hostsOf = async (key: string): Promise<string[]> => {
    const own = await guestAddress();
    const all = own === undefined ? LOOPBACKS : [...LOOPBACKS, own];
    const known = found.get(key);
    return known === undefined ? all : [known, ...all.filter((host) => host !== known)];
  };

  const connect: PublishedPorts["connect"] = async (port, signal) => {
    if (connections >= MAX_CONNECTIONS)
      throw new BangerError("HOST_LIMIT", `VM ${actor.row().name} has ${MAX_CONNECTIONS} connections already`);
    connections++;
    const use = actor.use();
    const over = () => {
      connections--;
      use[Symbol.dispose]();
    };
    try {
      const guest = await actor.guest({ ...unattended, signal });
      const key = `tcp ${port}`;
      const window = connections > WIDE_CONNECTIONS ? SMALL_WINDOW : undefined;
      const { stream, host } = await dialGuest(guest, { port, udp: false, hosts: await hostsOf(key), window }, signal);
      found.set(key, host);
      stream.result.then(over, over);
      return stream;
    } catch (error) {
      over();
      throw error;
    }
  };

  const serveTcp = async (port: number, socket: Socket): Promise<void> => {
    const gone = new AbortController();
    socket.once("close", () => gone.abort());
    try {
      await joinTcp(socket, await connect(port, gone.signal));
    } catch (error) {
      log.debug("published port not reached", { vm: actor.row().name, port, error });
      socket.resetAndDestroy();
    }
  };

  /** A UDP server cannot be seen; one that a datagram did not find is looked for at the guest's next address. */
  const openUdp = (spec: RecordedPort) => async () => {
    const guest = await actor.guest(unattended);
    refuseOldAgent(guest, "dial_udp", "UDP ports");
    const key = `udp ${spec.guest}`;
    const hosts = await hostsOf(key);
    const { stream, host } = await dialGuest(guest, { port: spec.guest, udp: true, hosts }, unattended.signal);
    const use = actor.use();
    const over = (error?: unknown) => {
      use[Symbol.dispose]();
      const refused = error instanceof BangerError && error.details?.code === "ECONNREFUSED";
      const next = LOOPBACKS[(LOOPBACKS.indexOf(host) + 1) % LOOPBACKS.length];
      if (refused && next !== undefined) found.set(key, next);
    };
    stream.result.then(() => over(), over);
    return stream;
  };

  const refuseOldAgent = (guest: GuestConnection, feature: string, what: string) => {
    if (guest.hello.features?.includes(feature)) return;
    throw new BangerError(
      "VM_WRONG_STATE",
      `VM ${actor.row().name} was started by an earlier banger, which knew no ${what}`,
      {
        hint: `let it boot anew: banger vm restart ${actor.row().name}`,
      },
    );
  };

  /** @throws what the system says */
  const listen = (spec: RecordedPort): Promise<Listening> =>
    spec.proto === "tcp"
      ? listenTcp(addressOf(spec), spec.host, (socket) => void serveTcp(spec.guest, socket))
      : listenUdp(addressOf(spec), spec.host, openUdp(spec));

  const drop = (entry: Entry) => {
    entries.delete(entry);
    entry.listening?.close();
  };

  /** @throws what the system says */
  const open = async (spec: RecordedPort, auto: boolean): Promise<Entry> => {
    const listening = await listen(spec);
    const entry: Entry = { spec: { ...spec, host: listening.port }, auto, listening, problem: undefined };
    entries.add(entry);
    // It may have been stopped or deleted meanwhile.
    if (!up()) drop(entry);
    return entry;
  };

  const toError = async (error: unknown, spec: RecordedPort): Promise<BangerError> => {
    const address = addressOf(spec);
    return toBangerError(await bindError(error, { vm: actor.row().name, address, spec }, ownerOf(address, spec)));
  };

  const entryOf = (spec: RecordedPort): Entry | undefined =>
    [...entries].find(
      (entry) =>
        entry.spec.proto === spec.proto &&
        entry.spec.guest === spec.guest &&
        entry.spec.host === spec.host &&
        addressOf(entry.spec) === addressOf(spec),
    );

  const settleNow = async (): Promise<string[]> => {
    const problems: string[] = [];
    for (const spec of actor.row().published) {
      if (!up()) return problems;
      if (entryOf(spec)) continue;
      try {
        await open(spec, false);
      } catch (error) {
        const problem = await toError(error, spec);
        entries.add({ spec, auto: false, listening: undefined, problem });
        problems.push(`port ${formatPublish(spec)} is not published: ${problem.message}`);
        log.warn("port not published", { vm: actor.row().name, error: problem });
      }
    }
    return problems;
  };

  const settle = () => lock.run(settleNow, unattended.signal);

  const openAuto = async (proto: RecordedPort["proto"], port: number): Promise<void> => {
    const spec: RecordedPort = { proto, guest: port, host: port };
    const candidates = port < 1024 ? [port, port + UNPRIVILEGED, 0] : [port, 0];
    for (const host of candidates) {
      try {
        await open({ ...spec, host }, true);
        return;
      } catch (error) {
        if (host === 0) log.warn("port not published", { vm: actor.row().name, proto, port, error });
      }
    }
  };

  const followListeners = async (listeners: readonly Listener[]): Promise<void> => {
    const own = await guestAddress();
    const reachable = new Set([...LOOPBACKS, ...ANY, ...(own === undefined ? [] : [own])]);
    const explicit = new Set(actor.row().published.map(portKey));
    const wanted = new Map<string, { proto: RecordedPort["proto"]; guest: number }>();
    for (const listener of [...listeners].sort((a, b) => a.port - b.port)) {
      const one = { proto: protocolOf(listener), guest: listener.port };
      const ofClient = one.proto === "udp" && one.guest >= CLIENTS_PORTS;
      if (!reachable.has(listener.address) || ofClient || one.guest === PROXY_PORT || explicit.has(portKey(one)))
        continue;
      if (wanted.size < MAX_AUTO) wanted.set(portKey(one), one);
    }
    const autos = [...entries].filter(({ auto }) => auto);
    const gone = autos.filter(({ spec }) => !wanted.has(portKey(spec)));
    for (const entry of gone) drop(entry);
    const there = new Set(autos.map(({ spec }) => portKey(spec)));
    const fresh = [...wanted.values()].filter((one) => !there.has(portKey(one)));
    for (const { proto, guest } of fresh) if (up() && actor.row().autoPublish) await openAuto(proto, guest);
    if (gone.length + fresh.length > 0) actor.announce();
  };

  const watch = (): void => {
    const { autoPublish, state, name } = actor.row();
    if (watching || closed || !autoPublish || state !== "running") return;
    const controller = new AbortController();
    watching = controller;
    let heard = false;
    const follow = async (): Promise<void> => {
      const guest = await actor.guest({ ...unattended, signal: controller.signal });
      refuseOldAgent(guest, "watch_listeners", "news of listeners");
      const onChange = (listeners: Listener[]) => {
        heard = true;
        lock
          .run(() => followListeners(listeners), controller.signal)
          .catch((error: unknown) => {
            log.warn("ports not published", { vm: name, error });
          });
      };
      await watchListeners(guest, onChange, controller.signal);
    };
    follow()
      .catch((error: unknown) => log.info("listeners of a VM are not watched any more", { vm: name, error }))
      .finally(() => {
        if (watching !== controller) return;
        watching = undefined;
        // Its connection broke, and the VM goes on.
        if (heard) watch();
      });
  };

  const unwatch = () => {
    watching?.abort();
    watching = undefined;
  };

  const closeAll = () => {
    unwatch();
    for (const entry of [...entries]) drop(entry);
    found.clear();
  };

  const changed = () => {
    const { state, autoPublish } = actor.row();
    if (!up()) return closeAll();
    if (state !== "running" || !autoPublish) unwatch();
    if (!autoPublish) for (const entry of [...entries].filter(({ auto }) => auto)) drop(entry);
    watch();
  };

  /** An agent that runs on from before an update cannot do everything. Not under the lock: a start takes it while whoever asks for the guest waits. */
  const checkAgent = async (requests: readonly Publish[], auto: boolean | undefined): Promise<void> => {
    if (actor.row().state !== "running" || !(auto || requests.some(({ proto }) => proto === "udp"))) return;
    const guest = await actor.guest(unattended);
    if (auto) refuseOldAgent(guest, "watch_listeners", "news of listeners");
    else refuseOldAgent(guest, "dial_udp", "UDP ports");
  };

  const publish: PublishedPorts["publish"] = async (requests, auto) => {
    await checkAgent(requests, auto);
    return lock.run(async () => {
      const { published } = actor.row();
      const all = [...published];
      const told: RecordedPort[] = [];
      const opened: Entry[] = [];
      try {
        for (const request of requests) {
          const present = all.find((spec) => sameRequest({ ...request, host: request.host ?? request.guest }, spec));
          const spec = present ?? recordOf(request);
          const before = entryOf(spec);
          if (before?.listening && !before.auto) {
            told.push(spec);
            continue;
          }
          // It makes room: on its own address it has the very port, as a rule.
          for (const entry of [...entries].filter(
            (one) => one === before || (one.auto && portKey(one.spec) === portKey(spec)),
          ))
            drop(entry);
          const entry = await listenOrCheck(spec);
          opened.push(entry);
          told.push(entry.spec);
          if (!present) all.push(entry.spec);
        }
        if (all.length > MAX_PORTS)
          throw new BangerError("USAGE", `a VM can have ${MAX_PORTS} published ports`, {
            hint: "take some away with `banger vm unpublish`",
          });
      } catch (error) {
        for (const entry of opened) drop(entry);
        throw error;
      }
      actor.record({ published: all, ...(auto === undefined ? {} : { autoPublish: auto }) });
      return told.map((spec) => ({ ...spec, address: addressOf(spec) }));
    }, unattended.signal);
  };

  /** Of a stopped VM the port is only tried. */
  const listenOrCheck = async (spec: RecordedPort): Promise<Entry> => {
    try {
      return await open(spec, false);
    } catch (error) {
      throw await toError(error, spec);
    }
  };

  const unpublish: PublishedPorts["unpublish"] = (requests, { all, auto }) => {
    const { published, name } = actor.row();
    const missing = requests.find((request) => !published.some((spec) => sameRequest(request, spec)));
    if (missing)
      throw new BangerError("PORT_NOT_FOUND", `port ${formatPublish(missing)} of VM ${name} is not published`, {
        hint: `see what is: banger vm ports ${name}`,
      });
    const leaves = (spec: RecordedPort) => all === true || requests.some((request) => sameRequest(request, spec));
    for (const entry of [...entries].filter((one) => !one.auto && leaves(one.spec))) drop(entry);
    const stops = auto === true || all === true;
    actor.record({ published: published.filter((spec) => !leaves(spec)), ...(stops ? { autoPublish: false } : {}) });
  };

  const list = (): Published[] => {
    const recorded = actor.row().published.map((spec): Published => {
      const problem = entryOf(spec)?.problem;
      return { ...spec, address: addressOf(spec), ...(problem ? { problem: problem.message } : {}) };
    });
    const autos = [...entries]
      .filter(({ auto }) => auto)
      .map(({ spec }): Published => ({ ...spec, address: addressOf(spec), auto: true }));
    return [...recorded, ...autos].sort((a, b) => a.guest - b.guest || a.proto.localeCompare(b.proto));
  };

  return {
    list,
    connect,
    changed,
    settle,
    publish,
    unpublish,
    close: () => {
      closed = true;
      closeAll();
    },
  };
};

/** Warnings for those who publish where others reach it. */
export const exposureNotes = (published: readonly Published[], vm: string): string[] =>
  published
    .filter(({ address }) => !address.startsWith("127.") && address !== "::1")
    .map(
      ({ address, host, guest }) =>
        `whoever can reach this machine by ${formatHostPort(address, host)} reaches port ${guest} of VM ${vm}`,
    );
