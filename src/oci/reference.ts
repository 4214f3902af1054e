/** References to images in a registry, as Docker writes and shortens them. */
import { BangerError } from "../contract/errors.ts";
import { quoted } from "../contract/names.ts";
import { isDigest } from "./digest.ts";

export type Reference = {
  /** Host, and port where one is named: `docker.io`, `localhost:5000`. */
  registry: string;
  /** `library/alpine` */
  repository: string;
  tag: string | undefined;
  digest: string | undefined;
  /** The shortest way to write it: `alpine:3.20`. */
  name: string;
};

const DEFAULT_REGISTRY = "docker.io";
/** Docker Hub's older name, which still works. */
const INDEX = "index.docker.io";

const PART = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const REPOSITORY = new RegExp(`^${PART}(?:/${PART})*$`);
const TAG = /^\w[\w.-]{0,127}$/;
const HOST =
  /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/;
const MOST_REPOSITORY = 255;

/**
 * `alpine`, `alpine:3.20`, `ghcr.io/org/app@sha256:…`, `localhost:5000/app`
 * @returns undefined for what is no reference
 */
export const parseReference = (text: string): Reference | undefined => {
  const at = text.indexOf("@");
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest)) return undefined;
  const before = at < 0 ? text : text.slice(0, at);
  const colon = before.lastIndexOf(":");
  const hasTag = colon > before.lastIndexOf("/");
  const given = hasTag ? before.slice(colon + 1) : undefined;
  if (given !== undefined && !TAG.test(given)) return undefined;
  const full = hasTag ? before.slice(0, colon) : before;
  const slash = full.indexOf("/");
  const first = slash < 0 ? "" : full.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase();
  if (isHost && !HOST.test(first)) return undefined;
  const host = isHost ? first.toLowerCase() : DEFAULT_REGISTRY;
  const registry = host === INDEX ? DEFAULT_REGISTRY : host;
  const rest = isHost ? full.slice(slash + 1) : full;
  const repository = registry === DEFAULT_REGISTRY && !rest.includes("/") ? `library/${rest}` : rest;
  if (!REPOSITORY.test(repository) || registry.length + repository.length > MOST_REPOSITORY) return undefined;
  const tag = given ?? (digest === undefined ? "latest" : undefined);
  return { registry, repository, tag, digest, name: nameOf(registry, repository, tag, digest) };
};

const nameOf = (registry: string, repository: string, tag: string | undefined, digest: string | undefined): string => {
  const host = registry === DEFAULT_REGISTRY ? "" : `${registry}/`;
  const path = host === "" ? repository.replace(/^library\/(?=[^/]+$)/, "") : repository;
  // A tag beside a digest says nothing more.
  return digest === undefined ? `${host}${path}:${tag}` : `${host}${path}@${digest}`;
};

/** @throws USAGE */
export const checkReference = (text: string): Reference => {
  const reference = parseReference(text);
  if (reference) return reference;
  throw new BangerError("USAGE", `${quoted(text)} is no name of an image`, {
    hint: "write it as in alpine:3.20, ghcr.io/owner/app:tag or alpine@sha256:DIGEST",
  });
};
