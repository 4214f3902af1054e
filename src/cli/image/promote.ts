import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { runOperation } from "../operation.ts";
import { imageArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["IMAGE"],
  description: "From then on your file may be changed or removed.",
  args: [imageArgument],
  argv: "none",
  flags: {},
  examples: [["banger image promote my-system", "after `image register my-system FILE`"]],
  run: async ({ args: [name = ""] }) => {
    using client = openClient();
    const image = await runOperation(client, "imagePromote", { name }, {});
    return { text: image.name, data: image };
  },
});
