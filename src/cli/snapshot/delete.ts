import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { interruptible } from "../interrupt.ts";
import { actOnEach, resolveName } from "../several.ts";
import { snapshotArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["SNAPSHOT..."],
  description: "VMs that were restored from it go on.",
  args: [{ ...snapshotArgument, many: true }],
  argv: "none",
  flags: {},
  examples: [["banger snapshot delete ready", "give its disk space back"]],
  run: async ({ args }) => {
    using client = openClient();
    using interrupt = interruptible();
    const progress = { signal: interrupt.signal, report: () => undefined };
    return await actOnEach(
      args,
      await client.call("snapshotList", {}, {}),
      ({ name }) => client.operation("snapshotDelete", { name }, {}, progress),
      resolveName("SNAPSHOT_NOT_FOUND", "snapshot", "banger snapshot list"),
    );
  },
});
