import { resolve } from "node:path";
import { openClient } from "../../client/client.ts";
import type { ImageInfo } from "../../contract/images.ts";
import { defineCommand } from "../command.ts";
import { text } from "../flags/values.ts";
import { interruptible } from "../interrupt.ts";
import { usage } from "../parse.ts";
import { progressDisplay } from "../render/progress.ts";
import { stdinIsTerminal } from "../terminal.ts";

export const command = defineCommand({
  usage: ["SOURCE [--name NAME] [--ref REF]"],
  description:
    "SOURCE is an OCI layout (a folder or an archive of one), what `docker save` writes, or the tar archive of a root\nfile system, packed with gzip, zstd or not at all; `-` is standard input.",
  args: [{ name: "SOURCE", help: "a file, a folder, or `-`" }],
  argv: "none",
  flags: {
    name: { kind: "value", placeholder: "NAME", help: "what to call it; default: as it is called there", parse: text },
    ref: { kind: "value", placeholder: "REF", help: "which of several images: a tag or a name", parse: text },
  },
  examples: [
    ["docker save my-app | banger image import -", "an image that Docker has built"],
    ["banger image import ./layout --ref latest --name my-app", "one of an OCI layout's images"],
    ["tar -C rootfs -c . | banger image import - --name my-system", "a folder that is a root file system"],
  ],
  run: async ({ args: [source = ""], values }) => {
    const isStdin = source === "-";
    if (isStdin && stdinIsTerminal())
      throw usage("image import", "there is nothing on standard input", "docker save IMAGE | banger image import -");
    using interrupt = interruptible();
    using display = progressDisplay();
    using client = openClient();
    const request = {
      ...(isStdin ? {} : { path: resolve(source) }),
      ...(values.name === undefined ? {} : { name: values.name }),
      ...(values.ref === undefined ? {} : { ref: values.ref }),
    };
    const onEvent = ({ progress }: { progress?: Parameters<typeof display.report>[0] | undefined }) => {
      if (progress) display.report(progress);
    };
    const stream = await client.stream("imageImport", {}, request, { onEvent, signal: interrupt.signal });
    stream.stdout.resume();
    stream.stderr.resume();
    // The daemon may have heard enough before all has been sent.
    stream.stdin.on("error", () => process.stdin.unpipe());
    if (isStdin) process.stdin.pipe(stream.stdin);
    else stream.stdin.end();
    try {
      const { ok } = (await stream.closed) as { ok: ImageInfo };
      return { text: ok.name, data: ok };
    } finally {
      process.stdin.unpipe().pause();
    }
  },
});
