import { defineCommand } from "../command.ts";
import { oneOf } from "../flags/values.ts";
import { scripts, shells } from "./scripts.ts";

export const command = defineCommand({
  usage: ["bash", "zsh", "fish"],
  description:
    "Prints what the shell is to load. It then completes commands, flags, and the names of VMs, images and kernels while the daemon\nruns; it never starts the daemon.",
  args: [{ name: "SHELL", help: "bash, zsh or fish" }],
  argv: "none",
  flags: {},
  examples: [
    ["echo 'source <(banger completion bash)' >> ~/.bashrc", "in every bash to come"],
    ["echo 'source <(banger completion zsh)' >> ~/.zshrc", "in every zsh to come, after compinit"],
    ["banger completion fish > ~/.config/fish/completions/banger.fish", "in every fish to come"],
  ],
  run: async ({ args: [shell = ""] }) => {
    const text = scripts[oneOf("shell", shells)(shell)];
    return { text: text.trimEnd(), data: { script: text } };
  },
});
