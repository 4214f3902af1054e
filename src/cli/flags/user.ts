import { text } from "./values.ts";

export const userFlag = {
  kind: "value",
  short: "u",
  placeholder: "USER",
  help: "user in the guest: name, uid, name:group; default: root",
  parse: text,
} as const;
