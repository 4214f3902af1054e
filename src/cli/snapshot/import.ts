import { basename, resolve } from "node:path";
import { openClient } from "../../client/client.ts";
import { checkName } from "../../contract/names.ts";
import { defineCommand } from "../command.ts";
import { text } from "../flags/values.ts";
import { runOperation } from "../operation.ts";
import { ARCHIVE } from "./shared.ts";

export const command = defineCommand({
  usage: ["FILE [--as SNAPSHOT]"],
  description:
    "Take in only what you trust as much as an image: its guest goes on running, and the VMM reads its state.",
  args: [{ name: "FILE", help: "what `banger snapshot export` wrote" }],
  argv: "none",
  flags: {
    as: {
      kind: "value",
      placeholder: "SNAPSHOT",
      help: "what to call it; default: as the file is called",
      parse: text,
    },
  },
  examples: [["banger snapshot import ready.snapshot.tar.zst", "a snapshot named ready"]],
  run: async ({ args: [file = ""], values }) => {
    const name = checkName(values.as ?? basename(file, ARCHIVE), "snapshot name");
    using client = openClient();
    const snapshot = await runOperation(client, "snapshotImport", {}, { path: resolve(file), name });
    return { text: snapshot.name, data: snapshot };
  },
});
