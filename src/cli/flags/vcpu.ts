import { positiveInteger } from "./values.ts";

export const vcpuFlag = {
  kind: "value",
  placeholder: "N",
  help: "virtual CPUs",
  parse: positiveInteger("number of CPUs"),
} as const;
