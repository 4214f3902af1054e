/** ssh into VMs: one key of the user's, one host key per VM, both known to ssh before the first contact. */
import { mkdir, readFile, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { BangerError } from "../../contract/errors.ts";
import { exists, readFileIfThere, writeFileAtomic } from "../../host/files.ts";
import { cliBinary, knownHostsFile, sshConfigFile, vmFiles } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import type { VmRow } from "../store/vms.ts";

export type GuestKeys = { host_key: string; host_key_public: string; authorized_keys: string };

export type SshService = {
  /** The keys a guest gets at its start; makes what is missing. */
  guestKeys(row: VmRow): Promise<GuestKeys>;
  /** Writes known_hosts anew for these VMs. */
  pin(rows: readonly VmRow[]): Promise<void>;
};

/** @param keyPath the user's private key; made when it is banger's own and missing */
export const sshService = async (keyPath: string, keyIsOurs: boolean): Promise<SshService> => {
  const publicKey = once(async () => {
    if (keyIsOurs && !(await exists(keyPath))) await makeKey(keyPath, "banger");
    return (await readPublicKey(keyPath)).trim();
  });
  await writeFileAtomic(sshConfigFile(), sshConfig(keyPath), 0o600);

  const hostKeys = new Map<string, string>();
  let pinning = Promise.resolve();

  const hostPublic = async (id: string): Promise<string | undefined> => {
    const kept = hostKeys.get(id) ?? (await readFileIfThere(`${vmFiles(id).hostKey}.pub`))?.trim();
    if (kept) hostKeys.set(id, kept);
    return kept;
  };

  return {
    guestKeys: async ({ id }) => {
      const path = vmFiles(id).hostKey;
      if (!(await exists(path))) {
        await mkdir(dirname(path), { recursive: true, mode: 0o700 });
        await makeKey(path, "");
      }
      return {
        host_key: await readFile(path, "utf8"),
        host_key_public: await readFile(`${path}.pub`, "utf8"),
        authorized_keys: `${await publicKey()}\n`,
      };
    },
    pin: (rows) => {
      pinning = pinning.catch(() => undefined).then(async () => {
        const lines: string[] = [];
        for (const { id, name } of rows) {
          const key = await hostPublic(id);
          if (key) lines.push(`${name}.vm ${key.split(" ").slice(0, 2).join(" ")}`);
        }
        await writeFileAtomic(knownHostsFile(), lines.map((line) => `${line}\n`).join(""), 0o600);
      });
      return pinning;
    },
  };
};

/** Runs `make` at the first call only; a failure is tried again at the next. */
const once = <T>(make: () => Promise<T>): (() => Promise<T>) => {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make().catch((error: unknown) => {
      made = undefined;
      throw error;
    });
    return made;
  };
};

const makeKey = async (path: string, comment: string): Promise<void> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  // A key without its public half is what an interrupted start left behind.
  await rm(`${path}.pub`, { force: true });
  await runTool({ argv: ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path] });
};

const readPublicKey = async (keyPath: string): Promise<string> => {
  const text = await readFileIfThere(`${keyPath}.pub`);
  if (text) return text;
  try {
    await stat(keyPath);
  } catch (error) {
    throw new BangerError("SSH_KEY", `there is no ssh key at ${keyPath}`, {
      hint: "correct `ssh_key_path` in config.toml, or leave it out to use a key of banger's own",
      cause: error,
    });
  }
  return (await runTool({ argv: ["ssh-keygen", "-y", "-P", "", "-f", keyPath] })).stdout;
};

/** A value in ssh_config is quoted; a quote in a path cannot be expressed there. */
const quoted = (text: string): string => `"${text}"`;

const sshConfig = (keyPath: string): string => `# Written by banger; changes are lost. Use it with: ssh -F ${sshConfigFile()} NAME.vm
Host *.vm
  User root
  IdentityFile ${quoted(keyPath)}
  IdentitiesOnly yes
  UserKnownHostsFile ${quoted(knownHostsFile())}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  HostKeyAlgorithms ssh-ed25519
  ProxyCommand ${quoted(cliBinary())} vm proxy %h %p
  LogLevel ERROR
`;
