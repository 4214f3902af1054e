import { parseDuration, quoted } from "../../contract/names.ts";
import { BangerError } from "../../contract/errors.ts";

/** ms since 1970. */
const parse = (text: string): number => {
  const ago = parseDuration(text);
  const time = ago === undefined ? Date.parse(text) : Date.now() - ago;
  if (Number.isFinite(time)) return time;
  throw new BangerError("USAGE", `${quoted(text)} is neither a time nor a length of time`, {
    hint: "give a length such as 10m, or a time such as 2026-03-01T12:30",
  });
};

export const sinceFlag = {
  kind: "value",
  placeholder: "TIME",
  help: "only what was written since then: 10m, 2026-03-01T12:30",
  parse,
} as const;
