import { formatSize } from "../../contract/names.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { record, timestamp } from "../render/table.ts";
import { imageArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["IMAGE"],
  args: [imageArgument],
  argv: "none",
  flags: {},
  examples: [["banger image show debian-bookworm", "what it holds"]],
  run: async ({ args: [name = ""] }) => {
    using client = openClient();
    const image = await client.call("imageShow", { name }, {});
    const text = record([
      ["name", image.name],
      ["description", image.description],
      ["init", image.init ?? "none"],
      ["packages", String(image.packages)],
      ["size", `${formatSize(image.size)}, ${formatSize(image.diskUsed)} on disk`],
      ["digest", `sha256:${image.digest}`],
      ["made", timestamp(image.createdAt)],
    ]);
    return { data: image, text };
  },
});
