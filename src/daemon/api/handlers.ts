/** What each endpoint of the contract does. */
import { BangerError } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import type { Dial, FileRequest } from "../../contract/vms.ts";
import { daemonSocket } from "../../host/paths.ts";
import type { ImageService } from "../images/service.ts";
import type { KernelService } from "../kernels/service.ts";
import type { Operations } from "../operations.ts";
import { unattended } from "../vms/actor.ts";
import { followConsole } from "../vms/console-log.ts";
import { execError, execRequest, relay } from "../vms/relay.ts";
import { runVm } from "../vms/run.ts";
import { type VmService, vmView } from "../vms/service.ts";
import type { ClientStream } from "./client-stream.ts";
import type { Handlers } from "./server.ts";

export type HandlerServices = {
  vms: VmService;
  images: ImageService;
  kernels: KernelService;
  operations: Operations;
  identity: { version: string; build: string; startedAt: number };
  /** Ends the daemon, VMs left running. */
  shutdown(): void;
};

export const handlers = ({ vms, images, kernels, operations, identity, shutdown }: HandlerServices): Handlers => {
  /** A change of one VM's state: `verb` for people, then the VM as it is after it. */
  const lifecycle = <R>(verb: string, act: (vm: string, request: R, progress: Progress) => Promise<void>) => ({
    what: ({ params }: { params: { vm: string } }) => `${verb} ${params.vm}`,
    run: async ({ params, request }: { params: { vm: string }; request: R }, progress: Progress) => {
      const actor = vms.find(params.vm);
      await act(actor.row().id, request, progress);
      return vmView(actor.row());
    },
  });

  /** Any operation of the guest that streams. */
  const guestStream = async (reference: string, client: ClientStream, request: Record<string, unknown>) => {
    const guest = await vms.find(reference).guest({ ...unattended, signal: client.gone });
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
      run: async ({ request }, progress) => vmView((await vms.create(request, progress)).row()),
    },
    vmStart: lifecycle("start", (id, _request, progress) => vms.find(id).start(progress)),
    vmStop: lifecycle("stop", (id, _request, progress) => vms.find(id).stop(progress)),
    vmKill: lifecycle("kill", (id, { signal }: { signal?: string | undefined }) =>
      vms.find(id).kill(signalName(signal ?? "KILL")),
    ),
    // A delete that has begun is finished: half a VM helps nobody.
    vmDelete: lifecycle("delete", (id, { ifStopped }: { ifStopped?: boolean | undefined }) =>
      vms.find(id).remove(unattended, ifStopped),
    ),

    vmRun: async ({ request }, client) => client.close(await runVm(client, request, vms, operations)),
    vmExec: async ({ params, request }, client) => {
      try {
        await guestStream(params.vm, client, execRequest(request));
      } catch (error) {
        throw execError(error, request);
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
    vmLogs: async ({ params, request }, client) => {
      const { id } = vms.find(params.vm).row();
      await followConsole(id, request.follow, client.output, client.gone);
      client.close({ ok: {} });
    },

    imageList: () => images.list(),
    imageAvailable: () => images.available(),
    imageShow: ({ params }) => images.show(params.name),
    imagePull: {
      what: ({ request }) => `pull image ${request.name}`,
      run: ({ request }, progress) => images.pull(request.name, progress),
    },
    imageDelete: {
      what: ({ params }) => `delete image ${params.name}`,
      run: async ({ params }) => {
        await images.delete(params.name, vms.usersOf("image", params.name));
        return {};
      },
    },
    kernelList: () => kernels.list(),
    kernelAvailable: () => kernels.available(),
    kernelShow: ({ params }) => kernels.show(params.name),
    kernelPull: {
      what: ({ request }) => `pull kernel ${request.name}`,
      run: ({ request }, progress) => kernels.pull(request.name, progress),
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
