/** Digests as OCI writes them: `sha256:` and 64 hex digits. */
import { createHash, type Hash } from "node:crypto";

export type Digest = { algorithm: "sha256" | "sha512"; hex: string };

const DIGEST = /^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

/** Undefined for what is none; safe as a part of a path then. */
export const parseDigest = (text: string): Digest | undefined => {
  if (!DIGEST.test(text)) return undefined;
  return { algorithm: text.startsWith("sha256") ? "sha256" : "sha512", hex: text.slice(7) };
};

export const isDigest = (text: string): boolean => DIGEST.test(text);

/** @param digest a valid one */
export const hasherOf = (digest: string): Hash => createHash(digest.startsWith("sha512") ? "sha512" : "sha256");

/** The digest of some bytes, by the algorithm of another one. */
export const digestOf = (bytes: Uint8Array, like = "sha256:"): string => {
  const hash = hasherOf(like);
  return `${like.slice(0, 6)}:${hash.update(bytes).digest("hex")}`;
};

/** `sha256:0123456789ab`, enough to tell blobs apart in a message. */
export const shortDigest = (digest: string): string => digest.slice(0, 19);
