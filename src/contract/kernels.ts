/** Kernels as the API speaks of them, and as their manifest on disk holds them. Sizes are bytes, times milliseconds since 1970. */
import * as z from "zod/mini";
import { dockerConfigSchema } from "./images.ts";
import { bundleOriginSchema, bundleSourceSchema } from "./bundles.ts";
import { isName } from "./names.ts";

const fileRecordSchema = z.object({
  /** Path below the kernel's folder. */
  path: z.string(),
  size: z.number(),
  /** sha256 in hex. */
  sha256: z.string().check(z.regex(/^[0-9a-f]{64}$/)),
});

const debianPackageSchema = z.strictObject({
  type: z.literal("debian-package"),
  /** Code name of the release: `bookworm`. */
  suite: z.string(),
  /** A `linux-image-…` package, or a meta package that depends on one. */
  package: z.string(),
});

export const kernelSourceSchema = z.discriminatedUnion("type", [
  debianPackageSchema,
  bundleSourceSchema,
  /** An image of a registry that holds a kernel, pinned: `ghcr.io/owner/kernel@sha256:…` */
  z.strictObject({ type: z.literal("oci"), reference: z.string() }),
]);
export type KernelSource = z.infer<typeof kernelSourceSchema>;

/** Where an installed kernel came from. */
export const kernelOriginSchema = z.discriminatedUnion("type", [
  debianPackageSchema,
  bundleOriginSchema,
  /** `digest` is the manifest's. */
  z.strictObject({ type: z.literal("oci"), reference: z.string(), digest: z.string() }),
  /** A file or folder of the user's. */
  z.strictObject({ type: z.literal("import"), from: z.string() }),
]);
export type KernelOrigin = z.infer<typeof kernelOriginSchema>;

/** `manifest.json` of an installed kernel. */
export const kernelManifestSchema = z.object({
  version: z.literal(1),
  name: z.string(),
  description: z.string(),
  /** As `uname -r` tells it. */
  release: z.string(),
  /** Package it came from, where it came from one. */
  package: z.optional(z.object({ name: z.string(), version: z.string(), sha256: z.string() })),
  source: kernelOriginSchema,
  /** The ELF kernel can be booted without firmware (PVH note). */
  pvh: z.boolean(),
  /** Names of the boot modules, in load order. */
  bootModules: z.array(z.string()),
  files: z.array(fileRecordSchema),
  /** Of vmlinux and boot modules together, in hex: one half of the initramfs key. */
  digest: z.string().check(z.regex(/^[0-9a-f]{64}$/)),
  createdAt: z.number(),
});
export type KernelManifest = z.infer<typeof kernelManifestSchema>;

export const kernelInfoSchema = z.object({
  name: z.string(),
  description: z.string(),
  release: z.string(),
  /** Absent where it came from no package. */
  packageVersion: z.optional(z.string()),
  source: kernelOriginSchema,
  digest: z.string(),
  pvh: z.boolean(),
  /** Of all files. */
  size: z.number(),
  /** What they occupy on the host. */
  diskUsed: z.number(),
  createdAt: z.number(),
});
export type KernelInfo = z.infer<typeof kernelInfoSchema>;

export const kernelCatalogEntrySchema = z.strictObject({
  name: z.string().check(z.refine(isName, "must be a name of a-z, 0-9 and -")),
  description: z.string(),
  /** Tried in order. */
  sources: z.array(kernelSourceSchema).check(z.minLength(1)),
});
export type KernelCatalogEntry = z.infer<typeof kernelCatalogEntrySchema>;

export const kernelCatalogSchema = z.strictObject({
  version: z.literal(1),
  kernels: z.array(kernelCatalogEntrySchema),
});

/** `kernel pull`: a kernel of the catalog, or one that an image of a registry holds. */
export const pullKernelSchema = z.strictObject({
  name: z.string(),
  /** The image; absent: `name` is of the catalog. */
  reference: z.optional(z.string()),
  dockerConfig: z.optional(dockerConfigSchema),
});
export type PullKernel = z.infer<typeof pullKernelSchema>;

/** `kernel import`: files of the user's, by absolute paths. */
export const importKernelSchema = z.strictObject({
  name: z.string().check(z.refine(isName, "must be a name of a-z, 0-9 and -")),
  /** A kernel (bzImage or ELF), a folder that holds one, or a bundle (`.tar.zst`). */
  path: z.string(),
  /** Folder of modules, `…/lib/modules/RELEASE`; absent for one beside the kernel, or none. */
  modules: z.optional(z.string()),
  description: z.optional(z.string()),
});
export type ImportKernel = z.infer<typeof importKernelSchema>;
