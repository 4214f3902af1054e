import { oneOf } from "./values.ts";

export const netFlag = {
  kind: "value",
  placeholder: "user|none",
  help: "user: outgoing connections; none: no network card",
  parse: oneOf("network", ["user", "none"]),
} as const;
