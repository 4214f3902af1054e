/** Images as the API speaks of them, and as their manifest on disk holds them. Sizes are bytes, times milliseconds since 1970. */
import * as z from "zod/mini";

const sha256 = z.string().check(z.regex(/^[0-9a-f]{64}$/));

export const imageSourceSchema = z.discriminatedUnion("type", [
  /** Built on the user's machine from Debian's signed packages; the recipe is a folder below `images/`. */
  z.strictObject({ type: z.literal("debian-recipe"), recipe: z.string().check(z.regex(/^[a-z0-9-]+$/)) }),
]);
export type ImageSource = z.infer<typeof imageSourceSchema>;

/** How commands of the image are run when nothing else is asked for. */
export const imageBootSchema = z.object({
  env: z.record(z.string(), z.string()),
  user: z.string(),
  workdir: z.string(),
  /** Prefix and default of a command, as in an OCI image; empty where the image names none. */
  entrypoint: z.array(z.string()),
  command: z.array(z.string()),
});
export type ImageBoot = z.infer<typeof imageBootSchema>;

/** `manifest.json` of an installed image. */
export const imageManifestSchema = z.object({
  version: z.literal(1),
  name: z.string(),
  description: z.string(),
  rootfs: z.object({ size: z.number(), sha256, uuid: z.string() }),
  source: imageSourceSchema,
  /** sha256 over the recipe's own files, in hex. */
  recipeDigest: sha256,
  /** Path of the image's own init, null when it has none. */
  init: z.nullable(z.string()),
  boot: imageBootSchema,
  packages: z.array(z.object({ name: z.string(), version: z.string() })),
  createdAt: z.number(),
});
export type ImageManifest = z.infer<typeof imageManifestSchema>;

export const imageInfoSchema = z.object({
  name: z.string(),
  description: z.string(),
  /** sha256 of the root file system, in hex. */
  digest: z.string(),
  /** Of the root file system. */
  size: z.number(),
  /** What it occupies on the host. */
  diskUsed: z.number(),
  init: z.nullable(z.string()),
  boot: imageBootSchema,
  packages: z.number(),
  createdAt: z.number(),
});
export type ImageInfo = z.infer<typeof imageInfoSchema>;

export const imageCatalogSchema = z.strictObject({
  version: z.literal(1),
  images: z.array(
    z.strictObject({
      name: z.string(),
      description: z.string(),
      /** Tried in order. */
      sources: z.array(imageSourceSchema).check(z.minLength(1)),
    }),
  ),
});
export type ImageCatalogEntry = z.infer<typeof imageCatalogSchema>["images"][number];

/** `recipe.json` in a recipe's folder. A `customize.sh` beside it is run as root, with the root folder and the recipe's folder. */
export const recipeSchema = z.strictObject({
  version: z.literal(1),
  /** Code name of the Debian release. */
  suite: z.string(),
  /** Besides Debian's essential packages and apt. */
  packages: z.array(z.string().check(z.regex(/^[a-z0-9][a-z0-9+.-]+$/))),
  /** dpkg options of the image, kept in it: which paths are left out. */
  dpkgOptions: z.array(z.string()),
  init: z.nullable(z.string()),
  boot: imageBootSchema,
});
export type Recipe = z.infer<typeof recipeSchema>;

/** A catalog entry as `available` lists it. */
export const availableSchema = z.object({ name: z.string(), description: z.string(), installed: z.boolean() });
export type Available = z.infer<typeof availableSchema>;
