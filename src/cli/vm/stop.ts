import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { timeoutFlag } from "../flags/timeout.ts";
import { onEachVm, stopRequest, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["[-t TIME] VM..."],
  description: "The guest syncs its disks and shuts down. One that does not in time is ended.",
  args: [vmArguments],
  argv: "none",
  flags: { timeout: timeoutFlag },
  examples: [
    ["banger vm stop box", "its disks are synced first"],
    ["banger vm stop box fox", "several at once"],
  ],
  run: async ({ args, values }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmStop", stopRequest(values));
  },
});
