/** What the commands on VMs have in common. */
import { BangerError } from "../../contract/errors.ts";
import type { NetRule } from "../../contract/network.ts";
import type { CreateVm, Exec, Vm } from "../../contract/vms.ts";
import type { Client } from "../../client/client.ts";
import { dockerConfigFile } from "../../host/paths.ts";
import type { Argument, Outcome, ValuesOf } from "../command.ts";
import { autoStopFlag } from "../flags/auto-stop.ts";
import { cwdFlag } from "../flags/cwd.ts";
import { diskSizeFlag } from "../flags/disk-size.ts";
import { envFlag, environmentOf } from "../flags/env.ts";
import { imageFlag } from "../flags/image.ts";
import { interactiveFlag } from "../flags/interactive.ts";
import { kernelFlag } from "../flags/kernel.ts";
import { labelFlag, labelsOf } from "../flags/label.ts";
import { memoryFlag } from "../flags/memory.ts";
import { nameFlag } from "../flags/name.ts";
import { nestedFlag } from "../flags/nested.ts";
import { allowFlag, denyFlag, netFlag, netPolicyFlag, teamFlag } from "../flags/net.ts";
import { autoPublishFlag, publishFlag } from "../flags/publish.ts";
import { secretFlags } from "../flags/secret.ts";
import { overcommitFlag } from "../flags/overcommit.ts";
import { ttyFlag } from "../flags/tty.ts";
import { userFlag } from "../flags/user.ts";
import { vcpuFlag } from "../flags/vcpu.ts";
import { interruptible } from "../interrupt.ts";
import { usage } from "../parse.ts";
import { isTerminal, paint, say } from "../render/output.ts";
import { progressDisplay } from "../render/progress.ts";
import { printable } from "../render/table.ts";
import { actOnEach } from "../several.ts";
import { ptyRequest, stdinIsTerminal, terminalEnvironment } from "../terminal.ts";

export const vmArgument: Argument = { name: "VM", help: "name, id, or the beginning of one" };
export const vmArguments: Argument = { ...vmArgument, many: true };

/** Flags that say what a new VM is made of. */
export const shapeFlags = {
  name: nameFlag,
  image: imageFlag,
  kernel: kernelFlag,
  vcpu: vcpuFlag,
  memory: memoryFlag,
  "disk-size": diskSizeFlag,
  net: netFlag,
  allow: allowFlag,
  deny: denyFlag,
  "net-policy": netPolicyFlag,
  team: teamFlag,
  ...secretFlags,
  publish: publishFlag,
  "auto-publish": autoPublishFlag,
  nested: nestedFlag,
  label: labelFlag,
  "auto-stop": autoStopFlag,
  force: overcommitFlag,
} as const;

/** Its network, where that is said by the flag that names a file. @throws USAGE where another flag says something else */
export const networkBy = <M extends "policy" | "learn">(flag: string, mode: M, said: string | undefined): M => {
  if (said === undefined || said === mode) return mode;
  throw new BangerError("USAGE", `${flag} and --net ${said} contradict each other`, {
    hint: `leave one of them out; ${flag} is --net ${mode}`,
  });
};

/** Undefined where none is given. @throws USAGE, FILE_NOT_FOUND */
export const givenSecrets = async (values: ValuesOf<typeof secretFlags>): Promise<CreateVm["secrets"]> => {
  const flags = [...values.secret, ...values["secret-file"], ...values["secret-header"]];
  return flags.length === 0 ? undefined : await (await import("../secret/values.ts")).secretsOf(values);
};

const policyOf = async (file: string): Promise<NetRule[]> => (await import("../net/policy-file.ts")).readPolicy(file);

/**
 * Only what was given, and whose credentials count for a pull: absent fields are the daemon's to fill in.
 * @throws USAGE for a policy that cannot be read, and for secrets without a value
 */
export const createRequest = async (values: ValuesOf<typeof shapeFlags>): Promise<CreateVm> => {
  const { name, image, kernel, vcpu, memory, "disk-size": diskSize, "net-policy": file } = values;
  const network = file === undefined ? values.net : networkBy("--net-policy", "policy", values.net);
  const labels = values.label.length > 0 ? labelsOf(values.label) : undefined;
  // A new VM follows the config by itself.
  const autoStop = values["auto-stop"] ?? undefined;
  const force = values.force || undefined;
  const all = [...values.deny, ...values.allow, ...(file === undefined ? [] : await policyOf(file))];
  const rules = all.length > 0 ? all : undefined;
  const publish = values.publish.length > 0 ? values.publish : undefined;
  const autoPublish = values["auto-publish"] || undefined;
  const nested = values.nested || undefined;
  const secrets = await givenSecrets(values);
  return Object.fromEntries(
    Object.entries({
      name,
      image,
      kernel,
      vcpu,
      memory,
      diskSize,
      network,
      nested,
      rules,
      team: values.team,
      secrets,
      publish,
      autoPublish,
      labels,
      autoStop,
      force,
      dockerConfig: dockerConfigFile(),
    }).filter(([, value]) => value !== undefined),
  );
};

/** Flags that say how a command runs in the guest. */
export const execFlags = {
  env: envFlag,
  user: userFlag,
  cwd: cwdFlag,
  tty: ttyFlag,
  interactive: interactiveFlag,
} as const;
type ExecValues = ValuesOf<typeof execFlags>;

/** Refused before a VM is made for it. @throws USAGE */
export const refuseEmptyProgram = (command: string, argv: readonly string[]): void => {
  if (argv[0] === "") throw usage(command, "the name of the program is empty");
};

export type SessionPlan = { exec: Exec; pty: boolean; stdin: boolean };

/**
 * A shell has a terminal where we have one; a command only where it is asked for. Input is sent where there is somebody to type it or
 * where it is no terminal.
 * @param argv empty: the login shell
 */
export const planSession = (argv: readonly string[], values: ExecValues): SessionPlan => {
  const typed = stdinIsTerminal();
  const pty = values.tty || (argv.length === 0 && typed && isTerminal(1));
  const env = { ...(pty ? terminalEnvironment() : {}), ...environmentOf(values.env) };
  return {
    pty,
    stdin: pty || values.interactive || !typed,
    exec: {
      argv: [...argv],
      ...(Object.keys(env).length > 0 ? { env } : {}),
      ...(values.cwd === undefined ? {} : { cwd: values.cwd }),
      ...(values.user === undefined ? {} : { user: values.user }),
      ...(pty ? { pty: ptyRequest() } : {}),
    },
  };
};

export const stopRequest = ({ timeout }: { timeout: number | undefined }): { timeout?: number } =>
  timeout === undefined ? {} : { timeout };

/** A lifecycle operation on each VM named, with one Ctrl-C for all of them. */
export const onEachVm = async (
  client: Client,
  names: readonly string[],
  operation: "vmStart" | "vmStop" | "vmRestart" | "vmKill" | "vmDelete" | "vmPause" | "vmResume" | "vmSleep",
  request: { signal?: string; timeout?: number; force?: boolean } = {},
): Promise<Outcome> => {
  const vms: readonly Vm[] = await client.call("vmList", {}, {});
  using interrupt = interruptible();
  using display = progressDisplay();
  const starts = operation === "vmStart" || operation === "vmRestart";
  return await actOnEach(names, vms, async ({ id, name }) => {
    const vm = await client.operation(operation, { vm: id }, request, {
      signal: interrupt.signal,
      report: (event) => display.report({ ...event, stage: `${name}: ${event.stage}` }),
    });
    if (starts) {
      display.clear();
      await sayNotes(vm.notes, name);
    }
    return vm;
  });
};

/** What a person should know of a VM. */
export const sayNotes = async (notes: readonly string[], name?: string): Promise<void> => {
  const subject = name === undefined ? "" : `${name}: `;
  await Promise.all(notes.map((note) => say(`${paint("note:", "yellow")} ${subject}${printable(note)}`)));
};
