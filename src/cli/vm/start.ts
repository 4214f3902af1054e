import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { onEachVm, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM..."],
  args: [vmArguments],
  argv: "none",
  flags: {},
  examples: [
    ["banger vm start box", "start a VM that was created or stopped"],
    ["banger vm start box fox", "several at once"],
  ],
  run: async ({ args }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmStart");
  },
});
