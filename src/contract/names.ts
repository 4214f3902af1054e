/** Names, sizes and references, with one rule each for CLI and daemon. */
import { BangerError } from "./errors.ts";

const NAME = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

export const isName = (text: string): boolean => NAME.test(text);

/** What somebody wrote, for an error: in quotes, and only the beginning of what is very long. */
export const quoted = (text: string): string => {
  const characters = [...text];
  if (characters.length <= 80) return JSON.stringify(text);
  return `${JSON.stringify(`${characters.slice(0, 60).join("")}…`)} (${characters.length} characters)`;
};

/**
 * @param what names the thing in the error: `VM name`
 * @throws USAGE when `text` is not 1 to 63 of `[a-z0-9-]` without a hyphen at either end
 */
export const checkName = (text: string, what: string): string => {
  if (isName(text)) return text;
  throw new BangerError("USAGE", `${quoted(text)} is not a valid ${what}`, {
    hint: "a name has 1 to 63 characters of a-z, 0-9 and `-`, and no `-` at either end",
  });
};

const units: Record<string, number> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/**
 * A size such as `512M`, `4G`, `4GiB` or `1073741824`, in bytes. Units are powers of 1024.
 * @throws USAGE on anything else, zero and negative sizes included
 */
export const parseSize = (text: string, what: string): number => {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?$/i.exec(text.trim());
  const bytes = match ? Math.round(Number(match[1]) * (units[match[2]?.toLowerCase() ?? ""] ?? 1)) : Number.NaN;
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new BangerError("USAGE", `${quoted(text)} is not a valid ${what}`, {
    hint: "give a size above zero such as 512M, 4G or 4GiB",
  });
};

/** `2147483648` as `2 GiB`; one decimal where it is needed. */
export const formatSize = (bytes: number): string => {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < names.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) || value >= 100 ? Math.round(value) : value.toFixed(1)} ${names[unit]}`;
};

const durationUnits: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `30s`, `15m`, `2h` in milliseconds; undefined for anything else, zero included. */
export const parseDuration = (text: string): number | undefined => {
  const match = /^(\d+)(ms|s|m|h|d)$/.exec(text);
  const milliseconds = Number(match?.[1]) * (durationUnits[match?.[2] ?? ""] ?? Number.NaN);
  return Number.isSafeInteger(milliseconds) && milliseconds > 0 ? milliseconds : undefined;
};

/** Milliseconds as they are written in the config: `90000` as `90s`, `7200000` as `2h`; the largest unit that loses nothing. */
export const formatDuration = (milliseconds: number): string => {
  const fits = Object.entries(durationUnits).filter(([, size]) => milliseconds % size === 0);
  const [unit, size] = fits.at(-1) ?? ["ms", 1];
  return `${milliseconds / size}${unit}`;
};

export const vmStates = ["stopped", "starting", "running", "paused", "stopping", "asleep"] as const;

/** A label's key: so that `KEY=VALUE` can be written in a shell without quotes. */
export const LABEL_KEY = /^[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$/;
/** Longest value of a label, in characters; control characters have no place in it. */
export const LABEL_VALUE = /^\P{Cc}{0,255}$/u;

/** `127.0.0.1:42069`, `[::1]:0`: a loopback address and a port; undefined for anything else. */
export const parseListen = (text: string): { address: string; port: number } | undefined => {
  const match = /^(?:(127(?:\.\d{1,3}){3})|\[(::1)\]):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const address = match?.[1] ?? match?.[2];
  const inRange = (address ?? "").split(".").every((part) => Number(part) <= 255 || part === "::1");
  return address !== undefined && inRange && port <= 65535 ? { address, port } : undefined;
};

/** An IP address, without brackets; checked for more where it is used. */
export const ADDRESS = /^[0-9A-Fa-f.:]{2,45}$/;
