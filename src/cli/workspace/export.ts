import { createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { finished, pipeline } from "node:stream/promises";
import { BangerError } from "../../contract/errors.ts";
import type { Vm } from "../../contract/vms.ts";
import { type Client, openClient } from "../../client/client.ts";
import { type ExportFormat, exportFormats, exportProgram, exportStatus } from "../../workspace/export.ts";
import { defineCommand } from "../command.ts";
import { oneOf, text } from "../flags/values.ts";
import { interruptible } from "../interrupt.ts";
import { usage } from "../parse.ts";
import { carry, say } from "../render/output.ts";
import { vmArgument } from "../vm/shared.ts";

export const command = defineCommand({
  usage: ["VM [FLAGS]"],
  description:
    "What the VM has changed of the repository since it was brought in, new files included, ignored ones not. Apply it with\n`git apply --binary`, or with `git am` where it has commits. Nothing in the VM is changed by it.",
  args: [vmArgument],
  argv: "none",
  flags: {
    base: { kind: "value", placeholder: "COMMIT", help: "changes since this commit of the VM's", parse: text },
    output: { kind: "value", short: "o", placeholder: "FILE", help: "write it there; default: stdout", parse: text },
    format: {
      kind: "value",
      placeholder: exportFormats.join("|"),
      help: "one diff of everything, or a patch for each commit; default: diff",
      parse: (value: string): ExportFormat => oneOf("format", exportFormats)(value),
    },
  },
  examples: [
    ["banger vm workspace export box | git apply --binary", "take the work of the VM over"],
    ["banger vm workspace export box --format=commits | git am", "its commits, one by one"],
    ["banger vm workspace export box -o work.patch", "keep it in a file"],
  ],
  run: async ({ args: [reference = ""], values }) => {
    if (values.base?.startsWith("-"))
      throw usage("vm workspace export", `${values.base} is no commit`, "give a branch or a commit of the VM's");
    using interrupt = interruptible();
    using client = openClient();
    const vm = await client.call("vmShow", { vm: reference }, {});
    const patch = readPatch(client, vm, values.base, values.format ?? "diff", interrupt.signal);
    if (values.output === undefined) await carryPatch(patch);
    else await writePatch(patch, values.output);
    return {};
  },
});

const carryPatch = async (patch: AsyncGenerator<Uint8Array>): Promise<void> => {
  const { Readable } = await import("node:stream");
  await carry(Readable.from(patch, { objectMode: false }), 1);
};

/** The file appears whole or not at all. */
const writePatch = async (patch: AsyncGenerator<Uint8Array>, path: string): Promise<void> => {
  const staging = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    const file = createWriteStream(staging, { flags: "wx" });
    await pipeline(patch, file);
    await finished(file);
    await rename(staging, path);
  } catch (error) {
    await rm(staging, { force: true });
    throw error;
  }
};

async function* readPatch(
  client: Client,
  vm: Vm,
  base: string | undefined,
  format: ExportFormat,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const { workspace } = vm;
  if (!workspace)
    throw new BangerError("WORKSPACE_REFUSED", `VM ${vm.name} has no repository of yours`, {
      hint: `bring one in: banger vm workspace prepare ${vm.name} PATH`,
    });
  const argv = exportProgram(workspace.path, base, format);
  const stream = await client.stream("vmExec", { vm: vm.id }, { argv, cwd: "/", user: "root" }, { signal });
  stream.stdin.end();
  let said = "";
  stream.stderr.on("data", (chunk: Buffer) => {
    said = (said + chunk.toString("utf8")).slice(-4096);
  });
  yield* stream.stdout as AsyncIterable<Uint8Array>;
  const end = await stream.closed;
  const status = end.exit ?? 128 + (end.signal ?? 0);
  if (status !== 0) throw exportError(status, vm, workspace.path, base, said);
  const open = Number(said.trim());
  if (format === "commits" && open > 0)
    await say(`note: ${open} changed files in the VM are not committed, and not in it; --format=diff has them`);
}

const exportError = (
  status: number,
  { name }: Vm,
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
