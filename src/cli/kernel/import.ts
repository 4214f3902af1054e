import { resolve } from "node:path";
import { checkName } from "../../contract/names.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { modulesFlag } from "../flags/modules.ts";
import { runOperation } from "../operation.ts";

export const command = defineCommand({
  usage: ["KERNEL PATH [--modules DIR]"],
  description: `PATH is a kernel for x86-64 (vmlinuz, bzImage or vmlinux), a folder with one in it, or a bundle of \`kernel export\`. In a folder, modules are
looked for in lib/modules/RELEASE. A kernel without modules must have virtio, ext4 and overlayfs built in.`,
  args: [
    { name: "KERNEL", help: "a name for it" },
    { name: "PATH", help: "a file or folder" },
  ],
  argv: "none",
  flags: { modules: modulesFlag },
  examples: [
    ["banger kernel import mine ./build/manual/kernel-generic", "what scripts/make-generic-kernel.sh made"],
    ["banger kernel import host /boot/vmlinuz-$(uname -r) --modules /lib/modules", "this machine's own"],
  ],
  run: async ({ args: [name = "", path = ""], values }) => {
    checkName(name, "kernel name");
    using client = openClient();
    const kernel = await runOperation(
      client,
      "kernelImport",
      {},
      {
        name,
        path: resolve(path),
        ...(values.modules === undefined ? {} : { modules: resolve(values.modules) }),
      },
    );
    return { text: kernel.name, data: kernel };
  },
});
