import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { timeoutFlag } from "../flags/timeout.ts";
import { onEachVm, stopRequest, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["[-t TIME] VM..."],
  description:
    "The guest shuts down and boots anew, with what `banger vm set` left for its next start. A stopped VM is started.",
  args: [vmArguments],
  argv: "none",
  flags: { timeout: timeoutFlag },
  examples: [
    ["banger vm restart box", "its disk stays, its memory does not"],
    ["banger vm restart box fox", "several at once"],
  ],
  run: async ({ args, values }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmRestart", stopRequest(values));
  },
});
