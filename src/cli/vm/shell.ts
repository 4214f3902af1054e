import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { cwdFlag } from "../flags/cwd.ts";
import { envFlag } from "../flags/env.ts";
import { userFlag } from "../flags/user.ts";
import { runInVm } from "../session-in-vm.ts";
import { planSession, vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM"],
  description: "Works in any image, with or without sshd. Without a terminal the shell reads its script from stdin.",
  args: [vmArgument],
  argv: "none",
  flags: { env: envFlag, user: userFlag, cwd: cwdFlag },
  examples: [
    ["banger vm shell box", "a shell as root"],
    ["banger vm shell box --user nobody --cwd /tmp", "as somebody else"],
    ["banger vm shell box < script.sh", "run a script"],
  ],
  run: async ({ args, values }) => {
    const [vm = ""] = args;
    const plan = planSession([], { ...values, tty: false, interactive: true });
    using client = openClient();
    return { exit: await runInVm(client, vm, plan) };
  },
});
