import type { Config } from "../contract/config.ts";
import { loadConfig } from "../host/config.ts";
import { type CheckResult, runCheck } from "./checks/check.ts";
import { hostChecks } from "./checks/host.ts";
import { stateChecks } from "./checks/state.ts";
import { toolChecks } from "./checks/tools.ts";
import { defineCommand } from "./command.ts";
import { paint } from "./render/output.ts";
import { printable } from "./render/table.ts";

const colours = { pass: "green", warn: "yellow", fail: "red" } as const;

const line = ({ name, status, message, fix }: CheckResult & { name: string }, width: number): string => {
  const first = `${paint(status, colours[status], 1)}  ${name.padEnd(width)}  ${printable(message)}`;
  return fix && status !== "pass" ? `${first}\n${" ".repeat(width + 8)}mend it: ${fix}` : first;
};

const readConfig = async (): Promise<{ config: Config | undefined; error: unknown }> => {
  try {
    return { config: await loadConfig(), error: undefined };
  } catch (error) {
    return { config: undefined, error };
  }
};

export const command = defineCommand({
  usage: [""],
  description: "Looks and changes nothing; works whether or not the daemon runs. Exits with 1 when a check fails.",
  args: [],
  argv: "none",
  flags: {},
  examples: [
    ["banger doctor", "is everything there that banger needs?"],
    ["banger doctor --json", "the same for a program"],
  ],
  run: async () => {
    const { config, error } = await readConfig();
    const checks = [...hostChecks(config), ...toolChecks(config), ...stateChecks(config, error)];
    const results = await Promise.all(checks.map(runCheck));
    const width = Math.max(...results.map(({ name }) => name.length));
    return {
      exit: results.some(({ status }) => status === "fail") ? 1 : 0,
      data: results,
      text: results.map((result) => line(result, width)).join("\n"),
    };
  },
});
