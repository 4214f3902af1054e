/** A private apt: own lists, cache, sources and (empty) package state in one folder, run as the present user. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../host/files.ts";
import { runTool } from "../host/process.ts";
import type { Mirror } from "./mirror.ts";
import { renderDeb822 } from "./sources.ts";

export type PrivateApt = {
  folder: string;
  lists: string;
  /** Whole and verified packages. */
  packages: string;
  /** Packages that are still on their way. */
  partial: string;
  /** Environment that makes apt's programs use this configuration, and speak English. */
  env: Record<string, string>;
  /** Lines of the machine's configuration about release dates: an image that uses the same mirror needs them too. */
  dateSettings: string[];
};

/** Seconds apt waits for a connection or for more bytes; with one more try this stays well under half a minute. */
const TIMEOUT = 8;

/**
 * What is taken over from the machine's apt: how to reach servers, and what its owner decided about release dates. Not its
 * hooks, which belong to the machine's package state.
 */
const HOST_SETTING =
  /^Acquire::(?:(?:http|https|ftp|tor)::(?!Timeout|Pipeline-Depth)|ForceIPv[46]\b|Check-Date\b|Check-Valid-Until\b|Max-ValidTime\b|Min-ValidTime\b)/i;

/**
 * Writes the configuration.
 * @param folder of this mirror's cache; made when missing
 */
export const preparePrivateApt = async (folder: string, mirror: Mirror, signal: AbortSignal): Promise<PrivateApt> => {
  const at = (...parts: string[]) => join(folder, ...parts);
  for (const part of ["lists/partial", "cache/archives/partial", "state", "log", "packages", "partial"]) {
    await mkdir(at(part), { recursive: true, mode: 0o700 });
  }
  for (const part of ["apt.conf.d", "preferences.d", "trusted.gpg.d", "sources.list.d"]) {
    await mkdir(at("etc", part), { recursive: true, mode: 0o700 });
  }
  const settings: [string, string][] = [
    ["Dir", "/"],
    ["Dir::State", at("state")],
    ["Dir::State::lists", `${at("lists")}/`],
    ["Dir::State::status", at("state", "status")],
    ["Dir::Cache", at("cache")],
    ["Dir::Cache::archives", `${at("cache", "archives")}/`],
    ["Dir::Log", at("log")],
    ["Dir::Etc", at("etc")],
    ["Dir::Etc::netrc", "/etc/apt/auth.conf"],
    ["Dir::Etc::netrcparts", "/etc/apt/auth.conf.d"],
    ["APT::Architecture", "amd64"],
    ["APT::Install-Recommends", "false"],
    ["APT::Get::Assume-Yes", "true"],
    // Every folder here is this user's own: no change to another user, which could not read it.
    ["APT::Sandbox::User", "root"],
    ["APT::Update::Error-Mode", "any"],
    ["Acquire::ForceHash", "SHA256"],
    ["Acquire::Languages", "none"],
    ["Acquire::Retries", "1"],
    ["Acquire::http::Timeout", String(TIMEOUT)],
    ["Acquire::https::Timeout", String(TIMEOUT)],
  ];
  const taken = await hostSettings(signal);
  const text = [...settings.map(([name, value]) => `${name} "${value}";`), ...taken, ""].join("\n");
  await writeFileAtomic(at("apt.conf"), text);
  await writeFileAtomic(at("state", "status"), "");
  await writeFileAtomic(at("etc", "sources.list.d", "debian.sources"), renderDeb822(mirror.sources));
  return {
    folder,
    lists: at("lists"),
    packages: at("packages"),
    partial: at("partial"),
    env: { APT_CONFIG: at("apt.conf"), LC_ALL: "C.UTF-8", LANGUAGE: "", DEBIAN_FRONTEND: "noninteractive" },
    dateSettings: taken.filter((line) => /^Acquire::(?:Check-|M..-ValidTime)/i.test(line)),
  };
};

const hostSettings = async (signal: AbortSignal): Promise<string[]> => {
  const { stdout } = await runTool({ argv: ["apt-config", "dump", "--no-empty", "--format", '%f "%v";%n'], signal });
  return stdout.split("\n").filter((line) => HOST_SETTING.test(line));
};
