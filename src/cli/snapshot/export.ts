import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { openClient } from "../../client/client.ts";
import { formatSize } from "../../contract/names.ts";
import { defineCommand } from "../command.ts";
import { runOperation } from "../operation.ts";
import { ARCHIVE, snapshotArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["SNAPSHOT [FILE]"],
  description:
    "Memory and disk of the VM are in the file, with all that was in them: give it to nobody who may not have that. It can\nbe restored with the same image, kernel, VMM and CPU; elsewhere its VM boots from its disk.",
  args: [
    snapshotArgument,
    { name: "FILE", help: `default: SNAPSHOT${ARCHIVE} in this folder; or a folder`, optional: true },
  ],
  argv: "none",
  flags: {},
  examples: [["banger snapshot export ready", "ready.snapshot.tar.zst, to be kept or taken elsewhere"]],
  run: async ({ args: [name = "", given = "."] }) => {
    using client = openClient();
    const isFolder = (await stat(given).catch(() => undefined))?.isDirectory() === true;
    const path = resolve(isFolder ? join(given, `${name}${ARCHIVE}`) : given);
    const done = await runOperation(client, "snapshotExport", { name }, { path });
    return { text: `${done.path}: ${formatSize(done.size)}`, data: done };
  },
});
