/** What every part of the public API does with the client. */
import { type Client, openClient } from "../client/client.ts";
import { parseSize } from "../contract/names.ts";
import { type Progress, silentProgress } from "../contract/progress.ts";
import type { WorkOptions } from "./types.ts";

/** Work with a client of its own. */
export const withClient = async <T>(work: (client: Client) => Promise<T>): Promise<T> => {
  using client = openClient();
  return await work(client);
};

export const progressOf = ({ signal, onProgress }: WorkOptions): Progress => ({
  ...silentProgress(signal),
  report: (event) => onProgress?.(event),
});

/** @throws USAGE for a text that is no size */
export const bytes = (size: number | string | undefined, what: string): number | undefined =>
  typeof size === "string" ? parseSize(size, what) : size;

/** The given fields only: an absent one is the daemon's to fill in. */
export const given = <T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
