/** Which mirror of Debian's archive to use: the configured one, else the one this machine's own apt uses. */
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { BangerError, errnoOf } from "../contract/errors.ts";
import { exists, readFileIfThere } from "../host/files.ts";
import { type AptSource, parseDeb822, parseOneLine, renderDeb822 } from "./sources.ts";

export type Mirror = {
  /** Tells this mirror's caches from those of others. */
  key: string;
  /** Its URLs, for messages. */
  label: string;
  /** Release, updates and security of one suite. */
  sources: AptSource[];
};

export type MirrorChoice = {
  /** `debian_mirror` of the config: the archive's URL, optionally a space and the URL of the security archive. */
  mirror?: string | undefined;
  /** Code name of the release wanted: `bookworm`. */
  suite: string;
  /** The machine's apt configuration. */
  aptFolder?: string | undefined;
  osRelease?: string | undefined;
  /** Debian's own keys. */
  keyring?: string | undefined;
};

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const SET_MIRROR = 'set debian_mirror = "URL of a Debian mirror" in config.toml (`banger config path` names the file)';

/**
 * Chooses the mirror.
 * @throws MIRROR_UNREACHABLE when neither the config nor the machine names one
 * @throws TOOL_MISSING when Debian's keys are not installed
 */
export const chooseMirror = async (choice: MirrorChoice): Promise<Mirror> => {
  const keyring = choice.keyring ?? KEYRING;
  const sources = choice.mirror
    ? configured(choice.mirror, choice.suite)
    : await ofThisMachine(choice.suite, choice.aptFolder ?? "/etc/apt", choice.osRelease ?? "/etc/os-release");
  const signed: AptSource[] = [];
  for (const source of sources) signed.push({ ...source, signedBy: source.signedBy ?? (await needKeyring(keyring)) });
  return {
    key: createHash("sha256").update(renderDeb822(signed)).digest("hex").slice(0, 16),
    label: [...new Set(signed.flatMap((source) => source.uris))].join(" "),
    sources: signed,
  };
};

const needKeyring = async (keyring: string): Promise<string> => {
  if (await exists(keyring)) return keyring;
  throw new BangerError("TOOL_MISSING", `Debian's archive keys are not installed (${keyring})`, {
    hint: "install them: sudo apt-get install -y debian-archive-keyring",
    details: { package: "debian-archive-keyring" },
  });
};

const configured = (mirror: string, suite: string): AptSource[] => {
  const [archive = "", security, ...more] = mirror.trim().split(/\s+/);
  for (const url of [archive, security]) {
    if (url === undefined || /^(?:https?|file):\/\/\S+$/.test(url)) continue;
    throw new BangerError("INVALID_CONFIG", `debian_mirror: ${JSON.stringify(url)} is not a URL of a mirror`, {
      hint: SET_MIRROR,
    });
  }
  if (more.length > 0) {
    throw new BangerError(
      "INVALID_CONFIG",
      "debian_mirror takes the archive's URL and at most the security archive's",
      {
        hint: SET_MIRROR,
      },
    );
  }
  const base = archive.replace(/\/+$/, "");
  const plain = { components: ["main"], signedBy: undefined };
  return [
    { uris: [base], suites: [suite, `${suite}-updates`], ...plain },
    // Debian's layout: the security archive lies beside the main one, under the same name with this ending.
    { uris: [security?.replace(/\/+$/, "") ?? `${base}-security`], suites: [`${suite}-security`], ...plain },
  ];
};

const ofThisMachine = async (suite: string, aptFolder: string, osRelease: string): Promise<AptSource[]> => {
  const os = await readFileIfThere(osRelease);
  const isDebian = /^ID="?debian"?$/m.test(os ?? "");
  const codename = /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(os ?? "")?.[1];
  const sources = await readSources(aptFolder);
  const chosen = (["", "-updates", "-security"] as const).flatMap((pocket): AptSource[] => {
    const best = bestSource(sources, pocket, codename, isDebian);
    return best ? [{ ...best, suites: [suite + pocket], components: ["main"] }] : [];
  });
  const [release] = chosen;
  if (release?.suites[0] === suite) return chosen;
  throw new BangerError("MIRROR_UNREACHABLE", "this machine's apt configuration names no Debian mirror", {
    hint: SET_MIRROR,
  });
};

const readSources = async (aptFolder: string): Promise<AptSource[]> => {
  const parts = join(aptFolder, "sources.list.d");
  const files = [join(aptFolder, "sources.list"), ...(await namesIn(parts)).sort().map((name) => join(parts, name))];
  const sources: AptSource[] = [];
  for (const file of files) {
    const parse = file.endsWith(".sources") ? parseDeb822 : file.endsWith(".list") ? parseOneLine : undefined;
    if (parse) sources.push(...parse((await readFileIfThere(file)) ?? ""));
  }
  return sources;
};

const namesIn = async (folder: string): Promise<string[]> => {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
};

/** Suites that a Debian machine may name its own release by. */
const ALIASES = new Set(["stable", "oldstable", "oldoldstable", "testing"]);

/**
 * The source that most likely is Debian's own archive: other vendors, too, have suites called `bookworm` or `stable`,
 * with a component called `main`. A wrong guess is refused by its signature, never used.
 */
const bestSource = (
  sources: readonly AptSource[],
  pocket: "" | "-updates" | "-security",
  codename: string | undefined,
  isDebian: boolean,
): AptSource | undefined => {
  let best: AptSource | undefined;
  let bestScore = -1;
  for (const source of sources) {
    const uris = source.uris.filter((uri) => /^(?:https?|file|mirror\+(?:https?|file)):/.test(uri));
    const ownKey = source.signedBy?.includes("debian-archive") ?? false;
    if (uris.length === 0 || !source.components.includes("main")) continue;
    if (!ownKey && (source.signedBy !== undefined || !isDebian)) continue;
    for (const suite of source.suites) {
      const base = releaseOf(suite, pocket);
      if (base === undefined || !(base === codename || ALIASES.has(base) || ownKey)) continue;
      const score =
        (ownKey ? 4 : 0) + (base === codename ? 2 : 0) + (uris.some((uri) => uri.includes("debian")) ? 1 : 0);
      if (score > bestScore) [best, bestScore] = [{ ...source, uris }, score];
    }
  }
  return best;
};

/** `bookworm` of `bookworm-security` when the pocket asked for is `-security`; undefined for another pocket. */
const releaseOf = (suite: string, pocket: string): string | undefined => {
  const name = suite.replace(/\/updates$/, "-security").replace(/\/+$/, "");
  if (pocket === "") return /^[a-z]+$/.test(name) ? name : undefined;
  const base = name.endsWith(pocket) ? name.slice(0, -pocket.length) : "";
  return /^[a-z]+$/.test(base) ? base : undefined;
};
