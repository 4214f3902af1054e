/** Secrets of VMs: their values stay here, the guests have placeholders, and a proxy puts the values in on the way out. */
import { BangerError, toBangerError } from "../../contract/errors.ts";
import { type Progress, throwIfAborted } from "../../contract/progress.ts";
import type { SecretInfo, SecretsRequest } from "../../contract/secrets.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { once } from "../../host/once.ts";
import type { ImageService } from "../images/service.ts";
import type { Log } from "../log.ts";
import type { NetworkRules } from "../network/rules-file.ts";
import type { VmRow } from "../store/vms.ts";
import { mutex } from "../vms/mutex.ts";
import { tellGuest } from "./guest.ts";
import { checkSecrets, merged, recordOf, settle } from "./records.ts";
import type { Running } from "./running.ts";
import { type KeptSecret, readValues, withValues, writeValues } from "./values.ts";

/** What of a VM this needs; the record as it is at each look. */
export type SecretsVm = {
  row(): VmRow;
  record(change: Pick<VmRow, "secrets">): void;
  /** The channel to a guest that runs. */
  guest(progress: Progress): Promise<GuestConnection>;
};

export type SecretService = {
  /** Writes the values of a new VM, whose record names them. */
  give(id: string, values: readonly KeptSecret[]): Promise<void>;
  /** As they are for a copy that is made of it now. */
  valuesOf(id: string): Promise<KeptSecret[]>;
  list(vm: Pick<SecretsVm, "row">): Promise<SecretInfo[]>;
  /**
   * Sets and deletes, at once where the VM runs.
   * @throws USAGE, SECRET_NOT_FOUND, VM_WRONG_STATE where its agent cannot; then all stay
   */
  change(vm: SecretsVm, request: SecretsRequest, progress: Progress): Promise<SecretInfo[]>;
  /**
   * Of a guest that has just become this VM: tells it of its secrets, and serves its proxy.
   * @returns notes for the VM's user
   */
  setUp(row: () => VmRow, guest: GuestConnection, progress: Progress): Promise<string[]>;
  /** Of a guest that knows of its secrets already. */
  serve(row: () => VmRow, guest: GuestConnection): void;
  /** The rules of a VM's network have changed. */
  judgeAgain(id: string): void;
};

type Parts = {
  images: Pick<ImageService, "defaults">;
  log: Log;
  networkOf(row: VmRow): NetworkRules;
};

/** What an agent must know for this (docs/guest-protocol.md). */
const FEATURE = "accept";
const canServe = ({ hello }: GuestConnection): boolean => hello.features?.includes(FEATURE) ?? false;

/** Whoever starts a daemon or a VMM may have had it in the environment: what is started from now on does not. */
const forgetVariables = (secrets: readonly { name: string }[]): void => {
  for (const { name } of secrets) delete process.env[name];
};

export const secretService = ({ images, log, networkOf }: Parts): SecretService => {
  const running = new Map<string, { guest: GuestConnection; proxy: Promise<Running> }>();
  const locks = new Map<string, ReturnType<typeof mutex>>();
  const lockOf = (id: string) => {
    const lock = locks.get(id) ?? mutex();
    locks.set(id, lock);
    return lock;
  };
  /** Loaded with the first VM that has secrets: others pay nothing for it. */
  const authority = once(async () => (await import("./authority.ts")).openAuthority());

  const stop = async (id: string): Promise<void> => {
    const found = running.get(id);
    running.delete(id);
    // One that did not start has said so.
    await found?.proxy.then(
      (proxy) => proxy.close(),
      () => undefined,
    );
  };

  /** @returns once the guest's programs can connect */
  const start = async (row: () => VmRow, guest: GuestConnection): Promise<Running> => {
    const { id } = row();
    await stop(id);
    const open = async (): Promise<Running> => {
      const { runProxy } = await import("./running.ts");
      return await runProxy({ row, guest, log, networkOf, authority: await authority() });
    };
    const entry = { guest, proxy: open() };
    running.set(id, entry);
    void guest.closed.then(async () => {
      if (running.get(id) === entry) await stop(id);
    });
    return await entry.proxy;
  };

  /** The environment of its programs, and the proxy, as the record says now. */
  const apply = async (row: () => VmRow, guest: GuestConnection, progress: Progress): Promise<void> => {
    const { id, image, env, secrets } = row();
    if (secrets.length === 0) await stop(id);
    else if (running.get(id)?.guest !== guest) await start(row, guest);
    else await (await running.get(id)?.proxy)?.reload();
    const own = { image: (await images.defaults(image))?.env ?? {}, vm: env };
    await tellGuest(guest, secrets, own, (await authority()).certificate, progress);
  };

  const list = async ({ row }: Pick<SecretsVm, "row">): Promise<SecretInfo[]> => {
    const { id, secrets } = row();
    if (secrets.length === 0) return [];
    return withValues(secrets, await readValues(id)).map(({ record, value }) => ({
      ...recordOf(record),
      given: value !== undefined,
    }));
  };

  const changeUnderLock = async (vm: SecretsVm, request: SecretsRequest, progress: Progress): Promise<void> => {
    const { id, name, state, secrets: there, network, env, next } = vm.row();
    const { set = [], remove = [] } = request;
    const missing = remove.find((one) => !there.some((record) => record.name === one));
    if (missing !== undefined)
      throw new BangerError("SECRET_NOT_FOUND", `VM ${name} has no secret ${JSON.stringify(missing)}`, {
        hint: `see those it has: banger vm secret list ${name}`,
      });
    const kept = await readValues(id);
    const fresh = settle(set, there, kept);
    const stays = (one: { name: string }) => !remove.includes(one.name);
    const records = merged(there, fresh.map(recordOf)).filter(stays);
    checkSecrets({ network: next.network ?? network, env }, records);
    if (state === "paused")
      throw new BangerError("VM_WRONG_STATE", `VM ${name} is paused: its guest cannot be told of secrets`, {
        hint: `let it go on: banger vm resume ${name}`,
      });
    const guest = state === "running" || state === "starting" ? await vm.guest(progress) : undefined;
    if (guest && !canServe(guest) && set.length > 0) throw tooOld(name);
    forgetVariables(fresh);
    // Before the record names it, a value goes nowhere.
    await writeValues(id, merged(kept, fresh).filter(stays));
    vm.record({ secrets: records });
    if (guest && canServe(guest)) await apply(vm.row, guest, progress);
  };

  return {
    give: async (id, values) => {
      forgetVariables(values);
      if (values.length > 0) await writeValues(id, values);
    },
    valuesOf: readValues,
    list,
    change: async (vm, request, progress) => {
      await lockOf(vm.row().id).run(() => changeUnderLock(vm, request, progress), progress.signal);
      return await list(vm);
    },
    setUp: async (row, guest, progress) => {
      const { name, secrets } = row();
      if (secrets.length === 0) return [];
      forgetVariables(secrets);
      try {
        if (!canServe(guest)) throw tooOld(name);
        await apply(row, guest, progress);
        const unset = (await list({ row })).filter(({ given }) => !given).map((secret) => secret.name);
        if (unset.length === 0) return [];
        return [
          `without a value: ${unset.join(", ")}; a copy is given them anew: banger vm secret set ${name} NAME@HOST`,
        ];
      } catch (error) {
        throwIfAborted(progress.signal);
        const { code, message, hint } = toBangerError(error);
        if (code === "GUEST_AGENT_LOST" || code === "GUEST_PROTOCOL") throw error;
        return [`its secrets are not put in: ${message}${hint ? `; ${hint}` : ""}`];
      }
    },
    serve: (row, guest) => {
      const { id, name, secrets } = row();
      if (secrets.length === 0 || !canServe(guest) || running.get(id)?.guest === guest) return;
      forgetVariables(secrets);
      start(row, guest).catch((error: unknown) => log.warn("secrets are not put in", { vm: name, error }));
    },
    judgeAgain: (id) => {
      void running.get(id)?.proxy.then(
        (proxy) => proxy.judgeAgain(),
        () => undefined,
      );
    },
  };
};

const tooOld = (name: string): BangerError =>
  new BangerError("VM_WRONG_STATE", `VM ${name} runs with the agent of an earlier banger, which knows no secrets`, {
    hint: `restart it: banger vm restart ${name}`,
  });
