/** Images as the API speaks of them, and as their manifest on disk holds them. Sizes are bytes, times milliseconds since 1970. */
import * as z from "zod/mini";
import { bundleOriginSchema, bundleSourceSchema } from "./bundles.ts";

const sha256 = z.string().check(z.regex(/^[0-9a-f]{64}$/));

const debianRecipe = z.strictObject({
  /** Built on the user's machine from Debian's signed packages; the recipe is a folder below `images/`. */
  type: z.literal("debian-recipe"),
  recipe: z.string().check(z.regex(/^[a-z0-9-]+$/)),
});

/** Where an image of the catalog comes from. */
export const imageSourceSchema = z.discriminatedUnion("type", [
  debianRecipe,
  /** An image of a registry, pinned: `docker.io/library/debian@sha256:…` */
  z.strictObject({ type: z.literal("oci"), reference: z.string() }),
  bundleSourceSchema,
]);
export type ImageSource = z.infer<typeof imageSourceSchema>;

/** Where an installed image came from. */
export const imageOriginSchema = z.discriminatedUnion("type", [
  debianRecipe,
  /** `digest` is the manifest's. */
  z.object({ type: z.literal("oci"), reference: z.string(), digest: z.string() }),
  /** A file or folder of the user's, or `-`; `digest` is the manifest's, or the archive's own. */
  z.object({ type: z.literal("import"), from: z.string(), digest: z.string() }),
  /** The user's own root file system, wherever it lies now. */
  z.object({ type: z.literal("file"), path: z.string() }),
  /** `container`: what was packed had been made for containers. */
  z.extend(bundleOriginSchema, { container: z.boolean() }),
]);
export type ImageOrigin = z.infer<typeof imageOriginSchema>;

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

const imageLayerSchema = z.object({ digest: z.string(), size: z.number() });

/** `manifest.json` of an installed image. */
export const imageManifestSchema = z.object({
  version: z.literal(1),
  name: z.string(),
  description: z.string(),
  rootfs: z.object({
    size: z.number(),
    sha256,
    uuid: z.string(),
    /** Of an unmanaged image: the user's own file, absolute. */
    path: z.optional(z.string()),
  }),
  source: imageOriginSchema,
  /** Of a recipe: sha256 over its own files, in hex. */
  recipeDigest: z.optional(sha256),
  /** Of a container image, the lowest first: digest and stored bytes. */
  layers: z.optional(z.array(imageLayerSchema)),
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
  source: imageOriginSchema,
  layers: z.array(imageLayerSchema),
  /** Banger has a copy of its own; otherwise it is the user's file. */
  managed: z.boolean(),
  packages: z.number(),
  createdAt: z.number(),
  /** Names of the VMs that use it. Only in `show`. */
  usedBy: z.optional(z.array(z.string())),
});
export type ImageInfo = z.infer<typeof imageInfoSchema>;

export const imageCatalogEntrySchema = z.strictObject({
  name: z.string(),
  description: z.string(),
  /** Tried in order. */
  sources: z.array(imageSourceSchema).check(z.minLength(1)),
});
export type ImageCatalogEntry = z.infer<typeof imageCatalogEntrySchema>;

export const imageCatalogSchema = z.strictObject({ version: z.literal(1), images: z.array(imageCatalogEntrySchema) });

/** Whether an image was made for containers: a system is not started in it. */
export const isContainer = (source: ImageOrigin): boolean =>
  source.type === "oci" || source.type === "import" || (source.type === "bundle" && source.container);

/** `recipe.json` in a recipe's folder. A `customize.sh` beside it is run as root, with the root folder and the recipe's folder. */
export const recipeSchema = z.strictObject({
  version: z.literal(1),
  /** Code name of the Debian release. */
  suite: z.string(),
  /** Besides Debian's essential packages and apt. */
  packages: z.array(z.string().check(z.regex(/^[a-z0-9][a-z0-9+.-]+$/))),
  /** Programs that Debian has not: files of npm packages, each with its place in the image. */
  npm: z.optional(
    z.array(
      z.strictObject({
        name: z.string().check(z.regex(/^(?:@[a-z0-9-]+\/)?[a-z0-9-]+$/)),
        version: z.string().check(z.regex(/^[0-9][0-9A-Za-z.-]*$/)),
        /** Of the package's archive, as npm writes it. */
        integrity: z.string().check(z.regex(/^sha512-[A-Za-z0-9+/]{86}==$/)),
        /** Path in the package -> path in the image, without a slash in front; executable there. */
        files: z.record(z.string(), z.string().check(z.regex(/^[a-z0-9]+(?:\/[A-Za-z0-9_-]+)+$/))),
      }),
    ),
  ),
  /** dpkg options of the image, kept in it: which paths are left out. */
  dpkgOptions: z.array(z.string()),
  init: z.nullable(z.string()),
  boot: imageBootSchema,
});
export type Recipe = z.infer<typeof recipeSchema>;

/** A catalog entry as `available` lists it. */
export const availableSchema = z.object({ name: z.string(), description: z.string(), installed: z.boolean() });
export type Available = z.infer<typeof availableSchema>;

/**
 * Docker's config file (absolute) with whose credentials registries are asked: that of the caller, whose DOCKER_CONFIG the daemon does not know.
 * Only the path travels; the daemon, which runs as the same user, reads it when a registry asks for credentials.
 */
export const dockerConfigSchema = z.string().check(z.regex(/^\//, "must be an absolute path"));

export const pullImageSchema = z.strictObject({ name: z.string(), dockerConfig: z.optional(dockerConfigSchema) });
export type PullImage = z.infer<typeof pullImageSchema>;

/** `image import`: the file, folder or DATA of the stream that holds the image. */
export const importImageSchema = z.strictObject({
  /** Absolute; absent: what the client sends. */
  path: z.optional(z.string()),
  /** Absent: as it is called where it comes from. */
  name: z.optional(z.string()),
  /** Which of several images. */
  ref: z.optional(z.string()),
});
export type ImportImage = z.infer<typeof importImageSchema>;

/** `image register`: an ext4 file system that stays where it is. */
export const registerImageSchema = z.strictObject({
  name: z.string(),
  /** Absolute. */
  rootfs: z.string(),
  description: z.optional(z.string()),
});
export type RegisterImage = z.infer<typeof registerImageSchema>;

export const pruneImagesSchema = z.strictObject({
  /** Only tells what would go. */
  dryRun: z.boolean(),
  /** Images that no VM uses, too. */
  images: z.boolean(),
});
export type PruneImages = z.infer<typeof pruneImagesSchema>;

export const prunedImagesSchema = z.object({
  /** Downloaded layers: how many, and their bytes on disk. */
  blobs: z.number(),
  blobBytes: z.number(),
  images: z.array(z.object({ name: z.string(), diskUsed: z.number() })),
});
export type PrunedImages = z.infer<typeof prunedImagesSchema>;
