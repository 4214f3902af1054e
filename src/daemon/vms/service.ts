/** All VMs of one user: making, finding, and what is asked of them. */
import { randomBytes } from "node:crypto";
import { BangerError, errnoOf, nearest } from "../../contract/errors.ts";
import type { ImageBoot } from "../../contract/images.ts";
import { checkName, formatDuration, quoted } from "../../contract/names.ts";
import { type Progress, withDeadline } from "../../contract/progress.ts";
import type { NetRequest } from "../../contract/network.ts";
import type { Publish, Published } from "../../contract/published.ts";
import type { SecretInfo, SecretRecord, SecretsRequest } from "../../contract/secrets.ts";
import type {
  CreateVm,
  GuestPort,
  PublishRequest,
  PublishResult,
  SetResult,
  SetVm,
  UnpublishRequest,
  Vm,
} from "../../contract/vms.ts";
import type { Warm } from "../../contract/templates.ts";
import type { GuestStream } from "../../guest/stream.ts";
import { bytesOnDisk, exists } from "../../host/files.ts";
import { roots, vmFiles } from "../../host/paths.ts";
import { requireFilter } from "../../vmm/filter.ts";
import type { VmRow, VmStore } from "../store/vms.ts";
import { unattended, type VmActor, vmActor } from "./actor.ts";
import { removeOrphans } from "./orphans.ts";
import type { Shape } from "./plan.ts";
import { newMac, type ReadyVm } from "./pool.ts";
import type { BootServices } from "./services.ts";
import { newAddress } from "../network/address.ts";
import { exposureNotes, type PublishedPorts, publishedPorts, recordOf } from "../network/published.ts";
import { changeRules, checkRules } from "../network/rules.ts";
import { heedsRules, needsFilter, writeRules } from "../network/rules-file.ts";
import { joinTeam } from "../network/team.ts";
import { checkCopied, checkSecrets, merged, recordOf as secretRecordOf, settle } from "../secrets/records.ts";
import type { KeptSecret } from "../secrets/values.ts";
import { guestListeners, withPublished } from "./ports.ts";
import { autoStop } from "./auto-stop.ts";
import { checkDisk, checkMemory, checkOwnMemory, hostRoom } from "./limits.ts";
import { applyLabels } from "./change.ts";
import { newName } from "./names.ts";
import { type VmFeed, vmFeed } from "./watch.ts";

/** What a VM gets where its creator says nothing. Sizes in bytes. */
export type VmDefaults = {
  image: string;
  kernel: string;
  vcpu: number;
  memory: number;
  diskSize: number;
  network: Vm["network"];
};

/** What a copy has of the VM that it is made of, beside what it is created with. */
export type Copied = {
  secrets: readonly SecretRecord[];
  /** Their values, where the copy gets them. */
  values: readonly KeptSecret[];
};

export type VmService = {
  list(): Vm[];
  /** A VM as clients see it. */
  view(actor: VmActor): Vm;
  /** The config has changed. */
  settingsChanged(): void;
  /** Tells of VMs as they change. */
  feed: VmFeed;
  actors(): readonly VmActor[];
  show(reference: string): Promise<Vm>;
  /**
   * Checks and records a VM; image and kernel are pulled where they are missing.
   * @param copied it is another VM's copy: a disk that the host's can never hold is then nobody's wish to be refused
   */
  create(request: CreateVm, progress: Progress, copied?: Copied): Promise<VmActor>;
  /**
   * What a new VM would be made of.
   * @throws USAGE for what cannot be
   */
  shape(request: Warm): Promise<Shape>;
  /** By name, id or an unambiguous prefix. Throws VM_NOT_FOUND or VM_AMBIGUOUS. */
  find(reference: string): VmActor;
  /**
   * Changes what a VM is made of.
   * @returns when each change takes effect, by field, and what its user should know
   */
  set(actor: VmActor, request: SetVm, progress: Progress): Promise<Pick<SetResult, "effects" | "notes">>;
  /** What listens in the guest, and what reaches it on the host. A VM that sleeps or is stopped is left so. */
  ports(actor: VmActor): Promise<GuestPort[]>;
  /** @throws PORT_IN_USE, PORT_REFUSED, USAGE; then nothing of it is published */
  publish(actor: VmActor, request: PublishRequest): Promise<PublishResult>;
  /** @throws PORT_NOT_FOUND */
  unpublish(actor: VmActor, request: UnpublishRequest): Vm;
  /**
   * Changes the rules of its network, at once where it runs.
   * @throws USAGE for too many, or one to take away that is not there; TOOL_MISSING, VM_WRONG_STATE where nothing heeds them; then all stay
   */
  changeRules(actor: VmActor, request: NetRequest): Promise<Vm>;
  secrets(actor: VmActor): Promise<SecretInfo[]>;
  /** @throws USAGE, SECRET_NOT_FOUND, VM_WRONG_STATE; then all stay */
  changeSecrets(actor: VmActor, request: SecretsRequest): Promise<SecretInfo[]>;
  /** Its loopback address, by its exact name. */
  addressOf(name: string): string | undefined;
  /** Connects to a server in the guest of a VM of exactly this name. @throws VM_NOT_FOUND, VM_STOPPED, GUEST_ERROR */
  connect(name: string, port: number, signal: AbortSignal): Promise<GuestStream>;
  /** How commands run in it where nothing is said. */
  imageDefaults(actor: VmActor): Promise<ImageBoot | undefined>;
  /** Names of the VMs that use an image or a kernel. */
  usersOf(what: "image" | "kernel", name: string): string[];
  /** Takes up what an earlier daemon left. */
  adoptAll(): Promise<void>;
  detachAll(): void;
};

export const vmView = (row: VmRow, published: Published[] = []): Vm => {
  const { env, mac, pidStart, hostBoot, helpers, epoch, next, ...shown } = row;
  return {
    ...shown,
    published,
    rules: [...row.rules],
    secrets: [...row.secrets],
    ...(Object.keys(next).length > 0 ? { next } : {}),
    notes: [...row.notes],
  };
};

const MIN_MEMORY = 64 * 2 ** 20;
const MIN_DISK = 64 * 2 ** 20;
/** How long a guest may take to answer a question, in ms. */
const GUEST_LIMIT = 15_000;
/** How long one may take to be told of secrets, its start included. */
const SECRETS_LIMIT = 180_000;

const unanswered = (actor: VmActor): BangerError =>
  new BangerError("GUEST_AGENT_LOST", `the guest of VM ${actor.row().name} does not answer`);

export const vmService = (store: VmStore, services: BootServices, defaults: () => Promise<VmDefaults>): VmService => {
  const actors = new Map<string, VmActor>();
  const ports = new Map<string, PublishedPorts>();
  const stopper = autoStop({
    actors: () => actors.values(),
    staleAfter: () => services.autoStopAfter,
    stop: (actor, after, onlyIf) =>
      actor.stop(unattended, { reason: `stopped after ${formatDuration(after)} without use`, onlyIf }),
    log: services.log,
  });
  const view = (actor: VmActor): Vm => {
    const autoStopAt = stopper.at(actor);
    const row = actor.row();
    return { ...vmView(row, ports.get(row.id)?.list() ?? []), ...(autoStopAt === undefined ? {} : { autoStopAt }) };
  };
  const list = () => [...actors.values()].map(view);
  const feed = vmFeed(list, (id) => {
    const actor = actors.get(id);
    return actor && view(actor);
  });
  const portsOf = (id: string): PublishedPorts => {
    const found = ports.get(id);
    if (!found) throw new BangerError("INTERNAL", `no ports of VM ${id}`);
    return found;
  };
  const named = (name: string) => [...actors.values()].find((actor) => actor.row().name === name);

  const rows = () => [...actors.values()].map((actor) => actor.row());
  /** The others of its team learn of a VM that is new or gone. */
  const tellTeam = async ({ id, team }: VmRow): Promise<void> => {
    const others = [...actors.values()].filter(({ row }) => row().id !== id && team && row().team?.name === team.name);
    const running = others.filter(({ row }) => row().state !== "stopped" && row().network !== "none");
    await Promise.all(
      running.map(async ({ row }) => {
        const { networkRules } = vmFiles(row().id);
        if (!(await heedsRules(networkRules))) return;
        await writeRules(networkRules, () => services.networkOf(row())).catch((error: unknown) => {
          // It was deleted meanwhile.
          if (errnoOf(error) !== "ENOENT") throw error;
        });
      }),
    );
  };

  const add = (row: VmRow, ready?: ReadyVm): VmActor => {
    const actor = vmActor({
      row,
      ready,
      store,
      services,
      admit: async ({ id, memory }, force) => {
        const room = await hostRoom(roots().state);
        const others = [...actors.values()].map((other) => other.row()).filter((other) => other.id !== id);
        const promised = others
          .filter(({ state }) => state !== "stopped" && state !== "asleep")
          .reduce((sum, other) => sum + other.memory, 0);
        return checkMemory(memory, promised, room, force);
      },
      publish: () => portsOf(row.id).settle(),
      onChanged: () => {
        ports.get(row.id)?.changed();
        feed.changed(row.id);
        stopper.plan();
      },
      onRemoved: () => {
        actors.delete(row.id);
        ports.get(row.id)?.close();
        ports.delete(row.id);
        feed.changed(row.id);
        tellTeam(row).catch((error: unknown) => services.log.warn("network rules of a team not written", { error }));
        services.ssh.unpin(row.name).catch((error: unknown) => services.log.warn("known_hosts not written", { error }));
      },
    });
    actors.set(row.id, actor);
    ports.set(
      row.id,
      publishedPorts({
        actor,
        log: services.log,
        guestAddress: async () => {
          const { network } = await services.driver.host();
          return actor.row().network === "none" ? undefined : network.address;
        },
        ownerOf: (address, { proto, host }) => {
          const others = [...actors.values()].filter((other) => other !== actor);
          return others
            .find((other) =>
              portsOf(other.row().id)
                .list()
                .some((port) => port.proto === proto && port.host === host && sharesAddress(port.address, address)),
            )
            ?.row().name;
        },
      }),
    );
    return actor;
  };
  const find = (reference: string): VmActor => {
    const exact = named(reference) ?? actors.get(reference);
    if (exact) return exact;
    const matches =
      reference === ""
        ? []
        : [...actors.values()].filter(({ row }) => row().name.startsWith(reference) || row().id.startsWith(reference));
    if (matches.length === 1 && matches[0]) return matches[0];
    const names = matches.map(({ row }) => row().name);
    if (matches.length > 1) {
      throw new BangerError("VM_AMBIGUOUS", `${quoted(reference)} could be any of: ${names.join(", ")}`, {
        hint: "give more of the name",
      });
    }
    const near = nearest(
      reference,
      [...actors.values()].map(({ row }) => row().name),
    );
    throw new BangerError("VM_NOT_FOUND", `there is no VM ${quoted(reference)}`, {
      hint: near ? `did you mean ${near}? See all with: banger vm list` : "see all with: banger vm list",
    });
  };

  /** What the disks of all VMs but one may still take of the host, in bytes. */
  const growthOfOthers = async (except: string | undefined): Promise<number> => {
    const others = [...actors.values()].map(({ row }) => row()).filter(({ id }) => id !== except);
    const growths = await Promise.all(
      others.map(async ({ id, diskSize }) => Math.max(0, diskSize - (await diskUse(id)))),
    );
    return growths.reduce((sum, growth) => sum + growth, 0);
  };
  /** @param vm the id of one that has a disk already, which grows. @param asked the size was not left to the default */
  const admitDisk = async (
    size: number,
    { vm, asked, force = false }: { vm?: string; asked: boolean; force?: boolean | undefined },
  ): Promise<string[]> => {
    const used = vm === undefined ? 0 : await diskUse(vm);
    const [room, others] = await Promise.all([hostRoom(roots().state), growthOfOthers(vm)]);
    return checkDisk(asked ? size : undefined, others + Math.max(0, size - used), room, force);
  };

  const create: VmService["create"] = async (request, progress, copied) => {
    const wanted = shapeOf(request, await defaults());
    if (request.name !== undefined) checkName(request.name, "VM name");
    if (request.name !== undefined && named(request.name)) throw nameTaken(request.name);
    checkShape(wanted);
    for (const port of request.publish ?? []) recordOf(port);
    const rules = checkRules(request.rules ?? []);
    const { accel, network, noNested } = await services.driver.host();
    if (request.team !== undefined) checkName(request.team, "team name");
    if (request.team !== undefined && wanted.network === "none")
      throw new BangerError("USAGE", "a VM without a network card is in no team", {
        hint: "leave out --team, or --net none",
      });
    const filtered = needsFilter({ network: wanted.network, rules, team: request.team });
    if (filtered) requireFilter(network);
    if (wanted.nested && noNested)
      throw new BangerError("HOST_LIMIT", `--nested: ${noNested.reason}`, { hint: noNested.hint });
    checkCopied(copied?.secrets ?? []);
    const given = settle(request.secrets ?? [], copied?.secrets ?? []);
    const secrets = merged(copied?.secrets ?? [], given.map(secretRecordOf));
    checkSecrets({ network: wanted.network, env: request.env ?? {} }, secrets);
    const asked = request.diskSize !== undefined && !copied;
    const notes = await admitDisk(wanted.diskSize, { asked, force: request.force });
    // What could never start is not made.
    checkOwnMemory(wanted.memory, await hostRoom(roots().state), request.force ?? false);
    const [image] = await Promise.all([
      services.images.ensure(wanted.image, progress, request.dockerConfig),
      services.kernels.ensure(wanted.kernel, progress, request.dockerConfig),
    ]);
    const record = (ready: ReadyVm | undefined): VmActor => {
      const name = request.name ?? newName((candidate) => named(candidate) !== undefined);
      if (named(name)) throw nameTaken(name);
      const id = ready?.id ?? randomBytes(16).toString("hex");
      const row: VmRow = {
        id,
        name,
        image: image.name,
        kernel: wanted.kernel,
        vcpu: wanted.vcpu,
        memory: wanted.memory,
        diskSize: wanted.diskSize,
        network: wanted.network,
        nested: wanted.nested,
        env: request.env ?? {},
        ephemeral: request.ephemeral ?? false,
        labels: applyLabels({}, request.labels ?? {}),
        next: {},
        autoStop: request.autoStop,
        lastUsedAt: undefined,
        mac: ready?.mac ?? newMac(),
        state: "stopped",
        vmm: services.driver.name,
        accel,
        createdAt: Date.now(),
        startedAt: undefined,
        stoppedAt: undefined,
        reason: undefined,
        notes,
        pid: undefined,
        pidStart: undefined,
        hostBoot: undefined,
        helpers: [],
        restored: undefined,
        address: newAddress(id, new Set([...actors.values()].map((other) => other.row().address))),
        published: [],
        rules,
        team: request.team === undefined ? undefined : joinTeam(request.team, rows()),
        secrets,
        autoPublish: request.autoPublish ?? false,
        workspace: undefined,
        epoch: 0,
      };
      store.insert(row);
      const actor = add(row, ready);
      feed.changed(row.id);
      return actor;
    };
    // A copy has a saved machine of its own to go on from, and nothing that stands ready is filtered.
    const fromPool = !copied && !filtered && secrets.length === 0;
    const ready = fromPool ? await services.pool.take({ ...wanted, image: image.name }, progress) : undefined;
    let actor: VmActor;
    try {
      actor = record(ready);
    } catch (error) {
      await ready?.discard();
      throw error;
    }
    await tellTeam(actor.row());
    try {
      await services.secrets.give(actor.row().id, merged(copied?.values ?? [], given));
    } catch (error) {
      await actor.remove(unattended);
      throw error;
    }
    if (request.publish) await publishNew(actor, request.publish);
    return actor;
  };

  /** A new VM whose ports cannot be had is not made. */
  const publishNew = async (actor: VmActor, requests: readonly Publish[]): Promise<void> => {
    try {
      const published = await portsOf(actor.row().id).publish(requests);
      actor.record({ notes: [...actor.row().notes, ...exposureNotes(published, actor.row().name)] });
    } catch (error) {
      await actor.remove(unattended);
      throw error;
    }
  };

  return {
    list,
    view,
    feed,
    actors: () => [...actors.values()],
    show: async (reference) => {
      const actor = find(reference);
      return { ...view(actor), diskUsed: await diskUse(actor.row().id) };
    },
    create,
    shape: async (request) => {
      const wanted = shapeOf(request, await defaults());
      checkShape(wanted);
      return wanted;
    },
    set: async (actor, request, progress) => {
      checkShape(request);
      checkSecrets({ network: request.network ?? "", env: {} }, actor.row().secrets);
      if (request.memory !== undefined)
        checkOwnMemory(request.memory, await hostRoom(roots().state), request.force ?? false);
      const { id, diskSize } = actor.row();
      const grows = request.diskSize !== undefined && request.diskSize > diskSize;
      const notes = grows ? await admitDisk(request.diskSize ?? 0, { vm: id, asked: true, force: request.force }) : [];
      return { effects: await actor.set(request, progress), notes };
    },
    settingsChanged: () => stopper.plan(),
    publish: async (actor, { ports: requests, auto }) => {
      const published = await portsOf(actor.row().id).publish(requests, auto);
      return { published, notes: exposureNotes(published, actor.row().name) };
    },
    unpublish: (actor, { ports: requests, all, auto }) => {
      portsOf(actor.row().id).unpublish(requests, { all, auto });
      return view(actor);
    },
    ports: async (actor) => {
      const published = portsOf(actor.row().id).list();
      if (["stopped", "asleep"].includes(actor.row().state) && published.length > 0)
        return withPublished([], published);
      using limited = withDeadline(unattended, GUEST_LIMIT, () => unanswered(actor));
      return withPublished(await guestListeners(await actor.guest(limited), limited), published);
    },
    changeRules: async (actor, request) => {
      await changeRules(actor, request, services);
      services.secrets.judgeAgain(actor.row().id);
      return view(actor);
    },
    secrets: (actor) => services.secrets.list(actor),
    changeSecrets: async (actor, request) => {
      using limited = withDeadline(unattended, SECRETS_LIMIT, () => unanswered(actor));
      return await services.secrets.change(actor, request, limited);
    },
    addressOf: (name) => named(name)?.row().address,
    connect: async (name, port, signal) => {
      const actor = named(name);
      if (actor) return await portsOf(actor.row().id).connect(port, signal);
      throw new BangerError("VM_NOT_FOUND", `there is no VM ${quoted(name)}`, { hint: "see all with: banger vm list" });
    },
    find,
    imageDefaults: (actor) => services.images.defaults(actor.row().image),
    usersOf: (what, name) =>
      [...actors.values()]
        .map(({ row }) => row())
        .filter((row) => row[what] === name)
        .map((row) => row.name),
    adoptAll: async () => {
      const rows = store.all();
      for (const row of rows) add(row);
      const restored = services.ssh.restore(rows);
      const concerned = [...actors.values()].filter(({ row }) => row().state !== "stopped" || row().ephemeral);
      await Promise.all(
        concerned.map(async (actor) => {
          // One VM that cannot be taken up must not keep the daemon from the others.
          try {
            await actor.adopt(unattended);
            await portsOf(actor.row().id).settle();
            // Whoever ran it went away with the earlier daemon.
            if (actor.row().ephemeral) await actor.remove(unattended);
          } catch (error) {
            services.log.error("vm not taken up", { vm: actor.row().name, error });
          }
        }),
      );
      // Before anybody can ask for a start: its disk may be in the hands of a machine that nobody knows.
      const owned = concerned.flatMap(({ row }) => row().pid ?? []);
      const { driver, log } = services;
      const { rescued } = await removeOrphans({ known: new Set(actors.keys()), owned: new Set(owned), driver, log });
      void rescued;
      await restored;
      stopper.plan();
    },
    detachAll: () => {
      stopper.close();
      for (const published of ports.values()) published.close();
      for (const actor of actors.values()) actor.detach();
    },
  };
};

/** Whether a port on one of them cannot be had on the other too: 0.0.0.0 and :: are all of them. */
const sharesAddress = (one: string, other: string): boolean =>
  one === other || [one, other].some((address) => address === "0.0.0.0" || address === "::");

/** What a VM's disk takes of the host, in bytes. */
const diskUse = async (id: string): Promise<number> => {
  const { disk } = vmFiles(id);
  return (await exists(disk)) ? await bytesOnDisk(disk) : 0;
};

const nameTaken = (name: string) =>
  new BangerError("VM_NAME_TAKEN", `there is a VM named ${name} already`, {
    hint: `choose another name, or use it: banger vm exec ${name} -- COMMAND`,
  });

type Sizes = { vcpu?: number | undefined; memory?: number | undefined; diskSize?: number | undefined };

const shapeOf = (request: CreateVm, defaults: VmDefaults): Shape => ({
  image: request.image ?? defaults.image,
  kernel: request.kernel ?? defaults.kernel,
  vcpu: request.vcpu ?? defaults.vcpu,
  memory: request.memory ?? defaults.memory,
  diskSize: request.diskSize ?? defaults.diskSize,
  network: request.network ?? defaults.network,
  nested: request.nested ?? false,
});

const checkShape = ({ vcpu = 1, memory = MIN_MEMORY, diskSize = MIN_DISK }: Sizes): void => {
  const refuse = (message: string, hint: string) => {
    throw new BangerError("USAGE", message, { hint });
  };
  if (vcpu > 64) refuse(`${vcpu} vcpus are more than a VM can have`, "give at most 64");
  if (memory < MIN_MEMORY) refuse("the memory is too small to boot Linux", "give at least 64M");
  if (diskSize < MIN_DISK) refuse("the disk is too small for a file system", "give at least 64M");
};
