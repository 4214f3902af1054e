import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { signalFlag } from "../flags/signal.ts";
import { onEachVm, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["[--signal SIGNAL] VM..."],
  description: "What the guest had not written to its disk yet is lost: `banger vm stop` is the gentle way.",
  args: [vmArguments],
  argv: "none",
  flags: { signal: signalFlag },
  examples: [
    ["banger vm kill box", "end it now"],
    ["banger vm kill --signal TERM box", "ask the VMM to end"],
  ],
  run: async ({ args, values }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmKill", values.signal === undefined ? {} : { signal: values.signal });
  },
});
