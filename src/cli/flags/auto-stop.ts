import { parseDuration, quoted } from "../../contract/names.ts";
import { BangerError } from "../../contract/errors.ts";

/** ms; 0: never; null: as the config says. */
const parse = (text: string): number | null => {
  if (text === "never") return 0;
  if (text === "default") return null;
  const milliseconds = parseDuration(text);
  if (milliseconds !== undefined) return milliseconds;
  throw new BangerError("USAGE", `${quoted(text)} is not a time`, {
    hint: 'give a time such as 30m or 2h, "never", or "default" for `auto_stop_stale_after` of the config',
  });
};

export const autoStopFlag = {
  kind: "value",
  placeholder: "TIME",
  help: "stop the VM after so long without use: 30m, 2h, never, default",
  parse,
} as const;
