import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress } from "../../contract/progress.ts";
import type { CreateVm, Vm } from "../../contract/vms.ts";
import type { Devcontainer } from "../../workspace/devcontainer.ts";
import type { WorkspacePlan } from "../../workspace/plan.ts";
import type { ToolsMode } from "../workspace/tools.ts";
import type { Learner } from "../net/policy-file.ts";
import { type Client, openClient } from "../../client/client.ts";
import type { StreamEvent } from "../../client/frame-stream.ts";
import { defineCommand, type Invocation, type Outcome } from "../command.ts";
import { detachFlag } from "../flags/detach.ts";
import { environmentOf } from "../flags/env.ts";
import { netLearnFlag } from "../flags/net.ts";
import { rmFlag } from "../flags/rm.ts";
import { workspaceFlags } from "../flags/workspace.ts";
import { interruptible } from "../interrupt.ts";
import { usage } from "../parse.ts";
import { isTerminal, paint, say } from "../render/output.ts";
import { progressDisplay, shapeLine } from "../render/progress.ts";
import { runSession } from "../session.ts";
import {
  createRequest,
  execFlags,
  networkBy,
  planSession,
  refuseEmptyProgram,
  sayNotes,
  shapeFlags,
} from "./shared.ts";

const timingsFlag = { kind: "switch", help: "say at the end where the time went" } as const;
const flags = {
  rm: rmFlag,
  detach: detachFlag,
  timings: timingsFlag,
  ...shapeFlags,
  "net-learn": netLearnFlag,
  ...execFlags,
  ...workspaceFlags,
} as const;
type Input = Invocation<typeof flags>;

const refuseMeaningless = ({ args, argv, values }: Input): void => {
  const [path] = args;
  if (path === undefined)
    for (const name of Object.keys(workspaceFlags) as (keyof typeof workspaceFlags)[])
      if (values[name]) throw usage("vm run", `--${name} needs a repository`, "write its folder: banger vm run ./repo");
  if (argv?.length === 0)
    throw usage("vm run", "nothing follows `--`", "write the command after it, or leave it out for a shell");
  refuseEmptyProgram("vm run", argv ?? []);
  if (values["net-learn"] !== undefined && values["net-policy"] !== undefined)
    throw usage("vm run", "--net-learn and --net-policy contradict each other", "leave one of them out");
  if (!values.detach) return;
  if (values["net-learn"] !== undefined)
    throw usage(
      "vm run",
      "--net-learn writes its file at the end, which a VM that runs on does not have",
      "use --net learn, and then: banger vm net learned VM",
    );
  if (values.rm) throw usage("vm run", "--rm and -d contradict each other", "leave one of them out");
  if (argv) throw usage("vm run", "-d takes no command", "start it with -d, then use `banger vm exec`");
};

/** Says what a person should know of the VM that was made: its shape, and each note once, as it becomes known. */
const introducer = () => {
  const said = new Set<string>();
  const sayOnce = (key: string, line: string): void => {
    if (said.has(key)) return;
    said.add(key);
    void say(line);
  };
  return (vm: Vm): void => {
    sayOnce("shape", paint(shapeLine(vm), "dim"));
    void sayNotes(vm.notes.filter((note) => !said.has(note)));
    for (const note of vm.notes) said.add(note);
  };
};

/** A repository to bring in, and where it is made ready. */
type Workspace = {
  plan: WorkspacePlan;
  staging: string;
  container: Devcontainer | undefined;
  /** Ends what is done with it. */
  over: AbortController;
};

/** @param tools when they are installed; undefined: not at all */
const bring = async (
  client: Client,
  vm: Vm,
  { plan, staging, container }: Workspace,
  tools: ToolsMode | undefined,
  progress: Progress,
): Promise<void> => {
  const { bringIn } = await import("../workspace/bring.ts");
  await bringIn(client, vm.id, plan, { staging, force: false, readonly: false }, progress);
  if (tools === undefined) return;
  const { setUp } = await import("../workspace/tools.ts");
  await setUp(client, vm, plan, tools, progress, container);
};

/** What a VM is made of, with what the repository asks for. */
const shapeOf = async (request: CreateVm, workspace: Workspace | undefined): Promise<CreateVm> =>
  workspace?.container
    ? (await import("../workspace/container.ts")).withContainer(request, workspace.container)
    : request;

/** What a VM is to be, by the flags. */
const requestOf = async (values: Input["values"]): Promise<CreateVm> => {
  const request = await createRequest(values);
  if (values["net-learn"] === undefined) return request;
  return { ...request, network: networkBy("--net-learn", "learn", values.net) };
};

const runDetached = async (
  client: Client,
  { values }: Input,
  asked: CreateVm,
  workspace: Workspace | undefined,
): Promise<Outcome> => {
  using interrupt = interruptible();
  using display = progressDisplay();
  if (workspace) endWith(workspace.over, interrupt.signal);
  const progress = { signal: interrupt.signal, report: display.report };
  const request = await shapeOf({ ...asked, env: environmentOf(values.env) }, workspace);
  const created = await client.operation("vmCreate", {}, request, progress);
  try {
    const vm = await client.operation("vmStart", { vm: created.id }, {}, progress);
    if (workspace) await bring(client, vm, workspace, values["no-bootstrap"] ? undefined : "behind", progress);
    display.clear();
    introducer()(vm);
    return { text: vm.name, data: vm };
  } catch (error) {
    // Not under the signal that may have brought us here.
    await client.operation("vmDelete", { vm: created.id }, {});
    throw error;
  }
};

/** When each stage began, in ms since this process did. */
const stopwatch = () => {
  const marks: { what: string; at: number }[] = [{ what: "the command line", at: 0 }];
  const mark = (what: string) => {
    if (marks.at(-1)?.what !== what) marks.push({ what, at: performance.now() });
  };
  mark("the daemon");
  return {
    mark,
    /** A line for each stage: how long it took. The last one includes the end of the VM with --rm. */
    report: (): string => {
      const ends = [...marks.slice(1).map(({ at }) => at), performance.now()];
      return marks
        .map(({ what, at }, index) => `${String(Math.round((ends[index] ?? at) - at)).padStart(7)} ms  ${what}`)
        .join("\n");
    },
  };
};

/** @throws USAGE where what is learned could not be written, before anything is made */
const learnerOf = async ({ "net-learn": file }: Input["values"]): Promise<Learner | undefined> =>
  file === undefined ? undefined : (await import("../net/policy-file.ts")).learnInto(file);

/** Until there is a session, which has an answer of its own to signals. */
const openInterruptibly = async <T>(open: (signal: AbortSignal) => Promise<T>): Promise<T> => {
  using interrupt = interruptible();
  return await open(interrupt.signal);
};

const runAttached = async (
  client: Client,
  { values, argv = [] }: Input,
  asked: CreateVm,
  workspace: Workspace | undefined,
): Promise<Outcome> => {
  await using learner = await learnerOf(values);
  const plan = planSession(argv, values);
  const below = workspace?.plan.repository.below;
  if (below && plan.exec.cwd === undefined && plan.exec.user === undefined)
    plan.exec.cwd = `/root/${workspace?.plan.repository.name}/${below}`;
  using display = progressDisplay();
  const introduce = introducer();
  const times = stopwatch();
  let vm: Vm | undefined;
  const ready = Promise.withResolvers<void>();
  const request = {
    vm: await shapeOf({ ...asked, ...(values.rm ? { ephemeral: true } : {}) }, workspace),
    exec: plan.exec,
    ...(workspace ? { prepare: true } : {}),
  };
  const onEvent = (event: StreamEvent): void => {
    if (event.progress) {
      display.report(event.progress);
      times.mark(event.progress.message ?? event.progress.stage);
    }
    if (event.prepare) ready.resolve();
    if (!event.vm) return;
    ({ vm } = event);
    display.clear();
    introduce(vm);
  };
  const stream = await openInterruptibly((signal) => client.stream("vmRun", {}, request, { onEvent, signal }));
  const tools = values["no-bootstrap"] ? undefined : argv.length > 0 || !plan.pty ? "before" : "behind";
  const over = workspace?.over ?? new AbortController();
  const end = () => over.abort(new BangerError("CANCELLED", "cancelled"));
  stream.closed.then(end, end);
  let failure: unknown;
  const prepare = async (): Promise<void> => {
    await abortable(ready.promise, over.signal);
    if (!workspace || !vm) return;
    times.mark("the repository");
    await bring(client, vm, workspace, tools, { signal: over.signal, report: display.report });
    stream.prepared();
  };
  const preparing = workspace
    ? prepare().catch((error: unknown) => {
        // After the end of the session that says why, this says less.
        if (over.signal.aborted) return;
        failure = error;
        stream.abort();
      })
    : undefined;
  const exit = await runSession(stream, {
    ...plan,
    onOpened: async () => {
      times.mark("the command");
      display[Symbol.dispose]();
      if (vm) await learner?.begin(vm.id);
    },
  })
    .catch((error: unknown) => {
      throw failure ?? error;
    })
    // Whatever the end was: it tells what was needed until then.
    .finally(() => learner?.write());
  await preparing;
  if (vm && workspace && tools === "behind" && !values.rm) {
    const { saySetUpOutcome } = await import("../workspace/tools.ts");
    // The session has ended as it has; this is a word about it.
    await saySetUpOutcome(client, vm, workspace.plan, new AbortController().signal).catch(() => undefined);
  }
  if (values.timings) await say(times.report());
  if (vm && !values.rm && argv.length === 0 && isTerminal(2)) {
    await say(`${vm.name} goes on running. Return: banger vm shell ${vm.name}   Delete: banger vm delete ${vm.name}`);
  }
  return { exit };
};

export const command = defineCommand({
  usage: ["[--rm] [PATH] [FLAGS]", "[--rm] [PATH] [FLAGS] -- COMMAND...", "-d [PATH] [FLAGS]"],
  description:
    "Without a command you get a shell; a shell without a terminal reads its script from stdin. With a command, banger\nexits with its status. The VM stays unless --rm is given. With a PATH, the repository's tracked files come to\n/root/NAME as they are in your working tree, and that is where the shell or the command begins.",
  args: [{ name: "PATH", help: "a folder of a git repository to bring in", optional: true }],
  argv: "dashes",
  flags,
  examples: [
    ["banger vm run", "a shell in a new VM"],
    ["banger vm run --rm -- uname -a", "one command, then the VM is gone"],
    ["banger vm run ./repo", "a shell in your repository, in a new VM"],
    ["banger vm run --rm ./repo -- make test", "its tests, and the VM is gone"],
    ["banger vm run -d --name box --memory 4G", "a VM in the background"],
    ["banger vm run --rm < script.sh", "a script"],
    ["banger vm run --rm --net-learn test.policy ./repo -- make test", "what do the tests need of the network?"],
    ["banger vm run --rm --net-policy test.policy ./repo -- make test", "that, and no more"],
  ],
  run: async (input: Input) => {
    refuseMeaningless(input);
    const [path] = input.args;
    if (path === undefined) return await runIn(input, undefined);
    const { listing } = await import("../workspace/plan.ts");
    const { workspaceStaging } = await import("../workspace/staging.ts");
    await using staging = await workspaceStaging();
    const workspace = await readWorkspace(input, path, staging.path);
    return input.values["dry-run"] ? listing(workspace.plan) : await runIn(input, workspace);
  },
});

const runIn = async (input: Input, workspace: Workspace | undefined): Promise<Outcome> => {
  const asked = await requestOf(input.values);
  using client = openClient();
  return input.values.detach
    ? await runDetached(client, input, asked, workspace)
    : await runAttached(client, input, asked, workspace);
};

const endWith = (over: AbortController, signal: AbortSignal): void =>
  signal.addEventListener("abort", () => over.abort(signal.reason), { once: true });

/** What the repository says is said to the user, unless only its files are asked for. */
const readWorkspace = async ({ values }: Input, path: string, staging: string): Promise<Workspace> => {
  using interrupt = interruptible();
  const over = new AbortController();
  endWith(over, interrupt.signal);
  const { planFrom } = await import("../workspace/plan.ts");
  const plan = await planFrom(path, values, staging, over.signal).catch((error: unknown) => {
    throw orCommand(error, path);
  });
  if (values["dry-run"]) return { plan, staging, container: undefined, over };
  await sayNotes(plan.notes);
  const { containerOf } = await import("../workspace/container.ts");
  return { plan, staging, container: values["no-bootstrap"] ? undefined : await containerOf(plan), over };
};

/** A word that is no folder may be a command whose `--` was forgotten. */
const orCommand = (error: unknown, path: string): unknown =>
  error instanceof BangerError && error.code === "WORKSPACE_REFUSED" && !/[./]/.test(path)
    ? new BangerError(error.code, error.message, {
        hint: `give a folder of a git repository; to run a command in a VM: banger vm run -- ${path}`,
        cause: error,
      })
    : error;
