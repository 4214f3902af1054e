import { createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { finished, pipeline } from "node:stream/promises";
import { openClient } from "../../client/client.ts";
import { type ExportFormat, exportFormats } from "../../workspace/export.ts";
import { defineCommand } from "../command.ts";
import { oneOf, text } from "../flags/values.ts";
import { interruptible } from "../interrupt.ts";
import { usage } from "../parse.ts";
import { carry } from "../render/output.ts";
import { sayNotes, vmArgument } from "../vm/shared.ts";
import { patchOf, unsettledNote } from "./patch.ts";

export const command = defineCommand({
  usage: ["VM [FLAGS]"],
  description:
    "What the VM has changed of the repository since it was brought in, new files included, ignored ones not. Apply it with\n`git apply --binary`, or with `git am` where it has commits. Nothing in the VM is changed by it. A note says so\nwhere files there went on changing while they were read.",
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
    ["banger vm workspace export box --format=commits | git am --keep-cr --keep-non-patch", "its commits"],
    ["banger vm workspace export box -o work.patch", "keep it in a file"],
  ],
  run: async ({ args: [reference = ""], values }) => {
    if (values.base?.startsWith("-"))
      throw usage("vm workspace export", `${values.base} is no commit`, "give a branch or a commit of the VM's");
    using interrupt = interruptible();
    using client = openClient();
    const vm = await client.call("vmShow", { vm: reference }, {});
    const format = values.format ?? "diff";
    const onLeftOut = async (files: number, merges: number): Promise<void> => {
      if (files > 0)
        await sayNotes([`${files} changed files in the VM are not committed, and not in it; --format=diff has them`]);
      if (merges > 0)
        await sayNotes([
          `${merges} merges in the VM are not in it, nor what was changed in them; --format=diff has that`,
        ]);
    };
    const onUnsettled = () => sayNotes([unsettledNote(vm.name)]);
    const patch = patchOf(client, vm, { base: values.base, format, signal: interrupt.signal, onLeftOut, onUnsettled });
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
