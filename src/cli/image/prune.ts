import { openClient } from "../../client/client.ts";
import { formatSize } from "../../contract/names.ts";
import { defineCommand } from "../command.ts";
import { forceFlag } from "../flags/force.ts";
import { runOperation } from "../operation.ts";
import { say } from "../render/output.ts";

export const command = defineCommand({
  usage: ["[--images] [-f]"],
  description:
    "Downloaded layers are kept so that images that share them need not fetch them again. Without -f it only tells what\nwould go.",
  args: [],
  argv: "none",
  flags: {
    images: { kind: "switch", help: "images that no VM uses, too" },
    force: { ...forceFlag, help: "do it" },
  },
  examples: [
    ["banger image prune", "what would go?"],
    ["banger image prune -f", "remove downloaded layers"],
    ["banger image prune --images -f", "and every image that no VM uses"],
  ],
  run: async ({ values: { images, force } }) => {
    using client = openClient();
    const pruned = await runOperation(client, "imagePrune", {}, { dryRun: !force, images });
    const lines = [
      `${pruned.blobs} downloaded layers  ${formatSize(pruned.blobBytes)}`,
      ...pruned.images.map(({ name, diskUsed }) => `image ${name}  ${formatSize(diskUsed)}`),
    ];
    if (!force) await say(`this would go; to remove it: banger image prune${images ? " --images" : ""} -f`);
    return { data: pruned, text: lines.join("\n") };
  },
});
