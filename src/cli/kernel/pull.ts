import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { runOperation } from "../operation.ts";

export const command = defineCommand({
  usage: ["KERNEL"],
  args: [{ name: "KERNEL", help: "a name of `banger kernel list --available`" }],
  argv: "none",
  flags: {},
  examples: [["banger kernel pull debian-bookworm-cloud", "now, so that the first `vm run` need not"]],
  run: async ({ args: [name = ""] }) => {
    using client = openClient();
    const kernel = await runOperation(client, "kernelPull", {}, { name });
    return { text: kernel.name, data: kernel };
  },
});
