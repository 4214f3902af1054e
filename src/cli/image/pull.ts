import { openClient } from "../../client/client.ts";
import { dockerConfigFile } from "../../host/paths.ts";
import { defineCommand } from "../command.ts";
import { runOperation } from "../operation.ts";

export const command = defineCommand({
  usage: ["IMAGE"],
  description: `An image that is there already is left as it is, unless its tag has moved in its registry: then it is fetched anew, where no VM
uses it. Credentials for registries are those of \`docker login\`.`,
  args: [{ name: "IMAGE", help: "a name of `banger image list --available`, or of a registry: alpine:3.20" }],
  argv: "none",
  flags: {},
  examples: [
    ["banger image pull debian-bookworm", "now, so that the first `vm run` need not"],
    ["banger image pull ghcr.io/owner/app:1.0", "an image of a registry"],
  ],
  run: async ({ args: [name = ""] }) => {
    using client = openClient();
    const image = await runOperation(client, "imagePull", {}, { name, dockerConfig: dockerConfigFile() });
    return { text: image.name, data: image };
  },
});
