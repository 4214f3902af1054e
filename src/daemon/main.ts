/** bangerd: config, store, services, API, signals. Wiring only. */
import { createWriteStream, fstat } from "node:fs";
import { mkdir } from "node:fs/promises";
import type { Server } from "node:http";
import { toErrorBody } from "../contract/errors.ts";
import { buildId, version } from "../contract/version.ts";
import type { Config } from "../contract/config.ts";
import {
  daemonLock,
  daemonLogFile,
  daemonSocket,
  databaseFile,
  foldersOfFiles,
  roots,
  whoseSocket,
} from "../host/paths.ts";
import { removeHalfWritten } from "../host/files.ts";
import { ensureRuntimeRoot } from "../host/runtime.ts";
import { notifyReady } from "../host/service-unit.ts";
import { listenAt } from "../host/sockets.ts";
import { blobCache } from "../oci/blob-cache.ts";
import { handlers } from "./api/handlers.ts";
import { apiServer, stopAccepting } from "./api/server.ts";
import { cleanStaging } from "./artifacts/staging.ts";
import { driverOf } from "./driver-choice.ts";
import { imageService } from "./images/service.ts";
import { kernelService } from "./kernels/service.ts";
import { releaseLocks, takeLock } from "./lock.ts";
import { openLog } from "./log.ts";
import { operations as operationRegistry } from "./operations.ts";
import { hostServices } from "./network/host-services.ts";
import { networkOf } from "./network/team.ts";
import { listenWhose } from "./network/whose.ts";
import { secretService } from "./secrets/service.ts";
import { openSettings } from "./settings.ts";
import { cleanLegacySsh } from "./ssh/legacy.ts";
import { sshService } from "./ssh/service.ts";
import { snapshotService } from "./snapshots/service.ts";
import { openDatabase } from "./store/database.ts";
import { type VmRow, vmStore } from "./store/vms.ts";
import { templateService } from "./templates/service.ts";
import { startCrowd } from "./vms/crowd.ts";
import { startNotes } from "./vms/notes.ts";
import { vmPool } from "./vms/pool.ts";
import { vmService } from "./vms/service.ts";
import type { BootServices } from "./vms/services.ts";

/** The client that starts a daemon reads one line here (client/daemon-start.ts). */
const READY_FD = 3;

const announce = async (line: Record<string, unknown>): Promise<void> => {
  // Started by hand there is nobody to tell, and the descriptor may be one of Node's own.
  if (!(await isChannel(READY_FD))) return;
  await new Promise<void>((resolve) => {
    const channel = createWriteStream("", { fd: READY_FD });
    // Whoever started us may have gone away.
    channel.on("error", () => resolve());
    channel.end(`${JSON.stringify(line)}\n`, () => resolve());
  });
};

const isChannel = (fd: number): Promise<boolean> =>
  new Promise((resolve) => fstat(fd, (error, stats) => resolve(!error && (stats.isFIFO() || stats.isSocket()))));

const userKey = ({ sshKeyPath, sshKeyIsOurs }: Config) => ({ path: sshKeyPath, ours: sshKeyIsOurs });

const serve = async (): Promise<void> => {
  process.umask(0o077);
  // The launcher's choice for this process (scripts/launcher.sh), not for the VMs it starts.
  delete process.env.MALLOC_ARENA_MAX;
  await ensureRuntimeRoot();
  await mkdir(roots().state, { recursive: true, mode: 0o700 });
  if (!(await takeLock(daemonLock()))) {
    await announce({ locked: true });
    process.exit(0);
  }
  const settings = await openSettings({
    onChange: async (config) => {
      log.info("config.toml has changed and is taken up");
      vms.settingsChanged();
      await Promise.all([ssh.useKey(userKey(config)), offers.apply(config.network)]);
    },
    onInvalid: (error) => log.warn("config.toml has changed and is not valid: the settings before it stay", { error }),
  });
  const log = await openLog(daemonLogFile(), () => settings.latest.logLevel);
  const database = await openDatabase(databaseFile());
  await Promise.all(foldersOfFiles().map(removeHalfWritten));
  const removed = await cleanLegacySsh(settings.latest.sshKeyPath);
  if (removed.length > 0) log.info("removed what an earlier layout left", { removed });

  // Getters: what is read of them at each use is what the settings say then.
  const origins = {
    get debianMirror() {
      return settings.latest.debianMirror;
    },
    get catalogs() {
      return settings.latest.catalogs;
    },
    get registry() {
      return { mirrors: settings.latest.registryMirrors, insecure: settings.latest.insecureRegistries };
    },
  };
  const blobs = blobCache();
  const images = imageService(origins, blobs);
  const kernels = kernelService(origins, blobs);
  const ssh = await sshService(userKey(settings.latest));
  log.info("daemon starts", { version: version(), build: buildId(), pid: process.pid });
  const driver = driverOf();
  await cleanStaging(driver(settings.latest));
  const operations = operationRegistry(log);
  const store = vmStore(database);
  const rulesOf = (row: VmRow) => networkOf(row, store.all);
  const services: BootServices = {
    networkOf: rulesOf,
    secrets: secretService({ images, log, networkOf: rulesOf }),
    images,
    kernels,
    ssh,
    log,
    crowd: startCrowd(),
    startNotes: startNotes(),
    get templates() {
      return templates;
    },
    get pool() {
      return pool;
    },
    get driver() {
      return driver(settings.latest);
    },
    get bootTimeout() {
      return settings.latest.bootTimeout;
    },
    get fileSync() {
      return settings.latest.fileSync;
    },
    get autoStopAfter() {
      return settings.latest.autoStopStaleAfter;
    },
  };
  const templates = templateService(services, () => settings.latest.templates);
  const pool = vmPool(
    services,
    () => templates,
    () => settings.latest.templates.pool,
  );
  const vms = vmService(store, services, async () => (await settings.current()).vmDefaults);

  const offers = hostServices(log, vms);

  let server: Server | undefined;
  let ending = false;
  const shutdown = async (why: string) => {
    if (ending) return;
    ending = true;
    log.info("daemon ends, VMs go on", { why });
    if (server) stopAccepting(server);
    await Promise.all([operations.drain(), templates.close(), pool.close()]);
    offers.close();
    vms.detachAll();
    database.close();
    await log.close();
    releaseLocks();
    process.exit(0);
  };
  process.on("SIGTERM", () => void shutdown("SIGTERM"));
  process.on("SIGINT", () => void shutdown("SIGINT"));
  process.on("SIGHUP", () => log.debug("SIGHUP ignored"));
  process.on("uncaughtException", (error) => {
    log.error("uncaught exception; the daemon ends, VMs go on", { error });
    void log.close().then(() => process.exit(70));
  });

  server = apiServer({
    handlers: handlers({
      vms,
      images,
      kernels,
      templates,
      snapshots: snapshotService(vms, services),
      operations,
      identity: { version: version(), build: buildId(), startedAt: Date.now() },
      offered: offers.offered,
      shutdown: () => void shutdown("asked to"),
      statsInterval: () => settings.latest.statsPollInterval,
    }),
    operations,
    build: buildId(),
    log,
    prepare: settings.refresh,
    ending: () => ending,
  });
  await vms.adoptAll();
  await offers.apply(settings.latest.network);
  await listenWhose(whoseSocket(), (id) => vms.actors().find(({ row }) => row().id === id), log);
  await listenAt(server, daemonSocket());
  await announce({ ready: true });
  await notifyReady().catch((error: unknown) => log.warn("systemd was not told that the daemon is ready", { error }));
};

serve().catch(async (error: unknown) => {
  await announce({ error: toErrorBody(error) });
  process.exitCode = 1;
  throw error;
});
