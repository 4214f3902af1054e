import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { configKeys } from "../contract/config.ts";
import { configReference } from "../contract/config-reference.ts";
import { BangerError } from "../contract/errors.ts";
import { hostDefaults, loadConfig, parseConfig, resolveConfig } from "./config.ts";
import { sshKeyFile } from "./paths.ts";

const FILE = "/x/config.toml";
const MiB = 2 ** 20;
const GiB = 2 ** 30;

const errorOf = (text: string): BangerError => {
  try {
    parseConfig(text, FILE);
  } catch (error) {
    if (error instanceof BangerError) return error;
    throw error;
  }
  throw new Error(`accepted: ${text}`);
};

describe("values", () => {
  test("a missing file is all defaults, each with its origin", async () => {
    const config = await loadConfig("/nonexistent/config.toml");
    assert.equal(config.vmDefaults.image, "debian-bookworm");
    assert.equal(config.vmDefaults.diskSize, 8 * GiB);
    assert.equal(config.sshKeyPath, sshKeyFile());
    assert.equal(config.sshKeyIsOurs, true);
    assert.equal(config.origins["vm_defaults.memory"], "host");
    assert.equal(config.origins["vm_defaults.disk_size"], "built in");
  });

  test("every key of the file is taken", async () => {
    const folder = await mkdtemp(join(tmpdir(), "banger-config-"));
    const path = join(folder, "config.toml");
    await writeFile(
      path,
      `log_level = "debug"
vmm = "qemu"
firecracker_bin = "/opt/firecracker"
serial_console = true
qemu_bin = "/opt/qemu"
ssh_key_path = "~/.ssh/work"
default_image_name = "mine"
default_kernel_name = "fast"
auto_stop_stale_after = "2h"
stats_poll_interval = "500ms"
boot_timeout = "90s"
debian_mirror = "http://mirror.example/debian"
registry_mirrors = { "docker.io" = ["https://mirror.example"] }
insecure_registries = ["localhost:5000", "[::1]:80", "registry.lan"]
catalogs = ["~/catalog/images.json", "/srv/kernels.json"]
[vm_defaults]
vcpu = 3
memory = "3GiB"
disk_size = "20G"
network = "none"
[limits]
disk_bandwidth = "200M"
network_bandwidth = "50M"
[templates]
enabled = false
max_count = 2
max_size = "3G"
pool = 2
[network]
dns = "127.0.0.2:53"
web = "[::1]:8042"
[[file_sync]]
host = "~/.gitconfig"
guest = "~/.gitconfig"
[[file_sync]]
host = "/etc/hosts"
guest = "/root/hosts"
mode = "0644"
`,
    );
    try {
      const config = await loadConfig(path);
      assert.deepEqual(config.vmDefaults, {
        image: "mine",
        kernel: "fast",
        vcpu: 3,
        memory: 3 * GiB,
        diskSize: 20 * GiB,
        network: "none",
      });
      assert.equal(config.sshKeyPath, join(homedir(), ".ssh/work"));
      assert.equal(config.sshKeyIsOurs, false);
      assert.equal(config.serialConsole, true);
      assert.equal(config.autoStopStaleAfter, 7_200_000);
      assert.equal(config.statsPollInterval, 500);
      assert.equal(config.bootTimeout, 90_000);
      assert.deepEqual(config.limits, { diskBandwidth: 200 * MiB, networkBandwidth: 50 * MiB });
      assert.deepEqual(config.templates, { enabled: false, maxCount: 2, maxSize: 3 * GiB, pool: 2 });
      assert.deepEqual(config.network, {
        dns: { address: "127.0.0.2", port: 53 },
        web: { address: "::1", port: 8042 },
      });
      assert.deepEqual(config.registryMirrors, { "docker.io": ["https://mirror.example"] });
      assert.deepEqual(config.insecureRegistries, ["localhost:5000", "[::1]:80", "registry.lan"]);
      assert.deepEqual(config.catalogs, [join(homedir(), "catalog/images.json"), "/srv/kernels.json"]);
      assert.deepEqual(config.fileSync, [
        { host: join(homedir(), ".gitconfig"), guest: "/root/.gitconfig", mode: 0o600 },
        { host: "/etc/hosts", guest: "/root/hosts", mode: 0o644 },
      ]);
      assert.deepEqual(new Set(Object.values(config.origins)), new Set(["config"]));
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test("sizes of the host are a quarter of its CPUs and an eighth of its memory, within limits", () => {
    assert.deepEqual(hostDefaults({ cpus: 2, memory: 2 * GiB }), { vcpu: 1, memory: 512 * MiB });
    assert.deepEqual(hostDefaults({ cpus: 12, memory: 16 * GiB }), { vcpu: 3, memory: 2 * GiB });
    assert.deepEqual(hostDefaults({ cpus: 128, memory: 512 * GiB }), { vcpu: 4, memory: 4 * GiB });
    assert.equal(resolveConfig({}, { vcpu: 2, memory: GiB }).vmDefaults.memory, GiB);
  });
});

describe("errors name file, line and key", () => {
  const cases: [what: string, text: string, message: RegExp, hint: RegExp | undefined][] = [
    [
      "an unknown key",
      '\nlog_levle = "info"\n',
      /config\.toml line 2: unknown key `log_levle`/,
      /did you mean `log_level`/,
    ],
    ["an unknown key of a table", "[vm_defaults]\n\nvcpus = 2\n", /line 3: unknown key `vm_defaults\.vcpus`/, /`vcpu`/],
    ["an unknown table", "[vm_default]\nvcpu = 2\n", /line 1: unknown key `vm_default`/, /`vm_defaults`/],
    [
      "a wrong type",
      'x = 1\n[vm_defaults]\nvcpu = "2"\n'.replace("x = 1\n", ""),
      /line 2: `vm_defaults\.vcpu` must be a whole number/,
      undefined,
    ],
    ["zero", "[vm_defaults]\nvcpu = 0\n", /line 2: `vm_defaults\.vcpu` must be above zero/, undefined],
    ["a size without quotes", "[vm_defaults]\nmemory = 4\n", /line 2: `vm_defaults\.memory` must be a size/, undefined],
    ["a size of nothing", '[vm_defaults]\nmemory = "0G"\n', /must be a size above zero/, undefined],
    ["a choice that is none", 'vmm = "xen"\n', /line 1: `vmm` must be one of "auto"/, undefined],
    [
      "a relative key path",
      'ssh_key_path = "id"\n',
      /line 1: `ssh_key_path` must be an absolute path or start with ~\//,
      undefined,
    ],
    ["another user's home", 'ssh_key_path = "~bob/id"\n', /`ssh_key_path` must be an absolute path/, undefined],
    [
      "the second of a list",
      '[[file_sync]]\nhost = "/a"\nguest = "~/a"\n[[file_sync]]\nhost = "/a"\nguest = "/etc/a"\n',
      /line 6: `file_sync\[1\]\.guest` must lie under/,
      undefined,
    ],
    [
      "a way out of the guest's home",
      '[[file_sync]]\nhost = "/a"\nguest = "~/../etc/passwd"\n',
      /line 3: `file_sync\[0\]\.guest`/,
      undefined,
    ],
    ["a missing key", '[[file_sync]]\nhost = "/a"\n', /line 1: `file_sync\[0\]\.guest`/, undefined],
    ["a dotted key", "vm_defaults.vcpu = 1.5\n", /line 1: `vm_defaults\.vcpu` must be a whole number/, undefined],
    ["an inline table", "\nvm_defaults = { vcpu = -1 }\n", /line 2: `vm_defaults\.vcpu` must be above zero/, undefined],
    ["a misspelt choice", 'vmm = "qmeu"\n', /line 1: `vmm`.*it is "qmeu"/, /did you mean "qemu"/],
    ["a choice in capitals", 'log_level = "INFO"\n', /line 1: `log_level`/, /did you mean "info"/],
    ["a size that needs a unit", "[vm_defaults]\nmemory = 4\n", /it is 4/, /write it like this: memory = "2G"/],
    ["a time in words", 'boot_timeout = "2 minutes"\n', /`boot_timeout` must be a time/, /boot_timeout = "2m"/],
    ["a table written as a list", "\n[[vm_defaults]]\nvcpu = 1\n", /line 2: `vm_defaults` must be a table/, undefined],
    ["what is left out", '[[file_sync]]\nhost = "/a"\n', /`file_sync\[0\]\.guest` is missing/, /\[\[file_sync\]\]/],
    ["a registry with its scheme", 'insecure_registries = ["http://a"]\n', /without http:\/\//, /localhost:5000/],
    [
      "a mirror of an address",
      'registry_mirrors = { "http://x" = ["https://a"] }\n',
      /`registry_mirrors\.http:\/\/x` must be a registry/,
      /docker\.io/,
    ],
    ["a mirror that is none", 'registry_mirrors = { "x.y" = ["a"] }\n', /x\.y\[0\]` must be an http/, undefined],
    ["a relative catalog", 'catalogs = ["images.json"]\n', /`catalogs\[0\]` must be an absolute path/, undefined],
    ["a kernel's name", 'default_kernel_name = "My Kernel"\n', /must be the name of a kernel/, undefined],
    [
      "an address that others reach",
      '[network]\nweb = "0.0.0.0:80"\n',
      /`network\.web` must be "off", or a loopback/,
      /8042/,
    ],
    ["what is no TOML", 'log_level = "info"\nvmm = \n', /config\.toml line 2: /, undefined],
    ["a key given twice", 'vmm = "auto"\nvmm = "qemu"\n', /config\.toml line 2: /, undefined],
  ];
  for (const [what, text, message, hint] of cases) {
    test(what, () => {
      const error = errorOf(text);
      assert.equal(error.code, "INVALID_CONFIG");
      assert.match(error.message, message);
      if (hint) assert.match(error.hint ?? "", hint);
    });
  }
});

describe("the reference of the settings", () => {
  const tables: Record<string, readonly string[]> = Object.fromEntries(
    ["", "vm_defaults", "limits", "templates", "network"].map((table) => [table, configKeys(table)]),
  );

  test("knows every key of the file and no other", () => {
    const keys = Object.entries(tables).flatMap(([table, names]) =>
      names
        .filter((name) => table !== "" || !(name in tables))
        .map((name) => (table === "" ? name : `${table}.${name}`)),
    );
    assert.deepEqual(configReference.map(({ key }) => key).sort(), keys.sort());
  });

  for (const { key, example } of configReference)
    test(`its example of ${key} is valid`, () => {
      const [table] = key.includes(".") ? key.split(".") : [];
      const parsed = parseConfig(table ? `[${table}]\n${example}` : example, FILE);
      assert.equal(Object.keys(parsed).length, 1);
    });
});

test("whatever the file holds, it is valid or an INVALID_CONFIG with a message of one line", () => {
  const whole = configReference.map(({ example }) => example).join("\n");
  const odd = [
    "[",
    "]]",
    '"',
    "'",
    "=",
    "\n",
    ".",
    "\u0000",
    "é",
    "{",
    "}",
    ",",
    "0x",
    "-1",
    "[[file_sync]]",
    "true",
    "~",
    "1e999",
  ];
  let state = 1;
  const next = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  for (let round = 0; round < 2000; round++) {
    const text = [...whole];
    for (let change = next(4) + 1; change > 0; change--)
      text.splice(next(text.length), next(6), odd[next(odd.length)] ?? "");
    try {
      parseConfig(text.join(""), FILE);
    } catch (error) {
      assert.ok(error instanceof BangerError && error.code === "INVALID_CONFIG", `round ${round}: ${String(error)}`);
      assert.match(error.message, /^\/x\/config\.toml(?: line \d+)?: [^\n]+$/);
    }
  }
});
