/** What each endpoint of the contract does. */
import { BangerError } from "../../contract/errors.ts";
import type { Progress, ProgressEvent } from "../../contract/progress.ts";
import type { Dial, FileRequest } from "../../contract/vms.ts";
import { daemonSocket } from "../../host/paths.ts";
import type { ImageService } from "../images/service.ts";
import type { KernelService } from "../kernels/service.ts";
import type { HostServices } from "../network/host-services.ts";
import type { Operations } from "../operations.ts";
import type { SnapshotService } from "../snapshots/service.ts";
import type { TemplateService } from "../templates/service.ts";
import { unattended, type VmActor } from "../vms/actor.ts";
import { followConsole } from "../vms/console-log.ts";
import { execIn } from "../vms/exec-defaults.ts";
import { execError, execRequest, relay } from "../vms/relay.ts";
import { runVm } from "../vms/run.ts";
import type { VmService } from "../vms/service.ts";
import { writeStats } from "../vms/stats.ts";
import type { ClientStream } from "./client-stream.ts";
import type { Handlers } from "./server.ts";

export type HandlerServices = {
  vms: VmService;
  images: ImageService;
  kernels: KernelService;
  templates: TemplateService;
  snapshots: SnapshotService;
  operations: Operations;
  identity: { version: string; build: string; startedAt: number };
  /** What is offered on this machine beside the API. */
  offered: HostServices["offered"];
  /** Ends the daemon, VMs left running. */
  shutdown(): void;
  /** Between two lines of statistics, in ms. */
  statsInterval(): number;
};

type StopRequest = { timeout?: number | undefined };

export const handlers = (services: HandlerServices): Handlers => {
  const { vms, images, kernels, templates, snapshots, operations, identity, offered, shutdown, statsInterval } =
    services;
  /** A change of one VM's state: `verb` for people, then the VM as it is after it. */
  const lifecycle = <R>(verb: string, act: (vm: VmActor, request: R, progress: Progress) => Promise<void>) => ({
    what: ({ params }: { params: { vm: string } }) => `${verb} ${params.vm}`,
    run: async ({ params, request }: { params: { vm: string }; request: R }, progress: Progress) => {
      const actor = vms.find(params.vm);
      await act(actor, request, progress);
      return vms.view(actor);
    },
  });

  /** Any operation of the guest that streams. */
  const guestStream = async (reference: string, client: ClientStream, request: Record<string, unknown>) => {
    const actor = vms.find(reference);
    using _use = actor.use();
    const guest = await actor.guest({ ...unattended, signal: client.gone });
    client.close(await relay(client, guest, request));
  };

  return {
    status: () => {
      const all = vms.list();
      return {
        ...identity,
        pid: process.pid,
        socket: daemonSocket(),
        memory: process.memoryUsage.rss(),
        vms: all.length,
        running: all.filter(({ state }) => state === "running").length,
        ...offered(),
      };
    },
    shutdown: () => {
      // After the answer is on its way.
      setImmediate(shutdown);
      return {};
    },
    operations: () => operations.list(),
    cancel: ({ params }) => {
      operations.cancel(params.id);
      return {};
    },

    vmList: () => vms.list(),
    vmShow: ({ params }) => vms.show(params.vm),
    vmCreate: {
      what: ({ request }) => `create ${request.name ?? "a new VM"}`,
      run: async ({ request }, progress) => vms.view(await vms.create(request, progress)),
    },
    vmStart: lifecycle("start", (actor, { force }: { force?: boolean | undefined }, progress) =>
      actor.start(progress, { force }),
    ),
    vmStop: lifecycle("stop", (actor, { timeout }: StopRequest, progress) => actor.stop(progress, { limit: timeout })),
    vmRestart: lifecycle("restart", (actor, { timeout }: StopRequest, progress) =>
      actor.restart(progress, { limit: timeout }),
    ),
    vmSet: {
      what: ({ params }) => `set ${params.vm}`,
      run: async ({ params, request }, progress) => {
        const actor = vms.find(params.vm);
        const { effects, notes } = await vms.set(actor, request, progress);
        return { vm: vms.view(actor), effects, notes };
      },
    },
    vmKill: lifecycle("kill", (actor, { signal }: { signal?: string | undefined }) =>
      actor.kill(signalName(signal ?? "KILL")),
    ),
    // A delete that has begun is finished: half a VM helps nobody.
    vmDelete: lifecycle("delete", (actor, { ifStopped }: { ifStopped?: boolean | undefined }) =>
      actor.remove(unattended, ifStopped),
    ),

    vmRun: async ({ request }, client) => client.close(await runVm(client, request, vms, operations)),
    vmExec: async ({ params, request }, client) => {
      const actor = vms.find(params.vm);
      const { workspace } = actor.row();
      // For the client, which can see how the host's repository has gone on.
      if (workspace) client.event({ workspace });
      const exec = execIn(actor.row(), await vms.imageDefaults(actor), request);
      try {
        await guestStream(params.vm, client, execRequest(exec));
      } catch (error) {
        throw execError(error, exec);
      }
    },
    vmDial: async ({ params, request }, client) => {
      try {
        await guestStream(params.vm, client, { op: "dial", ...request });
      } catch (error) {
        throw dialError(error, params.vm, request);
      }
    },
    vmFile: async ({ params, request }, client) => {
      try {
        await guestStream(params.vm, client, request);
      } catch (error) {
        throw fileError(error, request);
      }
    },
    vmNet: ({ params, request }) => vms.changeRules(vms.find(params.vm), request),
    vmSecrets: ({ params }) => vms.secrets(vms.find(params.vm)),
    vmSecretsChange: ({ params, request }) => vms.changeSecrets(vms.find(params.vm), request),
    vmPublish: ({ params, request }) => vms.publish(vms.find(params.vm), request),
    vmUnpublish: ({ params, request }) => vms.unpublish(vms.find(params.vm), request),
    vmPorts: ({ params }) => vms.ports(vms.find(params.vm)),
    vmStats: async ({ request }, client) => {
      // Asked for by name, a VM that is not there is an error; each line then tells of those that still are.
      const named = request.vms.map((name) => vms.find(name));
      const chosen = () => {
        const present = vms.actors();
        return named.length > 0
          ? present.filter((actor) => named.includes(actor))
          : present.filter(({ row }) => row().state !== "stopped");
      };
      await writeStats(chosen, request.follow, statsInterval(), client.output, client.gone);
      client.close({ ok: {} });
    },
    vmWatch: async (_call, client) => {
      await vms.feed.watch(client.output, client.gone);
      client.close({ ok: {} });
    },
    vmLogs: async ({ params, request }, client) => {
      const { id } = vms.find(params.vm).row();
      await followConsole(id, request, client.output, client.gone);
      client.close({ ok: {} });
    },

    imageList: () => images.list(),
    imageAvailable: () => images.available(),
    imageShow: async ({ params }) => {
      const image = await images.show(params.name);
      return { ...image, usedBy: vms.usersOf("image", image.name) };
    },
    imageImport: async ({ request }, client) => {
      const watch = { progress: (progress: ProgressEvent) => client.event({ progress }) };
      const work = (progress: Progress) => images.importImage(request, client.input, progress);
      client.close({ ok: await operations.run(`import ${request.path ?? "an image"}`, watch, work, client.gone) });
    },
    imageRegister: {
      what: ({ request }) => `register image ${request.name}`,
      run: ({ request }, progress) => images.register(request, progress),
    },
    imagePromote: {
      what: ({ params }) => `promote image ${params.name}`,
      run: ({ params }, progress) => images.promote(params.name, progress),
    },
    imagePrune: {
      what: () => "prune images",
      run: ({ request }) => images.prune(request, (name) => vms.usersOf("image", name)),
    },
    imagePull: {
      what: ({ request }) => `pull image ${request.name}`,
      run: ({ request }, progress) => images.pull(request, (name) => vms.usersOf("image", name), progress),
    },
    vmPause: lifecycle("pause", (vm, _request, progress) => vm.pause(progress)),
    vmResume: lifecycle("resume", (vm, _request, progress) => vm.resume(progress)),
    vmSleep: lifecycle("put to sleep", (vm, _request, progress) => vm.sleep(progress)),
    vmSnapshot: {
      what: ({ params }) => `snapshot ${params.vm}`,
      run: ({ params, request }, progress) => snapshots.take(vms.find(params.vm), request.name, progress),
    },
    vmFork: {
      what: ({ params }) => `fork ${params.vm}`,
      run: async ({ params, request }, progress) => {
        const { actors, pause } = await snapshots.fork(vms.find(params.vm), request, progress);
        return { vms: actors.map(vms.view), pause };
      },
    },
    snapshotList: () => snapshots.list(),
    snapshotShow: ({ params }) => snapshots.show(params.name),
    snapshotRestore: {
      what: ({ params }) => `restore ${params.name}`,
      run: async ({ params, request }, progress) => vms.view(await snapshots.restore(params.name, request, progress)),
    },
    snapshotExport: {
      what: ({ params }) => `export snapshot ${params.name}`,
      run: ({ params, request }, progress) => snapshots.export(params.name, request.path, progress),
    },
    snapshotImport: {
      what: ({ request }) => `import snapshot ${request.name}`,
      run: ({ request }, progress) => snapshots.import(request.path, request.name, progress),
    },
    snapshotDelete: {
      what: ({ params }) => `delete snapshot ${params.name}`,
      run: async ({ params }) => {
        await snapshots.delete(params.name);
        return {};
      },
    },

    imageWarm: {
      what: ({ request }) => `warm ${request.image ?? "the default image"}`,
      run: async ({ request }, progress) => await templates.make(await vms.shape(request), progress),
    },
    templateList: () => templates.list(),
    templateClear: {
      what: ({ request }) => `remove templates of ${request.image ?? "all images"}`,
      run: async ({ request }) => ({ removed: await templates.clear(request.image) }),
    },
    imageExport: {
      what: ({ params }) => `export image ${params.name}`,
      run: async ({ params, request }, progress) => await images.export(params.name, request.folder, progress),
    },
    imageDelete: {
      what: ({ params }) => `delete image ${params.name}`,
      run: async ({ params }) => {
        await images.delete(params.name, (name) => vms.usersOf("image", name));
        return {};
      },
    },
    kernelList: () => kernels.list(),
    kernelAvailable: () => kernels.available(),
    kernelShow: ({ params }) => kernels.show(params.name),
    kernelPull: {
      what: ({ request }) => `pull kernel ${request.name}`,
      run: ({ request }, progress) => kernels.pull(request, progress),
    },
    kernelImport: {
      what: ({ request }) => `import kernel ${request.name}`,
      run: ({ request }, progress) => kernels.import(request, progress),
    },
    kernelExport: {
      what: ({ params }) => `export kernel ${params.name}`,
      run: async ({ params, request }, progress) => {
        const { path, entry } = await kernels.export(params.name, request.folder, progress);
        return { path, entry };
      },
    },
    kernelDelete: {
      what: ({ params }) => `delete kernel ${params.name}`,
      run: async ({ params }) => {
        await kernels.delete(params.name, vms.usersOf("kernel", params.name));
        return {};
      },
    },
  };
};

const signals = [
  "SIGKILL",
  "SIGTERM",
  "SIGINT",
  "SIGHUP",
  "SIGQUIT",
  "SIGSTOP",
  "SIGCONT",
  "SIGUSR1",
  "SIGUSR2",
] as const;

const signalName = (text: string): NodeJS.Signals => {
  const wanted = text.toUpperCase();
  const found = signals.find((name) => name === wanted || name === `SIG${wanted}`);
  if (found) return found;
  throw new BangerError("USAGE", `${JSON.stringify(text)} is not a signal`, {
    hint: `one of: ${signals.map((name) => name.slice(3)).join(" ")}`,
  });
};

const fileError = (error: unknown, { op, path }: FileRequest): unknown => {
  if (!(error instanceof BangerError) || error.code !== "GUEST_ERROR") return error;
  const code = error.details?.code === "ENOENT" ? "FILE_NOT_FOUND" : "GUEST_ERROR";
  return new BangerError(code, `cannot ${op.replace("_", " ")} ${path} in the guest: ${error.message}`, {
    details: error.details,
    cause: error,
  });
};

const dialError = (error: unknown, vm: string, request: Dial): unknown => {
  if (!(error instanceof BangerError) || error.code !== "GUEST_ERROR") return error;
  const target = "unix" in request ? request.unix : `port ${request.port}`;
  return new BangerError("GUEST_ERROR", `cannot reach ${target} in VM ${vm}: ${error.message}`, {
    hint:
      "unix" in request || request.port !== 22
        ? `see what runs there: banger vm exec ${vm} -- ps ax`
        : `an ssh server must run in the VM; a shell needs none: banger vm shell ${vm}`,
    details: error.details,
    cause: error,
  });
};
