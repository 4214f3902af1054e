import { checkName } from "../../contract/names.ts";

export const nameFlag = {
  kind: "value",
  placeholder: "NAME",
  help: "name of the VM; default: an adjective and a noun",
  parse: (value: string) => checkName(value, "VM name"),
} as const;
