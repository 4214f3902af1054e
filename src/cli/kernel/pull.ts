import { openClient } from "../../client/client.ts";
import { checkName, isName } from "../../contract/names.ts";
import { dockerConfigFile } from "../../host/paths.ts";
import { defineCommand } from "../command.ts";
import { text } from "../flags/values.ts";
import { runOperation } from "../operation.ts";
import { usage } from "../parse.ts";

export const command = defineCommand({
  usage: ["KERNEL", "IMAGE --name NAME"],
  description: `IMAGE is one of a registry with a kernel in it: vmlinux, bzImage or vmlinuz, in its root or in boot, and modules in lib/modules/RELEASE.
Credentials for registries are those of \`docker login\`. A kernel that is there already is left as it is.`,
  args: [{ name: "KERNEL", help: "a name of `banger kernel list --available`, or an image of a registry" }],
  argv: "none",
  flags: {
    name: { kind: "value", placeholder: "NAME", help: "what to call the kernel of an image", parse: text },
  },
  examples: [
    ["banger kernel pull debian-bookworm-cloud", "now, so that the first `vm run` need not"],
    ["banger kernel pull ghcr.io/owner/kernel:6.1 --name mine", "out of an image"],
  ],
  run: async ({ args: [source = ""], values: { name } }) => {
    const ofCatalog = isName(source);
    if (ofCatalog && name !== undefined)
      throw usage("kernel pull", "only the kernel of an image is given a name", `banger kernel pull ${source}`);
    if (!ofCatalog && name === undefined)
      throw usage(
        "kernel pull",
        "an image does not say what its kernel is called",
        `banger kernel pull ${source} --name NAME`,
      );
    if (name !== undefined) checkName(name, "kernel name");
    using client = openClient();
    const request = {
      ...(name === undefined ? { name: source } : { name, reference: source }),
      dockerConfig: dockerConfigFile(),
    };
    const kernel = await runOperation(client, "kernelPull", {}, request);
    return { text: kernel.name, data: kernel };
  },
});
