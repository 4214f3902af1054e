import { BangerError } from "../../contract/errors.ts";
import { LABEL_KEY, LABEL_VALUE, quoted } from "../../contract/names.ts";

export type Label = { key: string; value: string };

/** @throws USAGE */
export const checkLabelKey = (key: string): string => {
  if (LABEL_KEY.test(key)) return key;
  throw new BangerError("USAGE", `${quoted(key)} is not a valid label`, {
    hint: "a label has 1 to 63 characters of A-Z, a-z, 0-9 and `._/-`, with a letter or digit at either end",
  });
};

const parseLabel = (text: string): Label => {
  const at = text.indexOf("=");
  if (at < 0) throw new BangerError("USAGE", `${quoted(text)} is not a label`, { hint: "write KEY=VALUE" });
  const value = text.slice(at + 1);
  if (!LABEL_VALUE.test(value)) {
    throw new BangerError("USAGE", `the value of label ${text.slice(0, at)} is not valid`, {
      hint: "at most 255 characters, none of them a control character",
    });
  }
  return { key: checkLabelKey(text.slice(0, at)), value };
};

export const labelFlag = {
  kind: "list",
  short: "l",
  placeholder: "KEY=VALUE",
  help: "label, to find the VM by",
  parse: parseLabel,
} as const;

/** Later ones replace earlier ones of the same key. */
export const labelsOf = (labels: readonly Label[]): Record<string, string> =>
  Object.fromEntries(labels.map(({ key, value }) => [key, value]));
