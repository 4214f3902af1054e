import { openClient } from "../../client/client.ts";
import { confirm } from "../confirm.ts";
import { defineCommand } from "../command.ts";
import { forceFlag } from "../flags/force.ts";
import { say } from "../render/output.ts";
import { actOnEach } from "../several.ts";

export const command = defineCommand({
  usage: ["[-f]"],
  description: "A running VM is never deleted.",
  args: [],
  argv: "none",
  flags: { force: forceFlag },
  examples: [
    ["banger vm prune", "lists what would go, and asks"],
    ["banger vm prune -f", "does it"],
  ],
  run: async ({ values }) => {
    using client = openClient();
    const stopped = (await client.call("vmList", {}, {})).filter(({ state }) => state === "stopped");
    const names = stopped.map(({ name }) => name);
    if (names.length === 0) {
      await say("no VM is stopped: there is nothing to delete");
      return { data: [] };
    }
    if (!values.force && !(await confirm(`delete ${names.join(", ")}?`, "banger vm prune -f"))) return { exit: 1 };
    // Somebody may have started one while we asked: the daemon looks again.
    return await actOnEach(names, stopped, ({ id }) => client.operation("vmDelete", { vm: id }, { ifStopped: true }));
  },
});
