/** Every key of `config.toml` for people: the example of an error, the rows of `config show`, the page in docs/. */

export type ConfigKey = {
  /** As in the file, with its table: `vm_defaults.memory`. */
  key: string;
  /** Its line in a file, without the table. */
  example: string;
  /** What it holds where the file says nothing. */
  fallback: string;
  /** One line, no full stop. */
  what: string;
};

export const configReference: readonly ConfigKey[] = [
  {
    key: "log_level",
    example: 'log_level = "debug"',
    fallback: "info",
    what: "least weight of what the daemon's log holds: debug, info, warn, error",
  },
  {
    key: "vmm",
    example: 'vmm = "qemu"',
    fallback: "auto",
    what: "what VMs run under: auto, firecracker, qemu",
  },
  {
    key: "firecracker_bin",
    example: 'firecracker_bin = "/opt/firecracker/firecracker"',
    fallback: "firecracker",
    what: "Firecracker, by name or path",
  },
  {
    key: "serial_console",
    example: "serial_console = true",
    fallback: "false",
    what: "Firecracker's VMs have a serial console, from their next start on: `vm logs` then has what kernel and init write, and a boot takes longer",
  },
  {
    key: "qemu_bin",
    example: 'qemu_bin = "/opt/qemu/bin/qemu-system-x86_64"',
    fallback: "qemu-system-x86_64",
    what: "QEMU, by name or path",
  },
  {
    key: "ssh_key_path",
    example: 'ssh_key_path = "~/.ssh/id_ed25519"',
    fallback: "a key that banger makes",
    what: "your private key for VMs; absolute, or from ~/",
  },
  {
    key: "default_image_name",
    example: 'default_image_name = "debian-bookworm"',
    fallback: "debian-bookworm",
    what: "image of a VM where none is named",
  },
  {
    key: "default_kernel_name",
    example: 'default_kernel_name = "debian-bookworm-cloud"',
    fallback: "debian-bookworm-cloud",
    what: "kernel of a VM where none is named",
  },
  {
    key: "auto_stop_stale_after",
    example: 'auto_stop_stale_after = "12h"',
    fallback: "never",
    what: "a running VM that nobody has touched for this long is stopped",
  },
  {
    key: "stats_poll_interval",
    example: 'stats_poll_interval = "10s"',
    fallback: "10s",
    what: "how often figures are taken of a VM while somebody watches them",
  },
  {
    key: "boot_timeout",
    example: 'boot_timeout = "2m"',
    fallback: "2m",
    what: "how long a guest may take until its agent answers",
  },
  {
    key: "debian_mirror",
    example: 'debian_mirror = "http://mirror.example/debian"',
    fallback: "that of this machine, else Debian's own",
    what: "where packages of Debian come from",
  },
  {
    key: "registry_mirrors",
    example: 'registry_mirrors = { "docker.io" = ["https://mirror.example"] }',
    fallback: "none",
    what: "per registry, addresses that are tried before it",
  },
  {
    key: "insecure_registries",
    example: 'insecure_registries = ["localhost:5000"]',
    fallback: "none",
    what: "registries spoken to by plain HTTP, or without checking their certificate",
  },
  {
    key: "catalogs",
    example: 'catalogs = ["~/catalog/images.json"]',
    fallback: "none",
    what: "catalog files of your own, which add to the shipped one or replace its entries",
  },
  { key: "vm_defaults.vcpu", example: "vcpu = 2", fallback: "a quarter of the host's, 1 to 4", what: "virtual CPUs" },
  {
    key: "vm_defaults.memory",
    example: 'memory = "2G"',
    fallback: "an eighth of the host's, 512 MiB to 4 GiB",
    what: "memory",
  },
  { key: "vm_defaults.disk_size", example: 'disk_size = "16G"', fallback: "8 GiB", what: "size of the VM's own disk" },
  {
    key: "vm_defaults.network",
    example: 'network = "none"',
    fallback: "user",
    what: "user: the world, and nothing near; policy: only what is allowed; learn: as user, and it is written down; none: no network card",
  },
  {
    key: "network.dns",
    example: 'dns = "127.0.0.1:42069"',
    fallback: "127.0.0.1:42069",
    what: "where names below .vm are answered; off: nowhere",
  },
  {
    key: "network.web",
    example: 'web = "127.0.0.1:8042"',
    fallback: "off",
    what: "where http://PORT.NAME.localhost leads to a VM's server: its port goes behind that address",
  },
  {
    key: "limits.disk_bandwidth",
    example: 'disk_bandwidth = "200M"',
    fallback: "none",
    what: "what each VM may move from and to its disk in a second, from its next start on",
  },
  {
    key: "limits.network_bandwidth",
    example: 'network_bandwidth = "50M"',
    fallback: "none",
    what: "what each VM may send, and receive, in a second, from its next start on; under Firecracker only",
  },
  {
    key: "templates.enabled",
    example: "enabled = false",
    fallback: "true",
    what: "whether VMs start from saved ones of their image, in a fraction of a second",
  },
  { key: "templates.max_count", example: "max_count = 4", fallback: "8", what: "how many saved VMs are kept at most" },
  {
    key: "templates.max_size",
    example: 'max_size = "8G"',
    fallback: "16 GiB",
    what: "their size on disk, all together",
  },
  {
    key: "templates.pool",
    example: "pool = 2",
    fallback: "0",
    what: "how many VMs of each kind in use wait restored and paused, for the next `vm run`; each takes some 50 MiB",
  },
  {
    key: "file_sync",
    example: '[[file_sync]]\nhost = "~/.gitconfig"\nguest = "~/.gitconfig"\nmode = "0644"',
    fallback: "none",
    what: "files and folders copied into a VM at each start: guest below /root or ~/, mode 0600 where none is given",
  },
];

/** The example of a key, with its table where it has one; of `file_sync[1].guest` that of `file_sync`. */
export const configExample = (key: string): string | undefined => {
  const name = key.replace(/\[.*$/, "");
  const found = configReference.find((entry) => entry.key === name || entry.key === name.split(".")[0]);
  return found?.example;
};
