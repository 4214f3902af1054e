/** An image of one program, in the form of `docker save`. */
import { createHash } from "node:crypto";
import { tar } from "./tar-builder.ts";

const sha256 = (bytes: Buffer | string) => createHash("sha256").update(bytes).digest("hex");

/**
 * @param name with its tag
 * @param path of the program in the image, absolute; its entrypoint
 */
export const dockerArchive = (name: string, path: string, program: Buffer): Buffer => {
  const layer = tar([{ name: path.slice(1), mode: 0o755, data: program }]);
  const config = JSON.stringify({
    architecture: "amd64",
    os: "linux",
    config: { Entrypoint: [path] },
    rootfs: { type: "layers", diff_ids: [`sha256:${sha256(layer)}`] },
  });
  const manifest = [{ Config: `${sha256(config)}.json`, RepoTags: [name], Layers: ["layer.tar"] }];
  return tar([
    { name: `${sha256(config)}.json`, data: config },
    { name: "layer.tar", data: layer },
    { name: "manifest.json", data: JSON.stringify(manifest) },
  ]);
};
