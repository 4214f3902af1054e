import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { envFlag, environmentOf } from "../flags/env.ts";
import { runOperation } from "../operation.ts";
import { createRequest, sayNotes, shapeFlags } from "./shared.ts";

export const command = defineCommand({
  usage: ["[FLAGS]"],
  args: [],
  argv: "none",
  flags: { ...shapeFlags, env: { ...envFlag, help: `${envFlag.help}; for every command in the VM` } },
  examples: [
    ["banger vm create --name box", "a VM of the default image"],
    ["banger vm create --name strict --net-policy test.policy", "that reaches what a file allows"],
    ["banger vm create --name big --vcpu 4 --memory 8G --disk-size 40G", "with its own shape"],
  ],
  run: async ({ values }) => {
    const env = environmentOf(values.env);
    const request = { ...(await createRequest(values)), ...(Object.keys(env).length > 0 ? { env } : {}) };
    using client = openClient();
    const vm = await runOperation(client, "vmCreate", {}, request);
    await sayNotes(vm.notes);
    return { text: vm.name, data: vm };
  },
});
