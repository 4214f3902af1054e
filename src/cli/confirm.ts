/** Asks a yes-or-no question on the terminal. */
import { BangerError } from "../contract/errors.ts";
import { prompt } from "./render/prompt.ts";
import { stdinIsTerminal } from "./terminal.ts";

/**
 * @param unattended the command that needs no answer, for the hint
 * @throws USAGE when there is nobody to ask
 */
export const confirm = async (question: string, unattended: string): Promise<boolean> => {
  if (!stdinIsTerminal())
    throw new BangerError("USAGE", `there is no terminal to ask on: ${question}`, { hint: unattended });
  return /^y(es)?$/i.test((await prompt(`${question} [y/N] `)).trim());
};
