/** The git folder that the guest gets: made of files, so that the guest needs no git for it. */
import { readFile } from "node:fs/promises";
import { readFileIfThere } from "../host/files.ts";
import { raw, type Setting } from "./git.ts";
import type { History } from "./history.ts";
import type { State } from "./state.ts";
import { BASE_INDEX, BASE_REF } from "./manifest.ts";

export type SmallFile = { /** Below the repository's root. */ path: string; data: Uint8Array; mode: number };

/** Settings of the user's that decide how a commit looks and how files are compared. */
const copied = [
  "user.name",
  "user.email",
  "core.autocrlf",
  "core.eol",
  "core.filemode",
  "core.symlinks",
  "core.ignorecase",
  "core.sparsecheckout",
  "core.sparsecheckoutcone",
  "init.defaultbranch",
];

const file = (path: string, text: string): SmallFile => ({ path, data: Buffer.from(text, "latin1"), mode: 0o644 });

/** A password in an address stays on the host. */
const withoutSecret = (url: string): string =>
  url.replace(/^([a-z][a-z0-9+.-]*:\/\/)([^/@]*)@/i, (_, scheme: string, user: string) => {
    const [name = ""] = user.split(":");
    return user.includes(":") || /^https?:/i.test(scheme) ? scheme : `${scheme}${name}@`;
  });

/** @param withIndex the guest's index too @returns everything of `.git` but the pack */
export const gitFiles = async (state: State, history: History, withIndex: boolean): Promise<SmallFile[]> => {
  const { commit, branch, base } = state;
  const reference = branch === undefined ? undefined : `refs/heads/${raw(branch)}`;
  const upstream = await upstreamOf(state);
  const sparse = await readFileIfThere(state.repository.files.sparseCheckout);
  return [
    file("HEAD", reference === undefined ? `${commit ?? base}\n` : `ref: ${reference}\n`),
    file("config", configOf(state)),
    ...(reference !== undefined && commit !== undefined ? [file(reference, `${commit}\n`)] : []),
    ...(upstream ? [file(`refs/remotes/${upstream.name}`, `${upstream.oid}\n`)] : []),
    file(BASE_REF, `${base}\n`),
    // The file must be there for git to see a repository.
    file("refs/.keep", ""),
    file("objects/info/.keep", ""),
    ...(history.shallow.length > 0 ? [file("shallow", `${history.shallow.join("\n")}\n`)] : []),
    ...(state.worktree && sparse !== undefined ? [file("info/sparse-checkout", raw(sparse))] : []),
    ...(withIndex ? [{ path: "index", data: await readFile(state.indexFile), mode: 0o644 }] : []),
    { path: BASE_INDEX, data: await readFile(state.baseIndexFile), mode: 0o644 },
  ];
};

/** The branch that the host's is compared with, where its commit travels. */
const upstreamOf = async ({ repository, commit }: State): Promise<{ name: string; oid: string } | undefined> => {
  const { git } = repository;
  const [name, oid] = await Promise.all([
    git.ask(["rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}"]),
    git.ask(["rev-parse", "--verify", "--quiet", "@{upstream}^{commit}"]),
  ]);
  return name !== undefined && oid !== undefined && oid === commit ? { name: raw(name), oid } : undefined;
};

/**
 * Stat data of the index hold in the guest by size and seconds alone: its files have other inodes, owners and change times, and without this the
 * first `git status` would read every file.
 */
const ours: readonly Setting[] = [
  ["core.bare", "false"],
  ["core.logallrefupdates", "true"],
  ["core.checkstat", "minimal"],
  ["core.trustctime", "false"],
];

const configOf = ({ repository }: State): string => {
  const { objectFormat, promisor } = repository;
  const settings = new Map<string, string>();
  const fetches: Setting[] = [];
  for (const [key, value] of repository.settings) {
    if (copied.includes(key) || /^submodule\..*\.active$/s.test(key) || /^branch\..*\.merge$/s.test(key))
      settings.set(key, value);
    if (/^remote\..*\.fetch$/s.test(key)) fetches.push([key, value]);
    if (/^(?:(?:remote|submodule)\..*\.url|branch\..*\.remote)$/s.test(key)) settings.set(key, withoutSecret(value));
  }
  // What it lacks, the guest's git asks the same place for.
  if (promisor !== undefined) settings.set(`remote.${promisor}.promisor`, "true");
  for (const [key, value] of ours) settings.set(key, value);
  settings.set("core.repositoryformatversion", objectFormat === "sha1" ? "0" : "1");
  if (objectFormat !== "sha1") settings.set("extensions.objectformat", objectFormat);
  return [...settings, ...fetches].map(([key, value]) => setting(key, value)).join("");
};

const quoted = (text: string): string =>
  `"${text.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n").replace(/\t/g, "\\t")}"`;

/** `section.sub.section.name` as lines of a config file. */
const setting = (key: string, value: string): string => {
  const first = key.indexOf(".");
  const last = key.lastIndexOf(".");
  const section = first === last ? key.slice(0, first) : `${key.slice(0, first)} ${quoted(key.slice(first + 1, last))}`;
  return `[${section}]\n\t${key.slice(last + 1)} = ${quoted(value)}\n`;
};
