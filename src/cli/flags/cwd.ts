import { text } from "./values.ts";

export const cwdFlag = {
  kind: "value",
  short: "w",
  placeholder: "GUEST_DIR",
  help: "working directory in the guest",
  parse: text,
} as const;
