import { parseDuration, quoted } from "../../contract/names.ts";
import { BangerError } from "../../contract/errors.ts";

const parse = (text: string): number => {
  const milliseconds = parseDuration(text);
  if (milliseconds !== undefined) return milliseconds;
  throw new BangerError("USAGE", `${quoted(text)} is not a time`, { hint: "give a time such as 10s or 2m" });
};

export const timeoutFlag = {
  kind: "value",
  short: "t",
  placeholder: "TIME",
  help: "how long the guest may take to shut down before it is ended; default: 90s",
  parse,
} as const;
