/** Puts a stand-in for Firecracker somewhere, as a program of its own. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { FakeSettings, RecordedRequest } from "./settings.ts";

export type Fake = {
  /** Its program. */
  path: string;
  /** Requests that came so far, in order. */
  requests(): Promise<RecordedRequest[]>;
};

/** @param whole a guest of its own in a QEMU stands behind it */
export const installFake = async (
  folder: string,
  settings: Omit<FakeSettings, "record" | "qemu"> = {},
  whole = false,
): Promise<Fake> => {
  const [path, file, record] = ["firecracker", "settings.json", "requests"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const qemu = join(folder, "qemu");
  await writeFile(qemu, '#!/bin/sh\nexec setpriv --pdeathsig KILL -- qemu-system-x86_64 "$@"\n', { mode: 0o755 });
  await writeFile(file, JSON.stringify({ ...settings, record, ...(whole ? { qemu } : {}) }));
  // What it finds out about KVM is not what the daemon is told.
  const own = join(folder, "own");
  await mkdir(own);
  await writeFile(record, "");
  const program = join(import.meta.dirname, "firecracker.ts");
  await writeFile(
    path,
    `#!/bin/bash\nFAKE_BEGAN=$EPOCHREALTIME FAKE_FIRECRACKER='${file}' XDG_CACHE_HOME='${own}' XDG_STATE_HOME='${own}' exec '${process.execPath}' '${program}' "$@"\n`,
    {
      mode: 0o755,
    },
  );
  return {
    path,
    requests: async () =>
      (await readFile(record, "utf8"))
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line) as RecordedRequest),
  };
};
