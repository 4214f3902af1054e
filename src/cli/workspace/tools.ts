/** Tools that a repository pins, brought to a VM: before a command, behind a shell. What fails is said in one line and never fatal. */
import { createHash } from "node:crypto";
import type { Progress } from "../../contract/progress.ts";
import type { Client } from "../../client/client.ts";
import type { Devcontainer } from "../../workspace/devcontainer.ts";
import { failureIn, lastStatusProgram, pinsIn, setUpProgram, toolsLog, wentWell } from "../../workspace/tools.ts";
import type { WorkspacePlan } from "../../workspace/plan.ts";
import { raw } from "../../workspace/git.ts";
import { below } from "../../workspace/manifest.ts";
import { sayNotes } from "../vm/shared.ts";
import { workspacePath } from "./bring.ts";
import { guestProgram } from "./guest.ts";

type Vm = { id: string; name: string };
/** `before`: waits until all is there. `behind`: goes on while somebody works. */
export type ToolsMode = "before" | "behind";

const where = ({ name }: Vm, log: string): string => `banger vm exec ${name} -- cat '${log}'`;

/**
 * Where the last time went well with the same, nothing is done.
 * @param container what a new VM is asked to be set up with besides
 */
export const setUp = async (
  client: Client,
  vm: Vm,
  plan: WorkspacePlan,
  mode: ToolsMode,
  progress: Progress,
  container?: Devcontainer,
): Promise<void> => {
  const { name, below: inside } = plan.repository;
  const { tools = [], commands = [] } = container ?? {};
  const pins = pinsIn(plan.paths, raw(inside));
  if (pins.length + tools.length + commands.length === 0) return;
  const log = toolsLog(name);
  const program = guestProgram(client, vm.id, progress.signal);
  const key = keyOf(plan, pins);
  const { stdout } = await program(lastStatusProgram(log));
  if (!container && stdout.toString("utf8").trim() === wentWell(key)) return;
  const root = workspacePath(plan);
  const path = inside === "" ? root : `${root}/${inside}`;
  const from = [
    ...pins.map((pin) => Buffer.from(pin, "latin1").toString("utf8")),
    ...(container ? [container.file] : []),
  ];
  progress.report({ stage: "tools", message: `what ${from.slice(0, 3).join(", ")} asks for is set up` });
  const request = { path, log, behind: mode === "behind", pins: pins.length > 0, tools, key, commands };
  const { status, stderr } = await program(setUpProgram(request), { okStatus: allStatuses });
  if (status !== 0) await sayNotes([failed(vm, stderr, log)]);
};

/** Names of the contents of those files, as one. */
const keyOf = ({ states }: WorkspacePlan, pins: readonly string[]): string => {
  const wanted = new Set(pins);
  const hash = createHash("sha256");
  for (const [at, { entries }] of states)
    for (const { path, oid } of entries) if (wanted.has(below(at, path))) hash.update(`${below(at, path)}\0${oid}\0`);
  return hash.digest("hex");
};

const failed = (vm: Vm, said: string, log: string): string =>
  `tools were not installed: ${failureIn(said)}; the log: ${where(vm, log)}`;

const allStatuses = Array.from({ length: 256 }, (_, status) => status);

/** Says how the installation behind a shell ended; nothing where it went well, or there was none. */
export const saySetUpOutcome = async (
  client: Client,
  vm: Vm,
  plan: WorkspacePlan,
  signal: AbortSignal,
): Promise<void> => {
  const log = toolsLog(plan.repository.name);
  const look =
    'if [ -f "$1.status" ]; then cat "$1.status"; tail -c 4096 "$1" >&2; elif [ -f "$1" ]; then echo open; else echo 0; fi';
  const { stdout, stderr } = await guestProgram(client, vm.id, signal)(["sh", "-c", look, "sh", log]);
  const status = stdout.toString("utf8").trim();
  if (status === "open") await sayNotes([`tools are still being installed; the log: ${where(vm, log)}`]);
  else if (!/^0(?: |$)/.test(status)) await sayNotes([failed(vm, stderr, log)]);
};
