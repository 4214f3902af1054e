import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { onEachVm, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM..."],
  args: [vmArguments],
  argv: "none",
  flags: {},
  examples: [
    ["banger vm delete box", "a running one is stopped first; its disk is gone"],
    ["banger vm delete box fox", "several at once"],
  ],
  run: async ({ args }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmDelete");
  },
});
