import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { usage } from "../parse.ts";
import { runInVm } from "../session-in-vm.ts";
import { execFlags, planSession, refuseEmptyProgram, vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM [FLAGS] -- COMMAND...", "VM COMMAND..."],
  description:
    "The command gets its arguments as given: no shell looks at them. banger exits with its status, or 128 and the\nnumber of the signal that ended it.",
  args: [vmArgument],
  argv: "after",
  flags: execFlags,
  examples: [
    ["banger vm exec box -- make -j4", "run a command"],
    ["banger vm exec box -- sh -c 'cd /srv && ls | wc -l'", "a shell line"],
    ["banger vm exec box -it -- top", "a program that needs a terminal"],
    ["banger vm exec box -- tar -C /srv -c . > srv.tar", "bytes come out as they are"],
  ],
  run: async ({ args, argv, values }) => {
    const [vm = ""] = args;
    if (!argv || argv.length === 0)
      throw usage("vm exec", "the command is missing", `for a shell use \`banger vm shell ${vm}\``);
    refuseEmptyProgram("vm exec", argv);
    const plan = planSession(argv, values);
    using client = openClient();
    return { exit: await runInVm(client, vm, plan) };
  },
});
