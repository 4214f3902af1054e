import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { onEachVm, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM..."],
  args: [vmArguments],
  argv: "none",
  flags: {},
  examples: [["banger vm resume box", "it goes on from where it stood"]],
  run: async ({ args }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmResume");
  },
});
