import type { Config } from "../contract/config.ts";
import { loadConfig } from "../host/config.ts";
import { cliBinary } from "../host/paths.ts";
import { runInForeground } from "../host/process.ts";
import { type Check, type Finding, type Fix, runCheck, shellLine } from "./checks/check.ts";
import { folderChecks } from "./checks/folders.ts";
import { guestChecks } from "./checks/guests.ts";
import { hostChecks } from "./checks/host.ts";
import { leftoverChecks } from "./checks/leftovers.ts";
import { nameChecks } from "./checks/names.ts";
import { programsCheck } from "./checks/programs.ts";
import { sshChecks } from "./checks/ssh.ts";
import { stateChecks } from "./checks/state.ts";
import { vmmChecks } from "./checks/vmm.ts";
import { defineCommand } from "./command.ts";
import { confirm } from "./confirm.ts";
import { usage } from "./parse.ts";
import { paint, say } from "./render/output.ts";
import { printable } from "./render/table.ts";

const colours = { pass: "green", warn: "yellow", fail: "red" } as const;

const line = ({ name, status, message, fix, hint }: Finding, width: number): string => {
  const more = [
    ...(fix.length > 0 ? [`mend it: ${printable(shellLine(fix))}`] : []),
    ...(hint !== undefined ? [`${fix.length > 0 ? "and:     " : "mend it:"} ${printable(hint)}`] : []),
  ];
  const indent = " ".repeat(width + 8);
  return [
    `${paint(status, colours[status], 1)}  ${name.padEnd(width)}  ${printable(message)}`,
    ...(status === "pass" ? [] : more.map((text) => indent + text)),
  ].join("\n");
};

const readConfig = async (): Promise<{ config: Config | undefined; error: unknown }> => {
  try {
    return { config: await loadConfig(), error: undefined };
  } catch (error) {
    return { config: undefined, error };
  }
};

const lookAtAll = async (): Promise<Finding[]> => {
  const { config, error } = await readConfig();
  const checks: Check[] = [
    ...hostChecks(config),
    ...vmmChecks(config),
    programsCheck(),
    ...stateChecks(config, error),
    ...folderChecks,
    ...sshChecks(config),
    ...nameChecks(config),
    ...guestChecks,
    ...leftoverChecks,
  ];
  return await Promise.all(checks.map(runCheck));
};

/** Runs the command as it was shown; `banger` is this one, wherever it is installed. */
const runFix = async ([program, ...args]: Fix): Promise<boolean> => {
  const { status } = await runInForeground([program === "banger" ? cliBinary() : program, ...args], 2);
  return status === 0;
};

/** Asks for each finding that commands can mend, and runs them. @returns whether anything was run */
const mend = async (findings: readonly Finding[], ask: boolean): Promise<boolean> => {
  let ran = false;
  for (const { name, message, status, fix } of findings) {
    if (status === "pass" || fix.length === 0) continue;
    await say(`${name}: ${printable(message)}`);
    const question = `  run \`${printable(shellLine(fix))}\`?`;
    if (ask && !(await confirm(question, "to run all of them unasked: banger doctor --fix --yes"))) continue;
    if (!ask) await say(`  ${printable(shellLine(fix))}`);
    ran = true;
    for (const argv of fix) {
      if (await runFix(argv)) continue;
      await say(`  it failed: ${printable(shellLine([argv]))}`);
      break;
    }
  }
  return ran;
};

export const command = defineCommand({
  usage: ["", "--fix"],
  description:
    "Looks and changes nothing, unless --fix is given; works whether or not the daemon runs. Exits with 1 when a check fails.\n--fix shows the command for each finding, asks, runs it without a shell, and looks again.",
  args: [],
  argv: "none",
  flags: {
    fix: { kind: "switch", help: "run the commands that mend what was found, after asking" },
    yes: { kind: "switch", short: "y", help: "with --fix: do not ask" },
  },
  examples: [
    ["banger doctor", "is everything there that banger needs?"],
    ["banger doctor --fix", "and mend what can be mended"],
    ["banger doctor --json", "the same for a program"],
  ],
  run: async ({ values }) => {
    if (values.yes && !values.fix) throw usage("doctor", "--yes answers the questions of --fix, which is not given");
    let findings = await lookAtAll();
    if (values.fix && (await mend(findings, !values.yes))) findings = await lookAtAll();
    const width = Math.max(...findings.map(({ name }) => name.length));
    return {
      exit: findings.some(({ status }) => status === "fail") ? 1 : 0,
      data: findings,
      text: findings.map((finding) => line(finding, width)).join("\n"),
    };
  },
});
