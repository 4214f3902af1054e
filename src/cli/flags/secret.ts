/** Secrets on a command line: never their values, which others could see there. */
import { BangerError } from "../../contract/errors.ts";
import { quoted } from "../../contract/names.ts";
import { checkSecretHeaders, checkSecretHosts, checkSecretName, parseSecret } from "../../contract/secret-text.ts";

type FromVariable = { name: string; hosts: string[] };
type FromFile = FromVariable & { path: string };

const noHosts = (name: string): never => {
  throw new BangerError("USAGE", `secret ${name} is for no host`, {
    hint: `name those that may get it: ${name}@api.example.com`,
  });
};

const fromVariable = (text: string): FromVariable => {
  const { name, hosts } = parseSecret(text);
  return { name, hosts: hosts ?? noHosts(name) };
};

const fromFile = (text: string): FromFile => {
  const [, name = "", path = "", hosts] = /^([^=@]*)=(.*)@([^@]*)$/s.exec(text) ?? [];
  // stdin is the command's.
  if (hosts === undefined || path === "" || path === "-")
    throw new BangerError("USAGE", `${quoted(text)} names no secret's file`, { hint: "write NAME=PATH@HOST" });
  return { name: checkSecretName(name), path, hosts: checkSecretHosts(hosts.split(",")) };
};

const headersOf = (text: string): { name: string; headers: string[] } => {
  const [, name = "", headers] = /^([^=]*)=(.+)$/s.exec(text) ?? [];
  if (headers === undefined)
    throw new BangerError("USAGE", `${quoted(text)} names no headers`, { hint: "write NAME=HEADER[,HEADER…]" });
  return { name: checkSecretName(name), headers: checkSecretHeaders(headers.split(",")) };
};

export const secretFlags = {
  secret: {
    kind: "list",
    placeholder: "NAME@HOST",
    help: "your variable NAME, for requests to HOST[,HOST…] only; the VM sees a placeholder. HOST: api.example.com, *.example.com, HOST:PORT",
    parse: fromVariable,
  },
  "secret-file": {
    kind: "list",
    placeholder: "NAME=PATH@HOST",
    help: "the same with the value in a file",
    parse: fromFile,
  },
  "secret-header": {
    kind: "list",
    placeholder: "NAME=HEADER",
    help: "put it into these headers only: X-Token[,…]; default: Authorization, X-Api-Key and their like",
    parse: headersOf,
  },
} as const;
