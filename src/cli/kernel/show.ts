import { formatSize } from "../../contract/names.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { record, timestamp } from "../render/table.ts";
import { kernelArgument, origin } from "./shared.ts";

export const command = defineCommand({
  usage: ["KERNEL"],
  args: [kernelArgument],
  argv: "none",
  flags: {},
  examples: [["banger kernel show debian-bookworm-cloud", "what it holds"]],
  run: async ({ args: [name = ""] }) => {
    using client = openClient();
    const kernel = await client.call("kernelShow", { name }, {});
    const text = record([
      ["name", kernel.name],
      ["description", kernel.description],
      ["release", kernel.release],
      ["package", kernel.packageVersion ?? "none"],
      ["from", origin(kernel.source)],
      ["size", `${formatSize(kernel.size)}, ${formatSize(kernel.diskUsed)} on disk`],
      ["digest", `sha256:${kernel.digest}`],
      ["made", timestamp(kernel.createdAt)],
    ]);
    return { data: kernel, text };
  },
});
