/** What the guest says it has of a workspace. It lies in the guest, so that it goes along with snapshots and forks of its disk; it is believed only as far as it decides what is sent. */
import type { State } from "./state.ts";

/** What changes in the guest are measured against. */
export const BASE_REF = "refs/banger/base";
/** In the guest's git folder: an index of that. */
export const BASE_INDEX = "banger-base-index";

/** How much of the history travels: some commits, all, or none (files only). */
export const workspaceModes = ["shallow", "full", "files"] as const;
export type WorkspaceMode = (typeof workspaceModes)[number];

export type RepositoryManifest = {
  commit?: string;
  base: string;
  branch?: string;
  shallow: string[];
  /** SHA-256 of the guest's index as it was sent. */
  index?: string;
};

export type Manifest = {
  version: 1;
  /** Another one each time that it is written. */
  id?: string;
  /** The guest may have part of this only: its sending was begun. */
  arriving: boolean;
  /** Nothing can be written there, by a mount of the guest's. Absent: that is not known. */
  readonly?: boolean;
  mode: WorkspaceMode;
  /** Of the host, where it came from. Absent: that is not known. */
  source?: string;
  /** By their folder below the root, `` for the root; one character a byte. */
  repositories: Record<string, RepositoryManifest>;
  /** `100644 OID` by path. */
  files: Record<string, string>;
};

/** What is on its way to a guest, while it is. */
export type Arriving = {
  /** `id` of the manifest that it leads on from; empty: of none. */
  replaces: string;
  /** `100644 OID` by path, of what is sent. */
  files: Record<string, string>;
  /** Where it leads on from none: what it will be, without its files. */
  first?: Manifest;
};

/** Where the guest keeps it, packed by gzip, and beside it what is on its way. */
export const manifestPath = (name: string): string => `/var/lib/banger/workspaces/${name}.json.gz`;
export const arrivingPath = (name: string): string => `/var/lib/banger/workspaces/${name}.arriving.json`;

/** @throws SyntaxError; undefined where it is nothing of the kind */
export const parseArriving = (text: string): Arriving | undefined => {
  const value = JSON.parse(text) as Partial<Arriving> | null;
  if (typeof value?.replaces !== "string" || typeof value.files !== "object" || !value.files) return undefined;
  const first = value.first && parseManifest(JSON.stringify(value.first));
  return { replaces: value.replaces, files: value.files, ...(first ? { first } : {}) };
};

/** @throws SyntaxError; undefined where it is of another version or no manifest */
export const parseManifest = (text: string): Manifest | undefined => {
  const value = JSON.parse(text) as Partial<Manifest> | null;
  if (value?.version !== 1 || typeof value.files !== "object" || typeof value.repositories !== "object")
    return undefined;
  if (!["string", "undefined"].includes(typeof value.source)) return undefined;
  if (!value.files || !value.repositories || !workspaceModes.some((mode) => mode === value.mode)) return undefined;
  for (const { base, commit = base, shallow } of Object.values(value.repositories))
    if (!isOid(base) || !isOid(commit) || !Array.isArray(shallow) || !shallow.every(isOid)) return undefined;
  return value as Manifest;
};

const isOid = (text: unknown): boolean => typeof text === "string" && /^[0-9a-f]{40}(?:[0-9a-f]{24})?$/.test(text);

export const manifestOf = (
  states: ReadonlyMap<string, State>,
  shallow: ReadonlyMap<string, string[]>,
  mode: WorkspaceMode,
): Manifest => {
  const repositories: Manifest["repositories"] = {};
  const files: Manifest["files"] = {};
  for (const [folder, { commit, base, branch, entries }] of states) {
    repositories[folder] = {
      ...(commit ? { commit } : {}),
      base,
      ...(branch === undefined ? {} : { branch }),
      shallow: shallow.get(folder) ?? [],
    };
    for (const { path, mode: bits, oid } of entries)
      if (bits !== "160000") files[below(folder, path)] = `${bits} ${oid}`;
  }
  return { version: 1, arriving: false, mode, repositories, files };
};

export const below = (folder: string, path: string): string => (folder === "" ? path : `${folder}/${path}`);
