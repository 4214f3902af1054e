/** The only place that spells file and folder names of banger's own. */
import { homedir, tmpdir, userInfo } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";

const xdg = (variable: string, fallback: string): string => {
  const value = process.env[variable];
  return value && isAbsolute(value) ? value : join(homedir(), fallback);
};

/** Where systemd looks for a user's own units. */
export const serviceUnitFile = () => join(xdg("XDG_CONFIG_HOME", ".config"), "systemd", "user", "bangerd.service");
/** There while the user's services outlive their last session. */
export const lingerFile = () => join("/var/lib/systemd/linger", userInfo().username);

/** Folders of one user's banger, after the XDG base directory specification. */
export const roots = () => {
  const runtime = process.env.XDG_RUNTIME_DIR;
  return {
    config: join(xdg("XDG_CONFIG_HOME", ".config"), "banger"),
    state: join(xdg("XDG_STATE_HOME", ".local/state"), "banger"),
    cache: join(xdg("XDG_CACHE_HOME", ".cache"), "banger"),
    /** Must be checked by `ensureRuntimeRoot` before use: the fallback lies in a folder that others can write. */
    runtime: runtime && isAbsolute(runtime) ? join(runtime, "banger") : join(tmpdir(), `banger-${userInfo().uid}`),
  };
};

export const configFile = () => join(roots().config, "config.toml");
export const sshConfigFile = () => join(roots().config, "ssh_config");
/** An earlier layout kept its ssh_config in a folder of its own, which users took for a place for keys. */
export const legacySsh = () => {
  const folder = join(roots().config, "ssh");
  return { folder, config: join(folder, "ssh_config") };
};
/** The user's own, of which banger writes one marked line, and only when asked to. */
export const userSshConfigFile = () => join(homedir(), ".ssh", "config");

export const databaseFile = () => join(roots().state, "banger.db");
export const daemonLogFile = () => join(roots().state, "daemon.log");
export const sshKeyFile = () => join(roots().state, "ssh", "id_ed25519");
export const knownHostsFile = () => join(roots().state, "ssh", "known_hosts");
/** The authority that guests with secrets trust, in PEM; its key never leaves this machine. */
export const authorityFiles = () => {
  const folder = join(roots().state, "authority");
  return { certificate: join(folder, "ca.pem"), key: join(folder, "ca.key") };
};
export const kvmProbeFile = () => join(roots().cache, "kvm-probe.json");

/** Files of a VM that live as long as the VM. */
export const vmFiles = (id: string) => vmFilesIn(join(roots().state, "vms", id));
export type VmFiles = ReturnType<typeof vmFilesIn>;
export const vmFilesIn = (folder: string) => {
  return {
    folder,
    disk: join(folder, "disk.ext4"),
    console: join(folder, "console.log"),
    /** When its lines were written; `.1` beside the older log's. */
    consoleTimes: join(folder, "console.times"),
    vmmLog: join(folder, "vmm.log"),
    networkLog: join(folder, "network.log"),
    /** Read by the filter before its network, and again when it is replaced. */
    networkRules: join(folder, "network.rules"),
    /** Values of its secrets, and where they may go. */
    secrets: join(folder, "secrets.json"),
    /** Where its VMM writes what is saved of it. */
    saving: join(folder, "saving"),
    hostKey: join(folder, "ssh_host_ed25519_key"),
    /** Of a VM that goes on from a saved machine: that machine's memory, another name of the same file. Never written. */
    memory: join(folder, "memory"),
    /** Marks the folder of a VM that stands ready and is nobody's yet. */
    ready: join(folder, "ready"),
    /** What a sleeping VM wakes from; its disk stays where it is. */
    asleep: join(folder, "asleep"),
    /** The same once it is being woken, and never again to be woken from. */
    waking: join(folder, "waking"),
  };
};
/** Folders in which the daemon writes single files anew. */
export const foldersOfFiles = () => [
  roots().config,
  roots().state,
  dirname(knownHostsFile()),
  dirname(authorityFiles().key),
  roots().cache,
  dirname(initramfsFile("")),
];

/** A saved machine: a template, a snapshot, a VM that sleeps (without a disk). The folder is published by one rename and never changed. */
export const savedFiles = (folder: string) => ({
  folder,
  manifest: join(folder, "manifest.json"),
  state: join(folder, "state"),
  memory: join(folder, "memory"),
  disk: join(folder, "disk.ext4"),
});
export type SavedFiles = ReturnType<typeof savedFiles>;
export const templatesFolder = () => join(roots().state, "templates");
export const templateFiles = (key: string) => savedFiles(join(templatesFolder(), key));
export const snapshotsFolder = () => join(roots().state, "snapshots");
export const snapshotFiles = (name: string) => savedFiles(join(snapshotsFolder(), name));

export const vmsFolder = () => join(roots().state, "vms");

export const vmSocketsFolder = () => join(roots().runtime, "vms");

/** Sockets of a running VM. Kept short: a unix socket's path must stay under 108 bytes. */
export const vmSockets = (id: string) => {
  const folder = join(vmSocketsFolder(), id);
  return {
    folder,
    agent: join(folder, "agent.sock"),
    control: join(folder, "qmp.sock"),
    console: join(folder, "console.sock"),
    /** Where the filter before its network takes what others of its team send. */
    team: join(folder, "team.sock"),
  };
};

export const daemonSocket = () => join(roots().runtime, "bangerd.sock");
/** Where the filters before the networks of VMs ask whose a packet was. */
export const whoseSocket = () => join(roots().runtime, "whose.sock");
/** Beside the state it guards: another runtime folder (another session, cron) must not give the same state a second daemon. */
export const daemonLock = () => join(roots().state, "bangerd.lock");

export const imagesFolder = () => join(roots().state, "images");
/** Most characters of a folder's name that come from an image's name. */
const MOST_FOLDER_NAME = 180;
/** `alpine%3A3.20`; what is too long for a file's name is told apart by a digest. */
const imageFolder = (name: string): string => {
  const folder = encodeURIComponent(name);
  if (folder.length <= MOST_FOLDER_NAME) return folder;
  // Loaded where it is needed: it would cost every command 11 ms.
  const { createHash } = process.getBuiltinModule("node:crypto");
  return `${folder.slice(0, MOST_FOLDER_NAME)}~${createHash("sha256").update(name).digest("hex").slice(0, 16)}`;
};
/** Files of an installed image; the folder is published by one rename and never changed. @param name of a VM's kind, or a reference */
export const imageFiles = (name: string) => imageFilesIn(imageFolder(name));
/** @param folder as it is called below `imagesFolder()` */
export const imageFilesIn = (folder: string) => {
  const path = join(imagesFolder(), folder);
  return { folder: path, rootfs: join(path, "rootfs.ext4"), manifest: join(path, "manifest.json") };
};

export const kernelsFolder = () => join(roots().state, "kernels");
/** Files of an installed kernel; the folder is published by one rename and never changed. */
export const kernelFiles = (name: string) => {
  const folder = join(kernelsFolder(), name);
  return {
    folder,
    vmlinux: join(folder, "vmlinux"),
    bzImage: join(folder, "bzImage"),
    modules: join(folder, "modules.ext4"),
    /** The modules that the initramfs needs, decompressed, plus `order`. */
    bootModules: join(folder, "boot-modules"),
    manifest: join(folder, "manifest.json"),
  };
};
/** Initramfs of one kernel and one agent build; made again whenever it is missing. */
export const initramfsFile = (key: string) => join(roots().cache, "initramfs", `${key}.cpio`);

/** Half-made things. On the same file system as what they become, and free to be deleted at any daemon start. */
export const stagingFolder = () => join(roots().state, "staging");

/** Packages of npm that go into images, each under its digest. */
export const npmPackageFile = (digest: string) => join(roots().cache, "npm", `${digest}.tgz`);

/** Bundles on their way here, each under its sha256; one that broke off is gone on with. */
export const downloadsFolder = () => join(roots().cache, "downloads");

/** Downloaded package lists and packages, per mirror. */
export const aptFolder = (key: string) => join(roots().cache, "apt", key);

/** Layers of images as registries have them, by digest: `blobs`, whole and checked, and `partial`, downloads that were cut off. */
export const blobsFolder = () => join(roots().cache, "oci", "blobs");
export const partialBlobsFolder = () => join(roots().cache, "oci", "partial");

/** Where Docker keeps credentials of whoever runs this process. */
export const dockerConfigFile = () => resolve(process.env.DOCKER_CONFIG || join(homedir(), ".docker"), "config.json");

/** What is made for bringing a repository into a VM; a folder each, named by the process that uses it. */
export const workspaceStagingFolder = () => join(roots().cache, "workspaces");

/** Set in a bundle by the build; then this file stands in `build/lib`, else in `src/host`. */
const bundled = process.env.BANGER_BUILD_ID !== undefined;
const installRoot = bundled ? join(import.meta.dirname, "..") : join(import.meta.dirname, "..", "..");

/** What can be pulled, as shipped with the program. */
export const catalogFile = (name: "images" | "kernels") =>
  join(installRoot, bundled ? "lib" : "", "catalog", `${name}.json`);
/** Recipes of images: a folder each, and the script that builds them. */
export const recipesFolder = () => join(installRoot, bundled ? "lib" : "", "images");
const binary = (name: string) => join(installRoot, bundled ? "bin" : "build/bin", name);
export const agentBinary = () => binary("banger-vsock-agent");
export const daemonBinary = () => binary("bangerd");
export const cliBinary = () => binary("banger");
/** Program and arguments that start the daemon. */
export const daemonCommand = (): [string, ...string[]] =>
  bundled ? [daemonBinary()] : [process.execPath, join(import.meta.dirname, "..", "daemon", "main.ts")];
