import { parsePublish } from "../../contract/ports.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { usage } from "../parse.ts";
import { vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM PORT...", "--all VM", "--auto VM"],
  description:
    "Connections through it are cut off. A PORT without HOST stands for every one that leads to that guest port.",
  args: [vmArgument, { name: "PORT", help: "as it was published, or the guest's port", many: true, optional: true }],
  argv: "none",
  flags: {
    all: { kind: "switch", help: "every port, and no more by itself" },
    auto: { kind: "switch", help: "no more by itself; what was published by name stays" },
  },
  examples: [
    ["banger vm unpublish box 3000", "one port"],
    ["banger vm unpublish --all box", "all of them"],
  ],
  run: async ({ args: [vm = "", ...ports], values }) => {
    const { all, auto } = values;
    if (ports.length === 0 && !all && !auto)
      throw usage("vm unpublish", "no port was given", "name one, or give --all");
    const wanted = ports.map(parsePublish);
    using client = openClient();
    const request = { ports: wanted, ...(all ? { all } : {}), ...(auto ? { auto } : {}) };
    const { published } = await client.call("vmUnpublish", { vm }, request);
    return { data: published };
  },
});
