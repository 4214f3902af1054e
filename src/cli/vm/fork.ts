import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { positiveInteger } from "../flags/values.ts";
import { runOperation } from "../operation.ts";
import { say } from "../render/output.ts";
import { resolveVm } from "../several.ts";
import { vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["[-n N] [--prefix NAME] VM"],
  description:
    "Running copies of a running VM, each a machine of its own: name, keys, ids and clock differ, programs and files are as they were. They share " +
    "memory and disk with one another as long as nobody writes. All of them are made, or none.",
  args: [vmArgument],
  argv: "none",
  flags: {
    count: {
      kind: "value",
      short: "n",
      placeholder: "N",
      help: "how many; default: 1",
      parse: positiveInteger("number of copies"),
    },
    prefix: {
      kind: "value",
      placeholder: "NAME",
      help: "they are called NAME-1, NAME-2, …; default: the VM's name",
      parse: (value: string) => value,
    },
  },
  examples: [
    ["banger vm fork box", "one copy, box-1"],
    ["banger vm fork box -n 8 --prefix try", "try-1 to try-8"],
  ],
  run: async ({ args: [given = ""], values }) => {
    using client = openClient();
    const { id } = resolveVm(given, await client.call("vmList", {}, {}));
    const request = {
      count: values.count ?? 1,
      ...(values.prefix === undefined ? {} : { prefix: values.prefix }),
    };
    const { vms, pause } = await runOperation(client, "vmFork", { vm: id }, request);
    await say(`the VM stood still for ${Math.round(pause)} ms`);
    return { text: vms.map(({ name }) => name).join("\n"), data: { vms, pause } };
  },
});
