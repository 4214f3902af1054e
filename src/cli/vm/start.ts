import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { overcommitFlag } from "../flags/overcommit.ts";
import { onEachVm, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["[--force] VM..."],
  args: [vmArguments],
  argv: "none",
  flags: { force: overcommitFlag },
  examples: [
    ["banger vm start box", "start a VM that was created or stopped"],
    ["banger vm start box fox", "several at once"],
  ],
  run: async ({ args, values }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmStart", values.force ? { force: true } : {});
  },
});
