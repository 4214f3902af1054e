import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { nameFlag } from "../flags/name.ts";
import { secretFlags } from "../flags/secret.ts";
import { runOperation } from "../operation.ts";
import { snapshotArgument } from "../snapshot/shared.ts";
import { givenSecrets, sayNotes } from "./shared.ts";

export const command = defineCommand({
  usage: ["[--name NAME] SNAPSHOT"],
  description:
    "A new VM that goes on from a snapshot: programs and files are as they were, name, keys, ids and clock are its own. The snapshot stays.\nIt holds no values of secrets: give them again.",
  args: [snapshotArgument],
  argv: "none",
  flags: { name: nameFlag, ...secretFlags },
  examples: [["banger vm restore ready --name again", "as often as you like"]],
  run: async ({ args: [name = ""], values }) => {
    const secrets = await givenSecrets(values);
    using client = openClient();
    const request = { ...(secrets ? { secrets } : {}), ...(values.name === undefined ? {} : { name: values.name }) };
    const vm = await runOperation(client, "snapshotRestore", { name }, request);
    await sayNotes(vm.notes);
    return { text: vm.name, data: vm };
  },
});
