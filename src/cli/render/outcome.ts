/** Prints what a command returned. */
import type { Outcome } from "../command.ts";
import { printError } from "./errors.ts";
import { printLine } from "./output.ts";
import { asciiJson } from "./plain.ts";

/** @returns the command's exit status */
export const printOutcome = async (outcome: Outcome, json: boolean): Promise<number> => {
  if (json) {
    if (outcome.data !== undefined) await printLine(asciiJson(outcome.data, 2));
  } else if (outcome.text !== undefined) await printLine(outcome.text);
  for (const error of outcome.errors ?? []) await printError(error, json);
  return outcome.exit ?? (outcome.errors?.length ? 1 : 0);
};
