import { openClient } from "../../client/client.ts";
import { formatSize } from "../../contract/names.ts";
import { defineCommand } from "../command.ts";
import { age, table } from "../render/table.ts";

export const command = defineCommand({
  usage: [""],
  args: [],
  argv: "none",
  flags: {},
  examples: [["banger snapshot list", "saved VMs, and what they take"]],
  run: async () => {
    using client = openClient();
    const snapshots = await client.call("snapshotList", {}, {});
    const rows = snapshots.map(({ name, vm, image, memory, diskUsed, createdAt, damaged }) =>
      damaged === undefined
        ? [name, vm, image, formatSize(memory), formatSize(diskUsed), age(createdAt)]
        : [name, "(damaged)", "-", "-", formatSize(diskUsed), "-"],
    );
    return { data: snapshots, text: table(["NAME", "OF", "IMAGE", "MEMORY", "ON DISK", "AGE"], rows) };
  },
});
