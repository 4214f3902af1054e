/** What the scripts of `banger completion` ask: `banger complete SHELL INDEX -- WORD...`. In no table: nobody types it. */
import { BangerError } from "../../contract/errors.ts";
import type { Outcome } from "../command.ts";
import { oneOf } from "../flags/values.ts";
import { printable } from "../render/table.ts";
import { type Completion, complete } from "./complete.ts";
import { liveNames } from "./live-names.ts";
import { type Shell, shells } from "./scripts.ts";

/** bash cuts words at `=` and `:`, and takes back only what follows the last cut. */
const joinCut = (words: readonly string[]): string[] =>
  words.reduce<string[]>((joined, word, index) => {
    const before = words[index - 1];
    const sticks = /^[=:]/.test(word) || (before !== undefined && /^[=:]+$/.test(before));
    if (sticks && joined.length > 1) joined.push(`${joined.pop() ?? ""}${word}`);
    else joined.push(word);
    return joined;
  }, []);

const cutOff = (current: string): number => Math.max(current.lastIndexOf("="), current.lastIndexOf(":")) + 1;

const answer = (shell: Shell, { candidates, files, open }: Completion, current: string): string => {
  const how = [...(files ? ["files"] : []), ...(open ? ["open"] : [])].join(" ");
  const from = shell === "bash" ? cutOff(current) : 0;
  const lines = candidates.map(({ value, what }) =>
    shell === "bash" ? value.slice(from) : `${value}\t${printable(what)}`,
  );
  return [how, ...lines].join("\n");
};

/**
 * @param asked the shell, the index of the word at the cursor, `--`, and all words of the line, `banger` first
 * @returns how it is completed in the first line, then a candidate a line
 */
export const answerShell = async ([name = "", index = "", , ...argv]: readonly string[]): Promise<Outcome> => {
  const shell = oneOf("shell", shells)(name);
  if (!/^\d+$/.test(index)) throw new BangerError("USAGE", `${JSON.stringify(index)} is no index of a word`);
  const typed = argv.slice(0, Number(index) + 1);
  // Nothing is typed yet where the cursor stands.
  if (typed.length <= Number(index)) typed.push("");
  const words = shell === "bash" ? joinCut(typed) : typed;
  const current = words.pop() ?? "";
  try {
    return { text: answer(shell, await complete(words.slice(1), current, liveNames), current) };
  } catch (error) {
    // A line that means nothing yet has no completion.
    if (error instanceof BangerError && error.code === "USAGE") return {};
    throw error;
  }
};
