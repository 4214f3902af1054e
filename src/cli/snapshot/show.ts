import { openClient } from "../../client/client.ts";
import { formatSize } from "../../contract/names.ts";
import { defineCommand } from "../command.ts";
import { record, timestamp } from "../render/table.ts";
import { snapshotArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["SNAPSHOT"],
  args: [snapshotArgument],
  argv: "none",
  flags: {},
  examples: [["banger snapshot show ready", "what it is a snapshot of"]],
  run: async ({ args: [name = ""] }) => {
    using client = openClient();
    const found = await client.call("snapshotShow", { name }, {});
    const text = record([
      ["name", found.name],
      ["of", found.vm],
      ["image", found.image],
      ["kernel", found.kernel],
      ["vcpu", String(found.vcpu)],
      ["memory", formatSize(found.memory)],
      ["disk", formatSize(found.diskSize)],
      ["network", found.network],
      ["vmm", found.vmm],
      ["on disk", formatSize(found.diskUsed)],
      ["made", timestamp(found.createdAt)],
    ]);
    return { data: found, text };
  },
});
