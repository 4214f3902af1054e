/** The user's settings while the daemon runs: a change of the file counts from the next request on, without a restart. */
import { stat } from "node:fs/promises";
import type { Config } from "../contract/config.ts";
import { errnoOf } from "../contract/errors.ts";
import { loadConfig } from "../host/config.ts";
import { configFile } from "../host/paths.ts";

export type Settings = {
  /** The last valid ones. */
  readonly latest: Config;
  /** As the file says now. @throws INVALID_CONFIG while it is not valid */
  current(): Promise<Config>;
  /** Looks at the file. A file that is not valid changes nothing; `onInvalid` is told once per change. */
  refresh(): Promise<void>;
};

export type SettingsOptions = {
  path?: string | undefined;
  /** Takes up what changed. Not called for the settings of the start. */
  onChange(config: Config): Promise<void>;
  onInvalid(error: unknown): void;
};

/** What tells one content of the file from another without reading it. */
const fingerprint = async (path: string): Promise<string> => {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return [ino, size, mtimeNs, ctimeNs].join(" ");
  } catch (error) {
    // As good as an empty file; what cannot be read is named by who reads it.
    return errnoOf(error) ?? "unknown";
  }
};

/** @throws INVALID_CONFIG when the file is not valid at the start: there is nothing to go on with */
export const openSettings = async ({
  path = configFile(),
  onChange,
  onInvalid,
}: SettingsOptions): Promise<Settings> => {
  let seen = await fingerprint(path);
  let latest = await loadConfig(path);
  let invalid: { error: unknown } | undefined;
  let looking = Promise.resolve();

  const look = async (): Promise<void> => {
    const found = await fingerprint(path);
    if (found === seen) return;
    // Before it is read: a file that changes meanwhile is looked at again.
    seen = found;
    try {
      latest = await loadConfig(path);
      invalid = undefined;
    } catch (error) {
      invalid = { error };
      onInvalid(error);
      return;
    }
    await onChange(latest);
  };
  // One after the other, and a look of its own for each: one that is under way may have missed what this one is about.
  const refresh = (): Promise<void> => {
    looking = looking.catch(() => undefined).then(look);
    return looking;
  };

  return {
    get latest() {
      return latest;
    },
    refresh,
    current: async () => {
      await refresh();
      if (invalid) throw invalid.error;
      return latest;
    },
  };
};
