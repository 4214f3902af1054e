/** Parsers that several flags share. */
import { BangerError, nearest } from "../../contract/errors.ts";
import { quoted } from "../../contract/names.ts";

export const text = (value: string): string => value;

/** @throws USAGE when it is not a whole number above zero */
export const positiveInteger =
  (what: string) =>
  (value: string): number => {
    const number = /^\d+$/.test(value) ? Number(value) : Number.NaN;
    if (Number.isSafeInteger(number) && number > 0) return number;
    throw new BangerError("USAGE", `${quoted(value)} is not a valid ${what}`, {
      hint: "give a whole number above zero",
    });
  };

/** @throws USAGE when it is none of `choices` */
export const oneOf =
  <T extends string>(what: string, choices: readonly T[]) =>
  (value: string): T => {
    const found = choices.find((choice) => choice === value);
    if (found !== undefined) return found;
    const near = nearest(value, choices);
    throw new BangerError("USAGE", `${quoted(value)} is not a valid ${what}`, {
      hint: near ? `did you mean \`${near}\`?` : `choose one of ${choices.join(", ")}`,
    });
  };
