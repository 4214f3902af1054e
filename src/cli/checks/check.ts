/** A check of `banger doctor`. */
import { toBangerError } from "../../contract/errors.ts";

export type CheckStatus = "pass" | "warn" | "fail";
export type CheckResult = {
  status: CheckStatus;
  /** What was found, one line. */
  message: string;
  /** The exact command that mends it. */
  fix?: string | undefined;
};
/** Looks, and changes nothing. */
export type Check = { name: string; look: () => Promise<CheckResult> };

export const pass = (message: string): CheckResult => ({ status: "pass", message });
export const warn = (message: string, fix?: string): CheckResult => ({ status: "warn", message, fix });
export const fail = (message: string, fix?: string): CheckResult => ({ status: "fail", message, fix });

/** A check that breaks is a finding too. */
export const runCheck = async ({ name, look }: Check): Promise<CheckResult & { name: string }> => {
  try {
    return { name, ...(await look()) };
  } catch (thrown) {
    const error = toBangerError(thrown);
    return { name, ...fail(error.message, error.hint) };
  }
};
