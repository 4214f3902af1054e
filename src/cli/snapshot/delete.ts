import { defineCommand } from "../command.ts";
import { deleteEach } from "../delete-each.ts";
import { resolveName } from "../several.ts";
import { snapshotArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["SNAPSHOT..."],
  description: "VMs that were restored from it go on.",
  args: [{ ...snapshotArgument, many: true }],
  argv: "none",
  flags: {},
  examples: [["banger snapshot delete ready", "give its disk space back"]],
  run: ({ args }) =>
    deleteEach(
      args,
      "snapshotDelete",
      (client) => client.call("snapshotList", {}, {}),
      resolveName("SNAPSHOT_NOT_FOUND", "snapshot", "banger snapshot list"),
    ),
});
