import { constants } from "node:os";
import { BangerError, nearest } from "../../contract/errors.ts";
import { quoted } from "../../contract/names.ts";

const parseSignal = (value: string): string => {
  const name = value.toUpperCase().replace(/^(?!SIG)/, "SIG");
  if (Object.hasOwn(constants.signals, name)) return name;
  const near = nearest(name, Object.keys(constants.signals));
  throw new BangerError("USAGE", `${quoted(value)} is not a signal`, {
    hint: near ? `did you mean \`${near}\`?` : "such as KILL or TERM",
  });
};

export const signalFlag = {
  kind: "value",
  short: "s",
  placeholder: "SIGNAL",
  help: "signal for the VM's process; default: KILL",
  parse: parseSignal,
} as const;
