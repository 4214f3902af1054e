/** The VMs that were saved so that others start from them. */
import type { Config } from "../../contract/config.ts";
import { formatSize } from "../../contract/names.ts";
import { bytesOnDisk, readFileIfThere } from "../../host/files.ts";
import { templateFiles, templatesFolder } from "../../host/paths.ts";
import { advise, type Check, pass, warn } from "./check.ts";
import { namesIn } from "./leftovers.ts";

type Told = { shape?: { image?: unknown; vcpu?: unknown; memory?: unknown } };

/** What the daemon's manifest of a template says, as far as a person wants to know; undefined where it says nothing. */
const describe = async (
  key: string,
): Promise<{ what: string | undefined; size: number; image: string | undefined }> => {
  const { manifest, memory, disk, state } = templateFiles(key);
  const sizes = await Promise.all([memory, disk, state].map((path) => bytesOnDisk(path).catch(() => 0)));
  const size = sizes.reduce((sum, bytes) => sum + bytes, 0);
  try {
    const { shape } = JSON.parse((await readFileIfThere(manifest)) ?? "") as Told;
    if (typeof shape?.image !== "string" || typeof shape.memory !== "number")
      return { what: undefined, size, image: undefined };
    return { what: `${shape.image} (${shape.vcpu} vcpu, ${formatSize(shape.memory)})`, size, image: shape.image };
  } catch {
    return { what: undefined, size, image: undefined };
  }
};

export const templatesCheck = ({ templates }: Config): Check => ({
  name: "templates",
  look: async () => {
    if (!templates.enabled) return pass("off in config.toml: every VM boots cold");
    const found = await Promise.all((await namesIn(templatesFolder())).map(describe));
    if (found.length === 0) return pass("none yet: made in the background after the first start of an image");
    const used = formatSize(found.reduce((sum, { size }) => sum + size, 0));
    const sound = found.flatMap(({ what }) => what ?? []);
    const list = `${found.length} of at most ${templates.maxCount}, ${used} of at most ${formatSize(templates.maxSize)}: ${sound.join(", ")}`;
    const damaged = found.length - sound.length;
    if (damaged === 0) return pass(list);
    return advise(
      warn(`${list}; ${damaged} cannot be read, and are passed over`),
      "start a VM of that kind: what cannot be read is then removed, and made anew",
    );
  },
});
