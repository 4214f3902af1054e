import { resolve } from "node:path";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { runOperation } from "../operation.ts";

export const command = defineCommand({
  usage: ["NAME FILE"],
  description:
    "The file stays where it is and must not be changed: VMs keep what differs from it. `image promote` makes a copy of\nbanger's own; `image delete` never removes the file.",
  args: [
    { name: "NAME", help: "what to call it" },
    { name: "FILE", help: "an ext4 file system" },
  ],
  argv: "none",
  flags: {},
  examples: [["banger image register my-system ./build/manual/rootfs.ext4", "use it with `vm run --image my-system`"]],
  run: async ({ args: [name = "", file = ""] }) => {
    using client = openClient();
    const image = await runOperation(client, "imageRegister", {}, { name, rootfs: resolve(file) });
    return { text: image.name, data: image };
  },
});
