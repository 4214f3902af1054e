/** A check of `banger doctor`. */
import { toBangerError } from "../../contract/errors.ts";

export type CheckStatus = "pass" | "warn" | "fail";
/** Program and arguments: what mends a finding is run as it is shown, without a shell. */
export type Fix = readonly [string, ...string[]];
export type CheckResult = {
  status: CheckStatus;
  /** What was found, one line. */
  message: string;
  /** The exact commands that mend it, in this order. */
  fix: readonly Fix[];
  /** Where no command can do it: what a person has to. */
  hint?: string | undefined;
};
/** Looks, and changes nothing. */
export type Check = { name: string; look: () => Promise<CheckResult> };
export type Finding = CheckResult & { name: string };

export const pass = (message: string): CheckResult => ({ status: "pass", message, fix: [] });
export const warn = (message: string, ...fix: Fix[]): CheckResult => ({ status: "warn", message, fix });
export const fail = (message: string, ...fix: Fix[]): CheckResult => ({ status: "fail", message, fix });
/** Adds what a person has to do. */
export const advise = (result: CheckResult, hint: string): CheckResult => ({ ...result, hint });

/** A check that breaks is a finding too. */
export const runCheck = async ({ name, look }: Check): Promise<Finding> => {
  try {
    return { name, ...(await look()) };
  } catch (thrown) {
    const error = toBangerError(thrown);
    return { name, ...fail(error.message), hint: error.hint };
  }
};

/** A word as a shell needs it. */
const quoted = (word: string): string =>
  /^[\w@%+=:,./~-]+$/.test(word) && !word.startsWith("~") ? word : `'${word.replaceAll("'", `'\\''`)}'`;

/** Commands as one line for a shell. */
export const shellLine = (fixes: readonly Fix[]): string =>
  fixes.map((argv) => argv.map(quoted).join(" ")).join(" && ");

/** The command with the rights of root, for who has not got them. */
export const asRoot = (...argv: Fix): Fix => (process.getuid?.() === 0 ? argv : ["sudo", ...argv]);
