import { openClient } from "../../client/client.ts";
import { formatSize } from "../../contract/names.ts";
import { defineCommand } from "../command.ts";
import { diskSizeFlag } from "../flags/disk-size.ts";
import { kernelFlag } from "../flags/kernel.ts";
import { memoryFlag } from "../flags/memory.ts";
import { netFlag } from "../flags/net.ts";
import { vcpuFlag } from "../flags/vcpu.ts";
import { runOperation } from "../operation.ts";

export const command = defineCommand({
  usage: ["[FLAGS] [IMAGE]"],
  description:
    "VMs with the same image, kernel, CPUs, memory, disk size and network then start in a fraction of a second. The first VM of a kind does " +
    "this by itself, in the background, once it has booted.",
  args: [{ name: "IMAGE", help: "default: the default image", optional: true }],
  argv: "none",
  flags: {
    kernel: kernelFlag,
    vcpu: vcpuFlag,
    memory: memoryFlag,
    "disk-size": diskSizeFlag,
    net: netFlag,
  },
  examples: [
    ["banger image warm", "for VMs of the default image and shape"],
    ["banger image warm debian-bookworm --vcpu 4 --memory 4G", "for larger ones"],
  ],
  run: async ({ args: [image], values }) => {
    using client = openClient();
    const { kernel, vcpu, memory, "disk-size": diskSize, net: network } = values;
    const request = Object.fromEntries(
      Object.entries({ image, kernel, vcpu, memory, diskSize, network }).filter(([, value]) => value !== undefined),
    );
    const made = await runOperation(client, "imageWarm", {}, request);
    return { text: `${made.image}: ready, ${formatSize(made.diskUsed)} on disk`, data: made };
  },
});
