import { openClient } from "../../client/client.ts";
import { checkName, formatSize } from "../../contract/names.ts";
import { defineCommand } from "../command.ts";
import { runOperation } from "../operation.ts";
import { say } from "../render/output.ts";
import { resolveVm } from "../several.ts";
import { vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["[--as NAME] VM"],
  description: "Memory and disk of one instant. The VM stands still for a moment and goes on.",
  args: [vmArgument],
  argv: "none",
  flags: {
    as: {
      kind: "value",
      placeholder: "NAME",
      help: "name of the snapshot; default: the VM's and a number",
      parse: (value: string) => checkName(value, "snapshot name"),
    },
  },
  examples: [
    ["banger vm snapshot box --as ready", "keep it as it is now"],
    ["banger vm restore ready --name again", "a VM that goes on from there"],
  ],
  run: async ({ args: [given = ""], values }) => {
    using client = openClient();
    const { id } = resolveVm(given, await client.call("vmList", {}, {}));
    const request = values.as === undefined ? {} : { name: values.as };
    const { snapshot, pause } = await runOperation(client, "vmSnapshot", { vm: id }, request);
    await say(`${formatSize(snapshot.diskUsed)} on disk; the VM stood still for ${Math.round(pause)} ms`);
    return { text: snapshot.name, data: { ...snapshot, pause } };
  },
});
