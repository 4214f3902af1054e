import { toBangerError } from "../../contract/errors.ts";
import { stopDaemon } from "../../client/daemon-stop.ts";
import { defineCommand } from "../command.ts";

export const command = defineCommand({
  usage: [""],
  description: "VMs go on running; the next daemon finds them again.",
  args: [],
  argv: "none",
  flags: {},
  examples: [["banger daemon stop", "stop it"]],
  run: async () => {
    try {
      await stopDaemon();
      return { data: { stopped: true }, text: "stopped" };
    } catch (error) {
      if (toBangerError(error).code !== "DAEMON_UNREACHABLE") throw error;
      return { data: { stopped: false }, text: "it was not running" };
    }
  },
});
