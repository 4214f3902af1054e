import { defineCommand } from "../command.ts";
import { deleteEach } from "../delete-each.ts";
import { resolveName } from "../several.ts";
import { imageArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["IMAGE..."],
  description: "Refused while a VM uses it.",
  args: [{ ...imageArgument, many: true }],
  argv: "none",
  flags: {},
  examples: [["banger image delete debian-bookworm", "give its disk space back"]],
  // The daemon knows what else an image may be called.
  run: ({ args }) =>
    deleteEach(
      args,
      "imageDelete",
      () => [...new Set(args)].map((name) => ({ name })),
      resolveName("IMAGE_NOT_FOUND", "image", "banger image list"),
    ),
});
