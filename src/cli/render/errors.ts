/** The one printer of errors. */
import { type BangerError, errorTable, toBangerError, toErrorBody } from "../../contract/errors.ts";
import { paint, say } from "./output.ts";

const hintOf = (error: BangerError): string | undefined => {
  if (error.hint !== undefined) return error.hint;
  return errorTable[error.code].owner === "bug"
    ? "this is a bug in banger: `banger daemon logs` may say more"
    : undefined;
};

/**
 * Prints an error on stderr: `banger: message`, then `hint: ...`; with `--json` as one ErrorBody.
 * @returns the exit status it stands for
 */
export const printError = async (thrown: unknown, json: boolean): Promise<number> => {
  const error = toBangerError(thrown);
  const { exit } = errorTable[error.code];
  if (json) {
    await say(JSON.stringify(toErrorBody(error)));
    return exit;
  }
  await say(`${paint("banger:", "red")} ${error.message}`);
  const tail = error.details?.tail;
  if (typeof tail === "string" && tail !== "") await say(tail.replace(/^/gm, "  "));
  const hint = hintOf(error);
  if (hint !== undefined) await say(`${paint("hint:", "yellow")} ${hint}`);
  if (process.env.BANGER_DEBUG && error.stack) await say(error.stack);
  return exit;
};
