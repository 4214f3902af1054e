/** Manifests, indexes and configs of images: OCI's and Docker's, which differ in names only. Whatever a registry sends is checked here. */
import * as z from "zod/mini";
import { BangerError } from "../contract/errors.ts";
import { isDigest } from "./digest.ts";

export const mediaTypes = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
} as const;

/** Most bytes of a manifest or an index: what Docker takes too. */
export const MOST_MANIFEST = 4 * 2 ** 20;
/** Most bytes of a config. */
export const MOST_CONFIG = 8 * 2 ** 20;
const MOST_LAYERS = 1000;
/** An index may name another. */
export const MOST_INDEXES = 3;

const text = z.string().check(z.maxLength(4096));
const platformSchema = z.object({
  os: text,
  architecture: text,
  variant: z.optional(text),
});
const descriptorSchema = z.object({
  mediaType: z.optional(text),
  digest: z.string().check(z.refine(isDigest, "must be a digest")),
  size: z.number().check(z.int(), z.minimum(0), z.maximum(2 ** 50)),
  annotations: z.nullish(z.record(z.string(), z.string())),
});
export type Descriptor = z.infer<typeof descriptorSchema>;

const indexSchema = z.object({
  manifests: z.array(z.extend(descriptorSchema, { platform: z.nullish(platformSchema) })).check(z.maxLength(10_000)),
});
export type Index = z.infer<typeof indexSchema>;

const manifestSchema = z.object({
  config: descriptorSchema,
  layers: z.array(descriptorSchema).check(z.maxLength(MOST_LAYERS, `must have at most ${MOST_LAYERS} layers`)),
});
export type Manifest = z.infer<typeof manifestSchema>;

const strings = z.nullish(z.array(z.string()));
const configSchema = z.object({
  os: z.nullish(text),
  architecture: z.nullish(text),
  variant: z.nullish(text),
  config: z.nullish(
    z.object({
      Env: strings,
      User: z.nullish(z.string()),
      WorkingDir: z.nullish(z.string()),
      Entrypoint: strings,
      Cmd: strings,
      StopSignal: z.nullish(z.string()),
      Labels: z.nullish(z.record(z.string(), z.string())),
    }),
  ),
  rootfs: z.nullish(z.object({ diff_ids: z.array(z.string().check(z.refine(isDigest, "must be a digest"))) })),
});
export type ImageConfig = z.infer<typeof configSchema>;

const invalid = (what: string, why: string): BangerError =>
  new BangerError("IMAGE_REFUSED", `${what} is no manifest of a container image: ${why}`, {
    hint: "ask whoever made it; or name another image",
  });

const parse = <T>(schema: z.ZodMiniType<T>, data: unknown, what: string): T => {
  const parsed = z.safeParse(schema, data);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw invalid(what, `\`${issue?.path.map(String).join(".") ?? ""}\` ${issue?.message ?? "is not valid"}`);
};

export const parseJson = (bytes: Uint8Array, what: string): unknown => {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw invalid(what, `it is no JSON (${error instanceof Error ? error.message.slice(0, 200) : error})`);
  }
};

/**
 * What a manifest's bytes are, by their shape: the media type may be missing or lie.
 * @throws IMAGE_REFUSED
 */
export const parseManifest = (bytes: Uint8Array, what: string): { index: Index } | { manifest: Manifest } => {
  const data = parseJson(bytes, what);
  if (typeof data !== "object" || data === null) throw invalid(what, "it is no object");
  if ("schemaVersion" in data && data.schemaVersion === 1)
    throw invalid(what, "it is of Docker's first format, which has not been made for years");
  if ("manifests" in data && "layers" in data) throw invalid(what, "it is a list and a manifest at once");
  if ("manifests" in data) return { index: parse(indexSchema, data, what) };
  const manifest = parse(manifestSchema, data, what);
  const type = manifest.config.mediaType ?? "";
  if (type !== "" && !/^application\/vnd\.(?:oci\.image\.config|docker\.container\.image)\.v1\+json$/.test(type))
    throw invalid(what, `it is ${JSON.stringify(type)}`);
  for (const { mediaType = "" } of manifest.layers)
    if (mediaType.includes("encrypted")) throw invalid(what, "its layers are encrypted");
  return { manifest };
};

/** @throws IMAGE_REFUSED */
export const parseConfig = (bytes: Uint8Array, what: string): ImageConfig =>
  parse(configSchema, parseJson(bytes, what), `the config of ${what}`);

export type Platform = { os: string; architecture: string };
export const hostPlatform: Platform = { os: "linux", architecture: "amd64" };

const platformName = ({ os, architecture, variant }: z.infer<typeof platformSchema>): string =>
  `${os}/${architecture}${variant ? `/${variant}` : ""}`;

/** Of x86-64's levels the lowest: it runs everywhere. */
const rank = ({ variant }: { variant?: string | undefined }): number =>
  variant ? Number(variant.replace(/\D/g, "") || 9) : 0;

/**
 * The manifest for a platform; one that names no platform stands for any, when it is alone.
 * @throws IMAGE_PLATFORM that names those that there are
 */
export const choosePlatform = ({ manifests }: Index, wanted: Platform, what: string): Descriptor => {
  const fitting = manifests.filter(
    ({ platform }) => platform?.os === wanted.os && platform.architecture === wanted.architecture,
  );
  const [best] = fitting.sort((a, b) => rank(a.platform ?? {}) - rank(b.platform ?? {}));
  if (best) return best;
  const [only, ...others] = manifests.filter(({ platform }) => !platform);
  if (only && others.length === 0) return only;
  const there = [
    ...new Set(
      manifests.flatMap(({ platform }) => (platform && platform.os !== "unknown" ? platformName(platform) : [])),
    ),
  ];
  throw wrongPlatform(what, wanted, there);
};

const wrongPlatform = (what: string, wanted: Platform, there: readonly string[]): BangerError =>
  new BangerError("IMAGE_PLATFORM", `${what} is not made for ${wanted.os}/${wanted.architecture}`, {
    hint:
      there.length > 0
        ? `it is made for ${there.join(", ")}; look for another tag or image`
        : "look for another tag or image",
    details: { platforms: there },
  });

/** @throws IMAGE_PLATFORM when the config says that the image is for another one */
export const checkPlatform = ({ os, architecture }: ImageConfig, wanted: Platform, what: string): void => {
  if ((os ?? wanted.os) === wanted.os && (architecture ?? wanted.architecture) === wanted.architecture) return;
  throw wrongPlatform(what, wanted, [`${os}/${architecture}`]);
};
