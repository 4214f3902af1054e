import type { ImageOrigin } from "../../contract/images.ts";
import { formatSize } from "../../contract/names.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { record, timestamp } from "../render/table.ts";
import { imageArgument } from "./shared.ts";

const argvText = (argv: readonly string[]): string | undefined => (argv.length > 0 ? JSON.stringify(argv) : undefined);

const sourceText = (source: ImageOrigin): string => {
  if (source.type === "oci") return `${source.reference} (${source.digest})`;
  if (source.type === "import") return `${source.from === "-" ? "standard input" : source.from} (${source.digest})`;
  if (source.type === "bundle") return source.url;
  return source.type === "file" ? source.path : `Debian recipe ${source.recipe}`;
};

export const command = defineCommand({
  usage: ["IMAGE"],
  args: [imageArgument],
  argv: "none",
  flags: {},
  examples: [["banger image show debian-bookworm", "what it holds"]],
  run: async ({ args: [name = ""] }) => {
    using client = openClient();
    const [image, templates] = await Promise.all([
      client.call("imageShow", { name }, {}),
      client.call("templateList", {}, {}),
    ]);
    const warm = templates.filter((template) => template.image === image.name);
    const text = record([
      ["name", image.name],
      ["description", image.description],
      ["source", sourceText(image.source)],
      ["managed", image.managed ? undefined : "no: the file is yours"],
      ["init", image.init ?? "none"],
      ["entrypoint", argvText(image.boot.entrypoint)],
      ["command", argvText(image.boot.command)],
      ["user", image.boot.user],
      ["workdir", image.boot.workdir],
      ...Object.entries(image.boot.env).map(([key, value]) => ["env", `${key}=${value}`] as const),
      ["packages", image.packages > 0 ? String(image.packages) : undefined],
      ...image.layers.map(({ digest, size }) => ["layer", `${digest}  ${formatSize(size)}`] as const),
      ["size", `${formatSize(image.size)}, ${formatSize(image.diskUsed)} on disk`],
      ["digest", `sha256:${image.digest}`],
      ...warm.map(
        ({ vcpu, memory, diskSize, network, diskUsed }) =>
          [
            "template",
            `${vcpu} vcpu, ${formatSize(memory)}, ${formatSize(diskSize)} disk, net ${network}: ${formatSize(diskUsed)} on disk`,
          ] as const,
      ),
      ["made", timestamp(image.createdAt)],
      ["used by", image.usedBy?.join(", ") || "no VM"],
    ]);
    return { data: { ...image, templates: warm }, text };
  },
});
