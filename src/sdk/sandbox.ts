/** VMs of the public TypeScript API. */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Client, openClient } from "../client/client.ts";
import { BangerError } from "../contract/errors.ts";
import { parseNetRule } from "../contract/net-rules.ts";
import type { NetRule } from "../contract/network.ts";
import { parsePublish } from "../contract/ports.ts";
import type { Publish } from "../contract/published.ts";
import type { Secret } from "../contract/secrets.ts";
import type {
  CreateVm,
  Exec,
  FileRequest,
  GuestFileStat,
  SetResult,
  SetVm,
  StatsLine,
  Vm,
  VmStats,
} from "../contract/vms.ts";
import { dockerConfigFile } from "../host/paths.ts";
import { bytes, given, progressOf, withClient } from "./client.ts";
import type {
  ExecOutput,
  PortOption,
  SecretOption,
  Sandbox as OpenSandbox,
  SandboxOptions,
  StopOptions,
  WorkOptions,
} from "./types.ts";

const collect = async (stream: Readable): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
};

const portsOf = (ports: readonly PortOption[]): Publish[] =>
  ports.map((port) => (typeof port === "string" ? parsePublish(port) : port));

const secretsOf = (secrets: Readonly<Record<string, SecretOption>>): Secret[] =>
  Object.entries(secrets).map(([name, { value, hosts, headers }]) => ({
    name,
    value,
    hosts: [...hosts],
    ...(headers ? { headers: [...headers] } : {}),
  }));

const rulesOf = (action: NetRule["action"], rules: readonly string[]): NetRule[] =>
  rules.map((rule) => parseNetRule(action, rule));

/** @param owned it is deleted when it is disposed of */
const openSandbox = ({ id, name }: Vm, client: Client, owned: boolean): OpenSandbox => {
  const vm = { vm: id };

  const stream: OpenSandbox["stream"] = (argv, { signal, ...options } = {}) => {
    const request: Exec = { argv: [...argv], ...given(options) };
    return client.stream("vmExec", vm, request, { signal });
  };

  const exec: OpenSandbox["exec"] = async (argv, { stdin, ...options } = {}): Promise<ExecOutput> => {
    const command = await stream(argv, options);
    command.stdin.end(stdin);
    const [result, stdout, stderr] = await Promise.all([
      command.closed,
      collect(command.stdout),
      collect(command.stderr),
    ]);
    return {
      exit: result.exit ?? 128 + result.signal,
      stdout: stdout.toString("utf8"),
      stderr: stderr.toString("utf8"),
    };
  };

  const transfer = async (request: FileRequest) => {
    const opened = await client.stream("vmFile", vm, request);
    opened.stderr.resume();
    return opened;
  };

  /** Output that fails with the work that gives it. */
  const outputOf = (opened: { stdout: Readable; closed: Promise<unknown> }): Readable => {
    const output = Readable.from(
      (async function* () {
        yield* opened.stdout;
        await opened.closed;
      })(),
      { objectMode: false },
    );
    output.once("close", () => opened.stdout.destroy());
    return output;
  };

  const file = async (request: FileRequest, data?: string | Uint8Array): Promise<Buffer> => {
    const opened = await transfer(request);
    opened.stdin.end(data);
    const [content] = await Promise.all([collect(opened.stdout), opened.closed]);
    return content;
  };

  const stats = async (): Promise<VmStats> => {
    const opened = await client.stream("vmStats", {}, { vms: [id], follow: false });
    opened.stdin.end();
    opened.stderr.resume();
    const [text] = await Promise.all([collect(opened.stdout), opened.closed]);
    const [found] = (JSON.parse(text.toString("utf8")) as StatsLine).vms;
    if (!found) throw new BangerError("VM_NOT_FOUND", `VM ${name} is gone`);
    return found;
  };

  const stopRequest = ({ timeout }: StopOptions) => given({ timeout });
  const remove = async () => void (await client.operation("vmDelete", vm, {}));
  let deleted = false;
  return {
    id,
    name,
    show: () => client.call("vmShow", vm, {}),
    exec,
    stream,
    dial: (target, options = {}) => client.stream("vmDial", vm, target, options),
    readFile: (path) => file({ op: "read", path }),
    writeFile: async (path, data, options = {}) => void (await file({ op: "write", path, ...options }, data)),
    stat: async (path, options = {}) => {
      const opened = await transfer({ op: "stat", path, ...options });
      opened.stdin.end();
      opened.stdout.resume();
      return (await opened.closed).ok as GuestFileStat;
    },
    readArchive: async (path) => {
      const opened = await transfer({ op: "tar_out", path });
      opened.stdin.end();
      return outputOf(opened);
    },
    writeArchive: async (folder, archive) => {
      const opened = await transfer({ op: "tar_in", path: folder });
      opened.stdout.resume();
      await Promise.all([pipeline(archive, opened.stdin), opened.closed]);
    },
    start: ({ force, ...options } = {}) => client.operation("vmStart", vm, given({ force }), progressOf(options)),
    stop: (options = {}) => client.operation("vmStop", vm, stopRequest(options), progressOf(options)),
    restart: (options = {}) => client.operation("vmRestart", vm, stopRequest(options), progressOf(options)),
    kill: (signal) => client.operation("vmKill", vm, given({ signal })),
    set: async ({ memory, diskSize, ...change }): Promise<SetResult> => {
      const sizes = given({ memory: bytes(memory, "memory size"), diskSize: bytes(diskSize, "disk size") });
      const request: SetVm = { ...change, ...sizes };
      return await client.operation("vmSet", vm, request);
    },
    stats,
    ports: () => client.call("vmPorts", vm, {}),
    publish: async (ports, options = {}) => client.call("vmPublish", vm, { ports: portsOf(ports), ...options }),
    unpublish: async (ports, options = {}) => client.call("vmUnpublish", vm, { ports: portsOf(ports), ...options }),
    net: async ({ allow = [], deny = [], remove = false }) => {
      const rules = [...rulesOf("deny", deny), ...rulesOf("allow", allow)];
      return await client.call("vmNet", vm, remove ? { remove: rules } : { add: rules });
    },
    secrets: () => client.call("vmSecrets", vm, {}),
    setSecrets: (secrets) => client.call("vmSecretsChange", vm, { set: secretsOf(secrets) }),
    deleteSecrets: (names) => client.call("vmSecretsChange", vm, { remove: [...names] }),
    logs: async ({ follow = false, since, signal } = {}) => {
      const opened = await client.stream("vmLogs", vm, { follow, ...given({ since }) }, { signal });
      opened.stdin.end();
      opened.stderr.resume();
      return outputOf(opened);
    },
    pause: () => client.operation("vmPause", vm, {}),
    resume: () => client.operation("vmResume", vm, {}),
    sleep: (options = {}) => client.operation("vmSleep", vm, {}, progressOf(options)),
    snapshot: ({ name: wanted, ...options } = {}) =>
      client.operation("vmSnapshot", vm, given({ name: wanted }), progressOf(options)),
    fork: async ({ count = 1, prefix, ...options } = {}) => {
      const { vms } = await client.operation("vmFork", vm, { count, ...given({ prefix }) }, progressOf(options));
      return vms.map((fork) => openSandbox(fork, openClient(), false));
    },
    delete: async () => {
      await remove();
      deleted = true;
    },
    [Symbol.asyncDispose]: async () => {
      try {
        if (owned && !deleted) await remove();
      } finally {
        client.close();
      }
    },
  };
};

/** A VM that `make` gives; the client goes with it, or when there is none. */
const opened = async (owned: boolean, make: (client: Client) => Promise<Vm>): Promise<OpenSandbox> => {
  const client = openClient();
  try {
    return openSandbox(await make(client), client, owned);
  } catch (error) {
    client.close();
    throw error;
  }
};

/**
 * Makes a VM and starts it.
 * @returns when commands can run in it
 * @throws what went wrong, after what was made is undone: VM_NAME_TAKEN, IMAGE_NOT_FOUND, HOST_LIMIT, VM_BOOT_FAILED, VM_BOOT_TIMEOUT, CANCELLED
 */
const create = (options: SandboxOptions = {}): Promise<OpenSandbox> => {
  const { signal, onProgress, memory, diskSize, publish, allow = [], deny = [], secrets, ...rest } = options;
  return opened(true, async (client) => {
    const request: CreateVm = {
      dockerConfig: dockerConfigFile(),
      ...given(rest),
      ...given({ memory: bytes(memory, "memory size"), diskSize: bytes(diskSize, "disk size") }),
      ...(publish ? { publish: portsOf(publish) } : {}),
      ...(secrets ? { secrets: secretsOf(secrets) } : {}),
      ...(allow.length + deny.length > 0 ? { rules: [...rulesOf("deny", deny), ...rulesOf("allow", allow)] } : {}),
    };
    const progress = progressOf(given({ signal, onProgress }));
    const vm = await client.operation("vmCreate", {}, request, progress);
    try {
      return await client.operation("vmStart", { vm: vm.id }, given({ force: options.force }), progress);
    } catch (error) {
      // Not under the caller's signal, which may be what brought us here.
      await client.operation("vmDelete", { vm: vm.id }, {});
      throw error;
    }
  });
};

/**
 * A VM that is there already, in whatever state.
 * @param name its name, its id, or the beginning of one
 * @throws VM_NOT_FOUND, VM_AMBIGUOUS
 */
const connect = (name: string): Promise<OpenSandbox> =>
  opened(false, (client) => client.call("vmShow", { vm: name }, {}));

/**
 * A new VM that goes on from a snapshot, which stays.
 * @param options name: of the VM; default: an adjective and a noun. secrets: their values, which no snapshot holds
 * @throws SNAPSHOT_NOT_FOUND, VM_NAME_TAKEN, HOST_LIMIT, DISK_FULL
 */
const restore = (
  snapshot: string,
  { name, secrets, ...options }: WorkOptions & Pick<SandboxOptions, "name" | "secrets"> = {},
): Promise<OpenSandbox> =>
  opened(true, (client) =>
    client.operation(
      "snapshotRestore",
      { name: snapshot },
      { ...given({ name }), ...(secrets ? { secrets: secretsOf(secrets) } : {}) },
      progressOf(options),
    ),
  );

/** All VMs of this user, running or not. */
const list = (): Promise<Vm[]> => withClient((client) => client.call("vmList", {}, {}));

export type Sandbox = OpenSandbox;
export const Sandbox = { create, connect, restore, list } as const;
