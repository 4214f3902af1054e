/** All commands. Each is loaded when it is used. */
import type { Entry } from "./command.ts";

export const groups: Record<string, string> = {
  vm: "make VMs and work in them",
  snapshot: "VMs saved with their memory",
  image: "root file systems that VMs start from",
  kernel: "kernels that VMs boot",
  daemon: "the background process that owns the VMs",
  config: "settings",
};

/** Commands of three words: the first two, what they are for, and their common use. */
export const subgroups: Record<
  string,
  { what: string; examples: readonly (readonly [command: string, what: string])[] }
> = {
  "vm net": {
    what: "what a VM may reach",
    examples: [
      ["banger vm net allow box 192.168.1.5:5432", "a database in the local network"],
      ["banger vm net log -f box", "what it is refused"],
    ],
  },
  "vm secret": {
    what: "values that a VM uses and never sees",
    examples: [
      ["banger vm secret set box GITHUB_TOKEN@api.github.com,github.com", "your variable, for these hosts only"],
      ["banger vm secret list box", "which are there"],
    ],
  },
  "vm workspace": {
    what: "a repository of yours in a VM",
    examples: [
      ["banger vm workspace prepare box ./repo", "bring a repository in, or what has changed of it"],
      ["banger vm workspace review box", "look through what was done to it, and take it over"],
      ["banger vm workspace export box | git apply --binary", "the same as a patch"],
    ],
  },
};

/** The common use of each group, for its help. */
export const groupExamples: Record<string, readonly (readonly [command: string, what: string])[]> = {
  vm: [
    ["banger vm run --name box", "a shell in a new VM"],
    ["banger vm exec box -- make test", "a command in it"],
    ["banger vm delete box", "it and its disk are gone"],
  ],
  snapshot: [
    ["banger vm snapshot box --as ready", "save a VM that runs"],
    ["banger snapshot list", "what is there"],
    ["banger vm restore ready", "a new VM that goes on from it"],
  ],
  image: [
    ["banger image list --available", "what can be pulled"],
    ["banger image pull debian-bookworm-slim", "fetch or build one"],
  ],
  kernel: [["banger kernel list", "what VMs can boot"]],
  daemon: [
    ["banger daemon status", "does it run?"],
    ["banger daemon logs | tail -n 20", "what it did last"],
  ],
  config: [
    ["banger config show", "every setting, its value and where that comes from"],
    ["nano $(banger config path)", "change them"],
  ],
};

export const entries: readonly Entry[] = [
  {
    name: "vm run",
    alias: "run",
    summary: "make a VM and open a shell or run a command in it",
    load: () => import("./vm/run.ts"),
  },
  { name: "vm exec", alias: "exec", summary: "run a command in a VM", load: () => import("./vm/exec.ts") },
  { name: "vm shell", alias: "shell", summary: "open a shell in a VM", load: () => import("./vm/shell.ts") },
  { name: "vm ssh", alias: "ssh", summary: "log in to a VM by ssh", load: () => import("./vm/ssh.ts") },
  { name: "vm list", alias: "ps", summary: "list VMs", load: () => import("./vm/list.ts") },
  { name: "vm show", summary: "show one VM", load: () => import("./vm/show.ts") },
  { name: "vm cp", alias: "cp", summary: "copy files and folders in and out", load: () => import("./vm/cp.ts") },
  { name: "vm logs", alias: "logs", summary: "print a VM's console", load: () => import("./vm/logs.ts") },
  { name: "vm create", summary: "make a VM without starting it", load: () => import("./vm/create.ts") },
  { name: "vm start", alias: "start", summary: "start VMs", load: () => import("./vm/start.ts") },
  { name: "vm stop", alias: "stop", summary: "shut VMs down", load: () => import("./vm/stop.ts") },
  { name: "vm restart", summary: "shut VMs down and start them again", load: () => import("./vm/restart.ts") },
  { name: "vm set", summary: "change CPUs, memory, disk size and more", load: () => import("./vm/set.ts") },
  { name: "vm stats", summary: "memory, disk and CPU that VMs use", load: () => import("./vm/stats.ts") },
  {
    name: "vm publish",
    summary: "make ports of a VM reachable on this machine",
    load: () => import("./vm/publish.ts"),
  },
  { name: "vm unpublish", summary: "take published ports back", load: () => import("./vm/unpublish.ts") },
  { name: "vm ports", summary: "what listens in a VM and where it is reached", load: () => import("./vm/ports.ts") },
  {
    name: "vm workspace prepare",
    summary: "bring a repository into a VM",
    load: () => import("./workspace/prepare.ts"),
  },
  {
    name: "vm workspace export",
    summary: "what a VM has changed of a repository, as a patch",
    load: () => import("./workspace/export.ts"),
  },
  {
    name: "vm workspace review",
    summary: "look through a VM's work on a repository, and take it over",
    load: () => import("./workspace/review.ts"),
  },
  { name: "vm net allow", summary: "let a VM reach something", load: () => import("./net/allow.ts") },
  { name: "vm net deny", summary: "keep a VM from something", load: () => import("./net/deny.ts") },
  { name: "vm net rules", summary: "what a VM may reach", load: () => import("./net/rules.ts") },
  {
    name: "vm net learned",
    summary: "the smallest policy for what a VM has reached",
    load: () => import("./net/learned.ts"),
  },
  { name: "vm net log", summary: "what a VM was refused", load: () => import("./net/log.ts") },
  {
    name: "vm secret set",
    summary: "give a VM a secret, or a new value of one",
    load: () => import("./secret/set.ts"),
  },
  { name: "vm secret list", summary: "secrets of a VM, without their values", load: () => import("./secret/list.ts") },
  { name: "vm secret delete", summary: "take secrets from a VM", load: () => import("./secret/delete.ts") },
  { name: "vm kill", summary: "end VMs at once", load: () => import("./vm/kill.ts") },
  { name: "vm delete", alias: "rm", summary: "delete VMs", load: () => import("./vm/delete.ts") },
  { name: "vm pause", summary: "let VMs stand still", load: () => import("./vm/pause.ts") },
  { name: "vm resume", summary: "let paused VMs go on", load: () => import("./vm/resume.ts") },
  {
    name: "vm sleep",
    summary: "save VMs and free their memory until they are used",
    load: () => import("./vm/sleep.ts"),
  },
  { name: "vm snapshot", summary: "save a VM with its memory; it goes on", load: () => import("./vm/snapshot.ts") },
  { name: "vm restore", summary: "make a VM that goes on from a snapshot", load: () => import("./vm/restore.ts") },
  { name: "vm fork", summary: "make running copies of a running VM", load: () => import("./vm/fork.ts") },
  { name: "snapshot list", summary: "list snapshots", load: () => import("./snapshot/list.ts") },
  { name: "snapshot show", summary: "show one snapshot", load: () => import("./snapshot/show.ts") },
  { name: "snapshot export", summary: "write a snapshot into one file", load: () => import("./snapshot/export.ts") },
  { name: "snapshot import", summary: "take in what an export wrote", load: () => import("./snapshot/import.ts") },
  { name: "snapshot delete", summary: "delete snapshots", load: () => import("./snapshot/delete.ts") },
  { name: "vm prune", summary: "delete every VM that is not running", load: () => import("./vm/prune.ts") },
  {
    name: "vm proxy",
    summary: "carry an ssh connection to a VM",
    hidden: true,
    load: () => import("./vm/proxy.ts"),
  },
  { name: "image list", summary: "list images", load: () => import("./image/list.ts") },
  { name: "image show", summary: "show one image", load: () => import("./image/show.ts") },
  { name: "image pull", summary: "fetch or build an image", load: () => import("./image/pull.ts") },
  {
    name: "image import",
    summary: "make an image of a file, a folder or stdin",
    load: () => import("./image/import.ts"),
  },
  { name: "image register", summary: "use a root file system of your own", load: () => import("./image/register.ts") },
  { name: "image promote", summary: "copy a registered image in", load: () => import("./image/promote.ts") },
  {
    name: "image prune",
    summary: "free what downloads and unused images take",
    load: () => import("./image/prune.ts"),
  },
  {
    name: "image warm",
    summary: "save a booted VM of an image, for others to start from",
    load: () => import("./image/warm.ts"),
  },
  { name: "image export", summary: "pack an image into a bundle", load: () => import("./image/export.ts") },
  { name: "image delete", summary: "delete images", load: () => import("./image/delete.ts") },
  { name: "kernel list", summary: "list kernels", load: () => import("./kernel/list.ts") },
  { name: "kernel show", summary: "show one kernel", load: () => import("./kernel/show.ts") },
  { name: "kernel pull", summary: "fetch a kernel", load: () => import("./kernel/pull.ts") },
  { name: "kernel import", summary: "use a kernel of your own", load: () => import("./kernel/import.ts") },
  { name: "kernel export", summary: "pack a kernel into a bundle", load: () => import("./kernel/export.ts") },
  { name: "kernel delete", summary: "delete kernels", load: () => import("./kernel/delete.ts") },
  { name: "daemon status", summary: "is it running, and what does it hold", load: () => import("./daemon/status.ts") },
  { name: "daemon start", summary: "start it", load: () => import("./daemon/start.ts") },
  { name: "daemon stop", summary: "stop it; VMs go on running", load: () => import("./daemon/stop.ts") },
  { name: "daemon logs", summary: "print its log", load: () => import("./daemon/logs.ts") },
  {
    name: "daemon install",
    summary: "run it as a service of your own systemd",
    load: () => import("./daemon/install.ts"),
  },
  { name: "daemon uninstall", summary: "take that service away", load: () => import("./daemon/uninstall.ts") },
  { name: "config show", summary: "every setting and where it comes from", load: () => import("./config/show.ts") },
  { name: "config path", summary: "print the path of the config file", load: () => import("./config/path.ts") },
  {
    name: "ssh-config",
    summary: "make `ssh NAME.vm` work, by one line in ~/.ssh/config",
    load: () => import("./ssh-config/command.ts"),
  },
  {
    name: "completion",
    summary: "completion for bash, zsh and fish",
    load: () => import("./completion/command.ts"),
  },
  { name: "doctor", summary: "check what banger needs on this machine", load: () => import("./doctor.ts") },
  { name: "version", summary: "print the version", load: () => import("./version.ts") },
];
