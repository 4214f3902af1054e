/** The one printer of errors. */
import { type BangerError, errorTable, toBangerError, toErrorBody } from "../../contract/errors.ts";
import { paint, say } from "./output.ts";
import { asciiJson, harmless } from "./plain.ts";

const hintOf = (error: BangerError): string | undefined => {
  if (error.hint !== undefined) return error.hint;
  if (errorTable[error.code].owner !== "bug") return undefined;
  const operation = error.details?.operation;
  const which = typeof operation === "string" ? ` --operation ${operation}` : "";
  return `this is a bug in banger: \`banger daemon logs${which}\` may say more`;
};

/**
 * Prints an error on stderr: `banger: message`, then `hint: ...`; with `--json` as one ErrorBody.
 * @returns the exit status it stands for
 */
export const printError = async (thrown: unknown, json: boolean): Promise<number> => {
  const error = toBangerError(thrown);
  const { exit } = errorTable[error.code];
  if (json) {
    await say(asciiJson(toErrorBody(error)));
    return exit;
  }
  // A message may carry what a guest said.
  await say(`${paint("banger:", "red")} ${harmless(error.message)}`);
  const tail = error.details?.tail;
  if (typeof tail === "string" && tail !== "") await say(harmless(tail).replace(/^/gm, "  "));
  const hint = hintOf(error);
  if (hint !== undefined) await say(`${paint("hint:", "yellow")} ${harmless(hint)}`);
  if (process.env.BANGER_DEBUG && error.stack) await say(error.stack);
  return exit;
};
