import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { runOperation } from "../operation.ts";

export const command = defineCommand({
  usage: ["IMAGE"],
  args: [{ name: "IMAGE", help: "a name of `banger image list --available`" }],
  argv: "none",
  flags: {},
  examples: [["banger image pull debian-bookworm", "now, so that the first `vm run` need not"]],
  run: async ({ args: [name = ""] }) => {
    using client = openClient();
    const image = await runOperation(client, "imagePull", {}, { name });
    return { text: image.name, data: image };
  },
});
