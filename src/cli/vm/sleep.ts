import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { onEachVm, vmArguments } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM..."],
  description:
    "Memory goes to the disk and is given back to the host. The VM wakes by itself on `vm exec`, `vm shell`, `vm cp` or ssh, its programs go on from where they stood, and only its network connections are gone.",
  args: [vmArguments],
  argv: "none",
  flags: {},
  examples: [
    ["banger vm sleep box", "free its memory"],
    ["banger vm exec box -- uptime", "it wakes"],
  ],
  run: async ({ args }) => {
    using client = openClient();
    return await onEachVm(client, args, "vmSleep");
  },
});
