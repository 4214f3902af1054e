/** From flags to a plan, and its list for people. */
import type { ValuesOf } from "../command.ts";
import type { workspaceFlags } from "../flags/workspace.ts";
import { printable } from "../render/table.ts";
import type { WorkspacePlan } from "../../workspace/plan.ts";
import type { Repository } from "../../workspace/repository.ts";

export type WorkspaceValues = ValuesOf<typeof workspaceFlags>;

/** @throws WORKSPACE_REFUSED before anything is made */
export const planFrom = async (
  path: string,
  values: WorkspaceValues,
  staging: string,
  signal: AbortSignal,
  onRepository?: (repository: Repository) => void,
): Promise<WorkspacePlan> => {
  const { planWorkspace } = await import("../../workspace/plan.ts");
  const { branch, from, mode = "shallow", "include-untracked": includeUntracked } = values;
  return await planWorkspace(path, { branch, from, mode, includeUntracked }, staging, signal, onRepository);
};

const named = (path: string): string => Buffer.from(path, "latin1").toString("utf8");

/** What `--dry-run` prints. */
export const listing = ({ paths }: WorkspacePlan) => {
  const files = paths.map(named);
  return { text: files.map(printable).join("\n"), data: files };
};
