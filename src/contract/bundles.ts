/** Bundles: an image or a kernel packed into one file, `tar.zst`, that a catalog pins by its digest. */
import * as z from "zod/mini";

const sha256 = z.string().check(z.regex(/^[0-9a-f]{64}$/, "must be 64 hex digits"));
const bytes = z.number().check(z.int(), z.positive());

/** A bundle in a catalog. Its name holds its digest, so that what lies at an address never changes. */
export const bundleSourceSchema = z
  .strictObject({
    type: z.literal("bundle"),
    /** `file:`, `http:` or `https:`; ends with `-SHA256.tar.zst`. */
    url: z.string().check(
      z.refine((url) => {
        const protocol = URL.parse(url)?.protocol ?? "";
        return ["file:", "http:", "https:"].includes(protocol);
      }, "must be a file:, http: or https: address"),
    ),
    sha256,
    /** Of the bundle; no more is downloaded. */
    size: bytes,
    /** Of all files in it together; no more is unpacked. */
    unpacked: bytes,
  })
  .check(
    z.refine(
      ({ url, sha256 }) => URL.parse(url)?.pathname.endsWith(`-${sha256}.tar.zst`) ?? false,
      "the address must end with -SHA256.tar.zst, of the same digest",
    ),
  );
export type BundleSource = z.infer<typeof bundleSourceSchema>;

/** Where what is installed came from. */
export const bundleOriginSchema = z.object({ type: z.literal("bundle"), url: z.string(), sha256 });
