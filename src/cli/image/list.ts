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
    ["banger image list", "those on this machine"],
    ["banger image list --available", "those that can be pulled"],
  ],
  run: async ({ values }) => {
    using client = openClient();
    if (values.available) {
      const entries = await client.call("imageAvailable", {}, {});
      const rows = entries.map(({ name, installed, description }) => [name, installed ? "yes" : "no", description]);
      return { data: entries, text: table(["NAME", "INSTALLED", "DESCRIPTION"], rows) };
    }
    const images = await client.call("imageList", {}, {});
    const rows = images.map((image) => [
      image.name,
      formatSize(image.diskUsed),
      age(image.createdAt),
      image.description,
    ]);
    return { data: images, text: table(["NAME", "ON DISK", "AGE", "DESCRIPTION"], rows) };
  },
});
