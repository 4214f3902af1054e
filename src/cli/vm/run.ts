import type { Vm } from "../../contract/vms.ts";
import { type Client, openClient } from "../../client/client.ts";
import { defineCommand, type Invocation, type Outcome } from "../command.ts";
import { detachFlag } from "../flags/detach.ts";
import { environmentOf } from "../flags/env.ts";
import { rmFlag } from "../flags/rm.ts";
import { interruptible } from "../interrupt.ts";
import { usage } from "../parse.ts";
import { isTerminal, paint, say } from "../render/output.ts";
import { progressDisplay, shapeLine } from "../render/progress.ts";
import { runSession } from "../session.ts";
import { createRequest, execFlags, planSession, refuseEmptyProgram, sayNotes, shapeFlags } from "./shared.ts";

const timingsFlag = { kind: "switch", help: "say at the end where the time went" } as const;
const flags = { rm: rmFlag, detach: detachFlag, timings: timingsFlag, ...shapeFlags, ...execFlags } as const;
type Input = Invocation<typeof flags>;

const refuseMeaningless = ({ args, argv, values }: Input): void => {
  const [path] = args;
  if (path !== undefined) {
    throw usage(
      "vm run",
      `unexpected argument: ${path}`,
      `to run a command write \`banger vm run -- ${path}\`; folders cannot be brought into a VM by \`vm run\`: use \`banger vm cp\``,
    );
  }
  if (argv?.length === 0)
    throw usage("vm run", "nothing follows `--`", "write the command after it, or leave it out for a shell");
  refuseEmptyProgram("vm run", argv ?? []);
  if (!values.detach) return;
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

const runDetached = async (client: Client, { values }: Input): Promise<Outcome> => {
  using interrupt = interruptible();
  using display = progressDisplay();
  const progress = { signal: interrupt.signal, report: display.report };
  const request = { ...createRequest(values), env: environmentOf(values.env) };
  const created = await client.operation("vmCreate", {}, request, progress);
  try {
    const vm = await client.operation("vmStart", { vm: created.id }, {}, progress);
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

const runAttached = async (client: Client, { values, argv = [] }: Input): Promise<Outcome> => {
  const plan = planSession(argv, values);
  using display = progressDisplay();
  const introduce = introducer();
  const times = stopwatch();
  let vm: Vm | undefined;
  const stream = await client.stream(
    "vmRun",
    {},
    { vm: { ...createRequest(values), ...(values.rm ? { ephemeral: true } : {}) }, exec: plan.exec },
    {
      onEvent: (event) => {
        if (event.progress) {
          display.report(event.progress);
          times.mark(event.progress.message ?? event.progress.stage);
        }
        if (!event.vm) return;
        ({ vm } = event);
        display.clear();
        introduce(vm);
      },
    },
  );
  const exit = await runSession(stream, {
    ...plan,
    onOpened: () => {
      times.mark("the command");
      display[Symbol.dispose]();
    },
  });
  if (values.timings) await say(times.report());
  if (vm && !values.rm && argv.length === 0 && isTerminal(2)) {
    await say(`${vm.name} goes on running. Return: banger vm shell ${vm.name}   Delete: banger vm delete ${vm.name}`);
  }
  return { exit };
};

export const command = defineCommand({
  usage: ["[--rm] [FLAGS]", "[--rm] [FLAGS] -- COMMAND...", "-d [FLAGS]"],
  description:
    "Without a command you get a shell; a shell without a terminal reads its script from stdin. With a command, banger\nexits with its status. The VM stays unless --rm is given.",
  args: [{ name: "PATH", help: "a folder", optional: true, hidden: true }],
  argv: "dashes",
  flags,
  examples: [
    ["banger vm run", "a shell in a new VM"],
    ["banger vm run --rm -- uname -a", "one command, then the VM is gone"],
    ["banger vm run -d --name box --memory 4G", "a VM in the background"],
    ["banger vm run --rm < script.sh", "a script"],
  ],
  run: async (input: Input) => {
    refuseMeaningless(input);
    using client = openClient();
    return input.values.detach ? await runDetached(client, input) : await runAttached(client, input);
  },
});
