import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";

export const command = defineCommand({
  usage: [""],
  description: "Any command that needs it starts it too.",
  args: [],
  argv: "none",
  flags: {},
  examples: [["banger daemon start", "start it now"]],
  run: async () => {
    using client = openClient();
    const status = await client.call("status", {}, {});
    return { data: status, text: `running, pid ${status.pid}` };
  },
});
