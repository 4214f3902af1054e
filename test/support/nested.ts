/**
 * banger inside a VM of banger's: the program, a QEMU and what its VMs boot are copied in. Under TCG a guest has SVM, so that its
 * `/dev/kvm` really runs kernels: what needs a machine with systemd or with KVM is tested there, on any host.
 */
import { execFile } from "node:child_process";
import { copyFile, mkdir, readdir, realpath, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { bangerBinary, type Done, type Host } from "./host.ts";

const run = promisify(execFile);
const PATH = `${process.env.PATH}:/usr/local/sbin:/usr/sbin:/sbin`;

/** Firmware that QEMU's microvm machine loads. */
const firmware = ["bios-microvm.bin", "pvh.bin", "linuxboot_dma.bin", "kvmvapic.bin"];

const found = async (program: string): Promise<string> =>
  realpath(
    (await run("sh", ["-c", 'command -v "$1"', "sh", program], { env: { ...process.env, PATH } })).stdout.trim(),
  );

/** Shared libraries of a program but those that every system has. */
const librariesOf = async (program: string): Promise<string[]> =>
  [...(await run("ldd", [program])).stdout.matchAll(/=> (\/\S+)/g)]
    .map(([, path = ""]) => path)
    .filter((path) => !/^(libc|libm|ld-linux.*|libpthread|libdl|librt)\.so/.test(basename(path)));

/** QEMU and mkfs.ext4 with their libraries, as a folder that works at `/opt/tools`. */
const packTools = async (folder: string): Promise<void> => {
  await mkdir(join(folder, "lib"), { recursive: true });
  await mkdir(join(folder, "share"));
  for (const program of ["qemu-system-x86_64", "mkfs.ext4"]) {
    const path = await found(program);
    await copyFile(path, join(folder, `${program}.real`));
    for (const library of await librariesOf(path)) await copyFile(library, join(folder, "lib", basename(library)));
    const data = program.startsWith("qemu") ? " -L /opt/tools/share" : " -t ext4";
    const script = `#!/bin/sh\nLD_LIBRARY_PATH=/opt/tools/lib exec /opt/tools/${program}.real${data} "$@"\n`;
    await writeFile(join(folder, program), script, { mode: 0o755 });
  }
  const { stdout } = await run(await found("qemu-system-x86_64"), ["-L", "help"]);
  for (const directory of stdout.trim().split("\n"))
    for (const name of firmware) {
      const path = join(directory, name);
      if (await stat(path).catch(() => undefined)) await copyFile(path, join(folder, "share", name));
    }
};

export type Nested = {
  /** A shell script as root in the guest, with the systemd of root's user. */
  script(text: string): Promise<Done>;
  /** Its stdout; fails the test when it fails. */
  ok(text: string): Promise<string>;
  /** The same of a command of banger's in the guest. */
  banger(words: string): Promise<string>;
};

/**
 * Installs banger in a running VM of the golden image, with this image and kernel of the fixture for VMs in it.
 * @param vm its name
 */
export const installNested = async (host: Host, vm: string, image: string): Promise<Nested> => {
  const script: Nested["script"] = (text) =>
    host.run(["exec", vm, "-e", "XDG_RUNTIME_DIR=/run/user/0", "--", "bash", "-ec", text], { timeout: 240_000 });
  const ok: Nested["ok"] = async (text) => {
    const done = await script(text);
    if (done.status !== 0) throw new Error(`${text}\nended with ${done.status}: ${done.stdout}${done.stderr}`);
    return done.stdout.trim();
  };
  const copy = async (...paths: string[]) => {
    const done = await host.banger("vm", "cp", ...paths.slice(0, -1), `${vm}:${paths.at(-1)}`);
    if (done.status !== 0) throw new Error(done.stderr);
  };
  const tools = join(host.env.HOME, "tools");
  await packTools(tools);
  await ok(`mkdir -p /opt/banger/lib /opt/banger/bin /root/.config/banger
    mkdir -m 700 -p /root/.local/state/banger /root/.local/state/banger/images /root/.local/state/banger/kernels
    ln -s /opt/tools/mkfs.ext4 /usr/local/sbin/mkfs.ext4
    modprobe kvm_amd || modprobe kvm_intel || true`);
  const build = join(dirname(bangerBinary), "..");
  const bundles = (await readdir(join(build, "lib"))).filter((name) => name.endsWith(".cjs"));
  await copy(...[...bundles, "catalog", "cache"].map((name) => join(build, "lib", name)), "/opt/banger/lib");
  await copy(await realpath(join(build, "lib", "node")), "/opt/banger/lib/node");
  await copy(...["banger", "bangerd", "banger-vsock-agent"].map((name) => join(build, "bin", name)), "/opt/banger/bin");
  await copy(tools, "/opt");
  const state = join(host.env.XDG_STATE_HOME, "banger");
  await copy(join(state, "images", image), "/root/.local/state/banger/images");
  await copy(join(state, "kernels", "debian-bookworm-cloud"), "/root/.local/state/banger/kernels");
  const config = join(host.env.HOME, "nested.toml");
  await writeFile(
    config,
    `qemu_bin = "/opt/tools/qemu-system-x86_64"
boot_timeout = "10m"
default_image_name = "${image}"
[vm_defaults]
vcpu = 1
memory = "256M"
disk_size = "1G"
network = "none"
`,
  );
  await copy(config, "/root/.config/banger/config.toml");
  return { script, ok, banger: (words) => ok(`/opt/banger/bin/banger ${words}`) };
};
