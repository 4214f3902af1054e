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

/** QEMU, mkfs.ext4 and passt with their libraries, as a folder that works at `/opt/tools`. */
const packTools = async (folder: string): Promise<void> => {
  await mkdir(join(folder, "lib"), { recursive: true });
  await mkdir(join(folder, "share"));
  const passt = await found("passt");
  // It executes the other where the CPU has AVX2.
  for (const path of [passt, `${passt}.avx2`])
    if (await stat(path).catch(() => undefined)) await copyFile(path, join(folder, basename(path)));
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
  /** A shell script in the guest, as the user, with its systemd and with banger on its PATH. */
  script(text: string): Promise<Done>;
  /** Its stdout; fails the test when it fails. */
  ok(text: string): Promise<string>;
  /** The same of a command of banger's in the guest. */
  banger(words: string): Promise<string>;
  /** A command of banger's as it is, with its input. */
  run(args: readonly string[], input?: string): Promise<Done>;
  /** The same machine with another user, who may use KVM and is nobody else, and has what root has to boot VMs from. @param settings on top of root's */
  withUser(name: string, settings?: string): Promise<Nested>;
};

/** The machine's own, since VMs in it have the address that it has for its own host. */
export const NESTED_ADDRESS = "198.51.100.1";

const PROGRAMS = "/opt/banger/bin";
const config = (image: string) => `templates.enabled = false
qemu_bin = "/opt/tools/qemu-system-x86_64"
boot_timeout = "10m"
default_image_name = "${image}"
[vm_defaults]
vcpu = 1
memory = "256M"
disk_size = "1G"
network = "none"
`;

/** What a user of the nested machine does. */
const nestedAs = (host: Host, vm: string, image: string, user: string, uid: string): Nested => {
  const env = [
    `XDG_RUNTIME_DIR=/run/user/${uid}`,
    `PATH=${PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
  ];
  const exec = (argv: readonly string[], input?: string) =>
    host.run(["exec", vm, "-i", "--user", user, ...env.flatMap((each) => ["-e", each]), "--", ...argv], {
      timeout: 240_000,
      ...(input === undefined ? {} : { input }),
    });
  const script: Nested["script"] = (text) => exec(["bash", "-ec", text]);
  const ok: Nested["ok"] = async (text) => {
    const done = await script(text);
    if (done.status !== 0) throw new Error(`${text}\nended with ${done.status}: ${done.stdout}${done.stderr}`);
    return done.stdout.trim();
  };
  return {
    script,
    ok,
    banger: (words) => ok(`banger ${words}`),
    run: (args, input) => exec(["banger", ...args], input),
    withUser: async (name, settings = "") => {
      await ok(`useradd -m -G kvm ${name}; loginctl enable-linger ${name}
        install -d -m 700 -o ${name} -g ${name} /home/${name}/.{config,local,local/state}{,/banger}
        cp -al /root/.local/state/banger/{images,kernels} /home/${name}/.local/state/banger
        chown -R ${name}: /home/${name}/.local/state/banger`);
      const id = await ok(`id -u ${name}`);
      await ok(`until test -d /run/user/${id}; do sleep 0.1; done`);
      const other = nestedAs(host, vm, image, name, id);
      await other.ok(`cat >~/.config/banger/config.toml <<'END'\n${settings}${config(image)}END`);
      return other;
    },
  };
};

/**
 * Installs banger for root in a running VM of the golden image, with this image and kernel of the fixture for VMs in it.
 * @param vm its name; made with `--nested`, it has KVM
 */
export const installNested = async (host: Host, vm: string, image: string): Promise<Nested> => {
  const root = nestedAs(host, vm, image, "root", "0");
  const { ok } = root;
  const copy = async (...paths: string[]) => {
    const done = await host.banger("vm", "cp", ...paths.slice(0, -1), `${vm}:${paths.at(-1)}`);
    if (done.status !== 0) throw new Error(done.stderr);
  };
  const tools = join(host.env.HOME, "tools");
  await packTools(tools);
  await ok(`mkdir -p /opt/banger/lib /opt/banger/bin /root/.config/banger
    mkdir -m 700 -p /root/.local/state/banger /root/.local/state/banger/images /root/.local/state/banger/kernels
    for program in mkfs.ext4 passt passt.avx2; do ln -s /opt/tools/$program /usr/local/bin/$program; done
    ip address add ${NESTED_ADDRESS}/32 dev lo
    modprobe kvm_amd || modprobe kvm_intel || true; modprobe tun`);
  const build = join(dirname(bangerBinary), "..");
  const bundles = (await readdir(join(build, "lib"))).filter((name) => name.endsWith(".cjs"));
  await copy(...[...bundles, "catalog", "cache"].map((name) => join(build, "lib", name)), "/opt/banger/lib");
  await copy(await realpath(join(build, "lib", "node")), "/opt/banger/lib/node");
  await copy(...["banger", "bangerd", "banger-vsock-agent"].map((name) => join(build, "bin", name)), PROGRAMS);
  await copy(tools, "/opt");
  const state = join(host.env.XDG_STATE_HOME, "banger");
  await copy(join(state, "images", image), "/root/.local/state/banger/images");
  await copy(join(state, "kernels", "debian-bookworm-cloud"), "/root/.local/state/banger/kernels");
  await ok(`cat >/root/.config/banger/config.toml <<'END'\n${config(image)}END`);
  return root;
};
