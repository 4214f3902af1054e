/** The patch that a VM's own git makes of its work. */
import { BangerError } from "../../contract/errors.ts";
import type { Vm } from "../../contract/vms.ts";
import type { Client } from "../../client/client.ts";
import { type ExportFormat, exportProgram, exportStatus, UNSETTLED } from "../../workspace/export.ts";

/** @throws WORKSPACE_REFUSED for a VM that no repository was brought to */
export const workspaceOf = ({ name, workspace }: Vm): NonNullable<Vm["workspace"]> => {
  if (workspace) return workspace;
  throw new BangerError("WORKSPACE_REFUSED", `VM ${name} has no repository of yours`, {
    hint: `bring one in: banger vm workspace prepare ${name} PATH`,
  });
};

export type PatchOptions = {
  /** A commit of the guest's; default: what was brought in. */
  base?: string | undefined;
  format: ExportFormat;
  signal: AbortSignal;
  /** Of commits: told at the end how many changed files are in none, and how many merges have no patch. */
  onLeftOut?: ((files: number, merges: number) => Promise<void>) | undefined;
  /** Of a diff: files went on changing while they were read, so that it is of no single moment. */
  onUnsettled?: (() => Promise<void>) | undefined;
};

export const unsettledNote = (vm: string): string =>
  `files of VM ${vm} went on changing while they were read: this is not the state of any one moment; stop what writes there, and do it again`;

/** @throws WORKSPACE_REFUSED, GUEST_ERROR */
export async function* patchOf(client: Client, vm: Vm, options: PatchOptions): AsyncGenerator<Uint8Array> {
  const { path } = workspaceOf(vm);
  const { base, format, signal } = options;
  const argv = exportProgram(path, base, format);
  const stream = await client.stream("vmExec", { vm: vm.id }, { argv, cwd: "/", user: "root" }, { signal });
  stream.stdin.end();
  let said = "";
  stream.stderr.on("data", (chunk: Buffer) => {
    said = (said + chunk.toString("utf8")).slice(-4096);
  });
  yield* stream.stdout as AsyncIterable<Uint8Array>;
  const end = await stream.closed;
  const status = end.exit ?? 128 + (end.signal ?? 0);
  if (status !== 0) throw patchError(status, vm.name, path, base, said);
  const [, files, merges] = /(\d+) (\d+)\s*$/.exec(said) ?? [];
  if (said.split("\n").includes(UNSETTLED)) await options.onUnsettled?.();
  if (format === "commits") await options.onLeftOut?.(Number(files ?? 0), Number(merges ?? 0));
}

const patchError = (
  status: number,
  name: string,
  path: string,
  base: string | undefined,
  said: string,
): BangerError => {
  if (status === exportStatus.noGit)
    return new BangerError("WORKSPACE_REFUSED", `there is no git in VM ${name}`, {
      hint: `install it there, or take files out by themselves: banger vm cp ${name}:'${path}' .`,
    });
  if (status === exportStatus.noRepository)
    return new BangerError("WORKSPACE_REFUSED", `${path} in VM ${name} is no git repository`, {
      hint: `files that were brought without a history come out by: banger vm cp ${name}:'${path}' .`,
    });
  if (status === exportStatus.noBase)
    return new BangerError(
      "WORKSPACE_REFUSED",
      `there is no commit ${JSON.stringify(base ?? "refs/banger/base")} in VM ${name}`,
      {
        hint: `see them: banger vm exec ${name} -- git log --oneline --all`,
      },
    );
  return new BangerError(
    "GUEST_ERROR",
    `git failed in VM ${name}: ${said.trim().split("\n")[0] || `status ${status}`}`,
  );
};
