import { formatSize } from "../../contract/names.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { availableFlag } from "../flags/available.ts";
import { age, table } from "../render/table.ts";

export const command = defineCommand({
  usage: ["[--available]"],
  args: [],
  argv: "none",
  flags: { available: availableFlag },
  examples: [
    ["banger kernel list", "those on this machine"],
    ["banger kernel list --available", "those that can be pulled"],
  ],
  run: async ({ values }) => {
    using client = openClient();
    if (values.available) {
      const entries = await client.call("kernelAvailable", {}, {});
      const rows = entries.map(({ name, installed, description }) => [name, installed ? "yes" : "no", description]);
      return { data: entries, text: table(["NAME", "INSTALLED", "DESCRIPTION"], rows) };
    }
    const kernels = await client.call("kernelList", {}, {});
    const rows = kernels.map((kernel) => [
      kernel.name,
      kernel.release,
      formatSize(kernel.diskUsed),
      age(kernel.createdAt),
      kernel.description,
    ]);
    return { data: kernels, text: table(["NAME", "RELEASE", "ON DISK", "AGE", "DESCRIPTION"], rows) };
  },
});
