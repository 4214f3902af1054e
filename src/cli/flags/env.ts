import { BangerError } from "../../contract/errors.ts";
import { quoted } from "../../contract/names.ts";

/** One `K=V`; `K` alone takes the host's value, and nothing where the host has none. */
export type EnvSetting = { name: string; value: string | undefined };

const parseSetting = (text: string): EnvSetting => {
  const at = text.indexOf("=");
  const name = at < 0 ? text : text.slice(0, at);
  // A line break in a name would make two settings of it for whoever prints them.
  if (name === "" || /[\s\p{Cc}]/u.test(name)) {
    throw new BangerError("USAGE", `${quoted(text)} is not a valid environment setting`, {
      hint: "write NAME=VALUE, or NAME",
    });
  }
  return { name, value: at < 0 ? process.env[name] : text.slice(at + 1) };
};

export const envFlag = {
  kind: "list",
  short: "e",
  placeholder: "NAME[=VALUE]",
  help: "environment variable; NAME alone takes your own value",
  parse: parseSetting,
} as const;

/** The settings as one object, later ones first in rank. */
export const environmentOf = (settings: readonly EnvSetting[]): Record<string, string> =>
  Object.fromEntries(settings.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value] as const])));
