/** What a repository's devcontainer.json asks of a new VM, and what is said of it. */
import type { CreateVm } from "../../contract/vms.ts";
import { type Devcontainer, devcontainerIn, readDevcontainer, reportOf } from "../../workspace/devcontainer.ts";
import type { WorkspacePlan } from "../../workspace/plan.ts";
import { sayNotes } from "../vm/shared.ts";
import { workspacePath } from "./bring.ts";

/** Each key is said to be honoured, ignored or refused. A file that cannot be read is said too, and the VM is as without it. */
export const containerOf = async (plan: WorkspacePlan): Promise<Devcontainer | undefined> => {
  const state = plan.states.get("");
  const entry = state && devcontainerIn(state.entries);
  if (!entry) return undefined;
  const { stdout } = await state.repository.git(["cat-file", "blob", entry.oid], { env: state.env });
  try {
    const container = readDevcontainer(stdout.toString("utf8"), entry.path, workspacePath(plan));
    await sayNotes(reportOf(container));
    return container;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    await sayNotes([`${entry.path} is not read: ${error.message}`]);
    return undefined;
  }
};

/** What the command line says holds. */
export const withContainer = (request: CreateVm, container: Devcontainer | undefined): CreateVm => {
  if (!container) return request;
  const { image, env, ports } = container;
  const given = request.publish ?? [];
  const more = request.network === "none" ? [] : ports.filter((port) => !given.some(({ guest }) => guest === port));
  const publish = [...given, ...more.map((guest) => ({ proto: "tcp", guest }) as const)];
  return {
    ...(image === undefined ? {} : { image }),
    ...request,
    ...(Object.keys(env).length > 0 ? { env: { ...env, ...request.env } } : {}),
    ...(publish.length > 0 ? { publish } : {}),
  };
};
