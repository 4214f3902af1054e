import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { onEachVm, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM..."],
  description: "The guest's CPUs stand still; its memory stays. What was sent to it waits.",
  args: [vmArguments],
  argv: "none",
  flags: {},
  examples: [["banger vm pause box", "it uses no CPU until `banger vm resume box`"]],
  run: async ({ args }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmPause");
  },
});
