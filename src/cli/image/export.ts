import { resolve } from "node:path";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { runOperation } from "../operation.ts";
import { imageArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["IMAGE [DIR]"],
  description:
    "Writes one file, IMAGE-SHA256.tar.zst, and prints the entry for a catalog: set its address to where the file will lie.",
  args: [imageArgument, { name: "DIR", help: "where the bundle goes; default: this folder", optional: true }],
  argv: "none",
  flags: {},
  examples: [["banger image export debian-bookworm /srv/bundles", "one file, and what a catalog needs to know of it"]],
  run: async ({ args: [name = "", folder = "."] }) => {
    using client = openClient();
    const { path, entry } = await runOperation(client, "imageExport", { name }, { folder: resolve(folder) });
    return { text: JSON.stringify(entry, undefined, 2), data: { path, entry } };
  },
});
