/** `vm run`: create, start, exec, and for an ephemeral VM delete, as one stream that nothing can leave half done. */
import { BangerError } from "../../contract/errors.ts";
import type { OperationInfo } from "../../contract/api.ts";
import { abortable, type Progress, type ProgressEvent } from "../../contract/progress.ts";
import type { Run } from "../../contract/vms.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import type { GuestStream, StreamResult } from "../../guest/stream.ts";
import type { ClientStream } from "../api/client-stream.ts";
import type { Operations } from "../operations.ts";
import { unattended, type VmActor } from "./actor.ts";
import { execIn } from "./exec-defaults.ts";
import { execError, execRequest, relayStream } from "./relay.ts";
import type { VmService } from "./service.ts";

/**
 * @returns how the command ended; an ephemeral VM is gone by then, and so is one whose start failed or was cancelled
 * @throws what went wrong, after the undo
 */
export const runVm = async (
  client: ClientStream,
  { vm, exec, prepare }: Run,
  vms: VmService,
  operations: Operations,
): Promise<StreamResult> => {
  const watch = {
    started: (operation: OperationInfo) => client.event({ operation }),
    progress: (progress: ProgressEvent) => client.event({ progress }),
  };
  let actor: VmActor | undefined;
  try {
    const { main, stream } = await operations.run(
      `run ${vm.name ?? "a new VM"}`,
      watch,
      async (progress) => {
        const created = await vms.create(vm, progress);
        try {
          client.event({ vm: vms.view(created) });
          const image = await vms.imageDefaults(created);
          const command = () => execIn(created.row(), image, exec, true);
          const ask = early(() => execRequest(command()));
          await created.start(progress, { force: vm.force, early: prepare ? undefined : ask.early });
          const channel = await created.guest(progress);
          if (prepare) await prepared(client, progress);
          actor = created;
          return { main: command(), stream: ask.stream(channel) };
        } catch (error) {
          actor = undefined;
          // Part of the operation, so that a daemon that ends waits for it. Never under the signal that brought us here.
          await created.remove(unattended);
          throw withoutVm(error);
        }
      },
      client.gone,
    );
    if (!actor) throw new BangerError("INTERNAL", "a run without its VM");
    using _use = actor.use();
    client.event({ vm: vms.view(actor) });
    return await relayStream(client, stream).catch((error: unknown) => {
      throw execError(error, main);
    });
  } finally {
    // Never under the signal that brought us here: the undo must not be cancelled by the same Ctrl-C.
    if (actor && vm.ephemeral) await actor.remove(unattended);
  }
};

/** A command that is asked for as soon as a guest can hear it, and again where that guest was of no use. */
const early = (request: () => Record<string, unknown>) => {
  let asked: { connection: GuestConnection; stream: GuestStream } | undefined;
  return {
    early: (connection: GuestConnection) => {
      const stream = connection.open(request());
      // Of a guest that was of no use nobody waits for it.
      stream.result.catch(() => undefined);
      asked = { connection, stream };
    },
    stream: (connection: GuestConnection): GuestStream =>
      asked?.connection === connection ? asked.stream : connection.open(request()),
  };
};

/** The client does what it has to do in the VM. */
const prepared = async (client: ClientStream, progress: Progress): Promise<void> => {
  const done = Promise.withResolvers<void>();
  client.onControl((message) => {
    if (message.prepared === true) done.resolve();
  });
  client.event({ prepare: true });
  await abortable(done.promise, progress.signal);
};

/** A failure's hint may lead to the console of a VM that is gone by now; what it said last is in the message. */
const withoutVm = (error: unknown): unknown => {
  if (!(error instanceof BangerError) || !error.hint?.includes("banger vm logs")) return error;
  const hint = "to keep such a VM for a look, use `banger vm create` and `banger vm start`";
  return new BangerError(error.code, error.message, { hint, details: error.details, cause: error });
};
