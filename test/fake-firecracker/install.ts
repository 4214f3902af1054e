/** Puts a stand-in for Firecracker somewhere, as a program of its own. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { FakeSettings, RecordedRequest } from "./settings.ts";

export type Fake = {
  /** Its program. */
  path: string;
  /** Requests that came so far, in order. */
  requests(): Promise<RecordedRequest[]>;
};

export const installFake = async (folder: string, settings: Omit<FakeSettings, "record"> = {}): Promise<Fake> => {
  const [path, file, record] = ["firecracker", "settings.json", "requests"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  await writeFile(file, JSON.stringify({ ...settings, record }));
  await writeFile(record, "");
  const program = join(import.meta.dirname, "firecracker.ts");
  await writeFile(path, `#!/bin/sh\nFAKE_FIRECRACKER='${file}' exec '${process.execPath}' '${program}' "$@"\n`, {
    mode: 0o755,
  });
  return {
    path,
    requests: async () =>
      (await readFile(record, "utf8"))
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line) as RecordedRequest),
  };
};
