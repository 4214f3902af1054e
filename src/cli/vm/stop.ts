import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { onEachVm, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM..."],
  args: [vmArguments],
  argv: "none",
  flags: {},
  examples: [
    ["banger vm stop box", "its disks are synced first"],
    ["banger vm stop box fox", "several at once"],
  ],
  run: async ({ args }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmStop");
  },
});
