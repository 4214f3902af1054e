import { parseNetRule } from "../../contract/net-rules.ts";
import { checkName } from "../../contract/names.ts";
import { oneOf, text } from "./values.ts";

export const netFlag = {
  kind: "value",
  placeholder: "user|policy|learn|none",
  help: "user: the world, and nothing near; policy: only what is allowed; learn: as user, for vm net learned; none: no network card",
  parse: oneOf("network", ["user", "policy", "learn", "none"]),
} as const;

export const allowFlag = {
  kind: "list",
  placeholder: "RULE",
  help: "what it may reach besides: github.com:443, *.example.org, 192.168.1.5:5432, 192.168.1.0/24",
  parse: (text: string) => parseNetRule("allow", text),
} as const;

export const denyFlag = {
  kind: "list",
  placeholder: "RULE",
  help: "what it may not reach; looked at before what is allowed",
  parse: (text: string) => parseNetRule("deny", text),
} as const;

export const netPolicyFlag = {
  kind: "value",
  placeholder: "FILE",
  help: "--net policy with the rules of this file, which come after --deny and --allow: a line each, `allow github.com:443`",
  parse: text,
} as const;

export const netLearnFlag = {
  kind: "value",
  placeholder: "FILE",
  help: "--net learn, and write what the run has reached into this file, for --net-policy",
  parse: text,
} as const;

export const teamFlag = {
  kind: "value",
  placeholder: "NAME",
  help: "reach the other VMs of this team by NAME.vm, and be reached by them",
  parse: (name: string) => {
    checkName(name, "team name");
    return name;
  },
} as const;
