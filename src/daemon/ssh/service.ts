/** ssh into VMs: one key of the user's, one host key per VM, both known to ssh before the first contact. */
import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { BangerError } from "../../contract/errors.ts";
import { exists, readFileIfThere, writeFileAtomic, writeFileWhole } from "../../host/files.ts";
import { once } from "../../host/once.ts";
import { cliBinary, knownHostsFile, sshConfigFile, vmFiles } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import type { VmRow } from "../store/vms.ts";
import { type KeyPair, makeKeyPair } from "./key.ts";

export type GuestKeys = { host_key: string; host_key_public: string; authorized_keys: string };

export type SshService = {
  /** The keys a guest gets at its start; makes what is missing, and pins the host key before anyone can connect. */
  guestKeys(vm: Pick<VmRow, "id" | "name">): Promise<GuestKeys>;
  /** Takes up the host keys of VMs that an earlier daemon made. */
  restore(rows: readonly VmRow[]): Promise<void>;
  /** A VM is gone, and its host key with it. */
  unpin(name: string): Promise<void>;
  /** Another key from now on; a VM that runs keeps what it was started with. */
  useKey(key: UserKey): Promise<void>;
};

/** The user's private key; made when it is banger's own and missing. */
export type UserKey = { path: string; ours: boolean };

export const sshService = async (key: UserKey): Promise<SshService> => {
  const publicKeyOf = ({ path, ours }: UserKey) =>
    once(async () => {
      if (ours && !(await exists(path))) await makeKey(path, "banger", writeFileAtomic);
      return (await readPublicKey(path)).trim();
    });
  let publicKey = publicKeyOf(key);
  const useKey = async (next: UserKey) => {
    publicKey = publicKeyOf(next);
    await writeIfDifferent(sshConfigFile(), sshConfig(next.path));
  };
  await useKey(key);

  const pinned = new Map<string, string>();
  let writing = Promise.resolve();
  const writeKnownHosts = (): Promise<void> => {
    writing = writing
      .catch(() => undefined)
      .then(() => {
        const lines = [...pinned].map(([name, key]) => `${name}.vm ${key}\n`);
        return writeIfDifferent(knownHostsFile(), lines.join(""), writeFileWhole);
      });
    return writing;
  };
  /** Type and key, without the comment. */
  const keyOf = (publicLine: string): string => publicLine.trim().split(" ").slice(0, 2).join(" ");

  return {
    guestKeys: async ({ id, name }) => {
      const [{ privateKey: host_key, publicKey: host_key_public }, authorized] = await Promise.all([
        hostKey(vmFiles(id).hostKey),
        publicKey(),
      ]);
      if (pinned.get(name) !== keyOf(host_key_public)) {
        pinned.set(name, keyOf(host_key_public));
        await writeKnownHosts();
      }
      return { host_key, host_key_public, authorized_keys: `${authorized}\n` };
    },
    restore: async (rows) => {
      // Written by an earlier daemon: a thousand VMs need not be read one by one again.
      const known = new Map(((await readFileIfThere(knownHostsFile())) ?? "").split("\n").map(nameAndKey));
      const missing = rows.filter(({ name, startedAt }) => startedAt !== undefined && !known.has(name));
      const lines = await Promise.all(missing.map(({ id }) => readFileIfThere(`${vmFiles(id).hostKey}.pub`)));
      const found = new Map(missing.map(({ name }, index) => [name, lines[index]]));
      for (const { name } of rows) {
        const line = known.get(name) ?? found.get(name);
        if (line) pinned.set(name, keyOf(line));
      }
      await writeKnownHosts();
    },
    unpin: async (name) => {
      if (pinned.delete(name)) await writeKnownHosts();
    },
    useKey,
  };
};

/** For a guest that belongs to nobody and whose clones get keys of their own: its server can start, and nobody can log in. */
export const throwawayKeys = async (): Promise<GuestKeys> => {
  const { privateKey, publicKey } = await makeKeyPair("");
  return { host_key: privateKey, host_key_public: publicKey, authorized_keys: "" };
};

/** `NAME.vm TYPE KEY` */
const nameAndKey = (line: string): [name: string, key: string] => {
  const at = line.indexOf(".vm ");
  return [line.slice(0, Math.max(0, at)), line.slice(at + ".vm ".length)];
};

const writeIfDifferent = async (path: string, text: string, write = writeFileAtomic): Promise<void> => {
  if ((await readFileIfThere(path)) !== text) await write(path, text, 0o600);
};

/** The private half first: where the public one is, the key is complete. */
const makeKey = async (path: string, comment: string, write: typeof writeFileAtomic): Promise<KeyPair> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const pair = await makeKeyPair(comment);
  await write(path, pair.privateKey);
  await write(`${path}.pub`, pair.publicKey, 0o644);
  return pair;
};

/** A VM's host key. One that a power cut has taken, whole or in part, is made anew. */
const hostKey = async (path: string): Promise<KeyPair> => {
  const [privateKey, publicKey] = await Promise.all([readFileIfThere(path), readFileIfThere(`${path}.pub`)]);
  return privateKey && publicKey ? { privateKey, publicKey } : await makeKey(path, "", writeFileWhole);
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

/** A value in ssh_config is quoted, and a percent sign in it doubled; a quote in a path cannot be expressed there. */
const quoted = (text: string): string => `"${text.replaceAll("%", "%%")}"`;

const sshConfig = (
  keyPath: string,
): string => `# Written by banger; changes are lost. \`banger ssh-config --install\` makes ssh read it.
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
