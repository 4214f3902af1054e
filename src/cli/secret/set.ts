import { BangerError } from "../../contract/errors.ts";
import { checkSecretHeaders, parseSecret } from "../../contract/secret-text.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { vmArgument } from "../vm/shared.ts";
import { secretTable } from "./list.ts";
import { fileValue, variableValue } from "./values.ts";

export const command = defineCommand({
  usage: ["VM NAME@HOST[,HOST...]...", "VM NAME...", "--file PATH VM NAME@HOST"],
  description:
    "The value is your environment variable NAME, or in a file; it stays on this machine. Programs in the VM see a placeholder in its\nplace, and banger puts the value in where they send that to one of the hosts, over HTTPS, in a header that carries credentials.\nWithout hosts a secret whose value is there gets a new value. At once on a running VM; programs that run already see new names when they are started again.",
  args: [vmArgument, { name: "SECRET", help: "GITHUB_TOKEN@api.github.com,github.com", many: true }],
  argv: "none",
  flags: {
    file: {
      kind: "value",
      placeholder: "PATH",
      help: "the value is in this file; - is stdin",
      parse: (path: string) => path,
    },
    header: {
      kind: "list",
      placeholder: "HEADER",
      help: "put it into these headers only: X-Token[,…]; default: Authorization, X-Api-Key and their like",
      parse: (text: string) => checkSecretHeaders(text.split(",")),
    },
  },
  examples: [
    ["banger vm secret set box GITHUB_TOKEN@api.github.com,github.com", "for curl, gh and git"],
    ["pass show api | banger vm secret set --file - box API_KEY@api.example.com", "from a password store"],
    ["banger vm secret set box API_KEY", "a new value"],
  ],
  run: async ({ args: [vm = "", ...texts], values: { file, header } }) => {
    if (file !== undefined && texts.length > 1)
      throw new BangerError("USAGE", "a file holds the value of one secret", { hint: "set the others one by one" });
    const wanted = texts.map(parseSecret);
    const headers = header.flat();
    const set = await Promise.all(
      wanted.map(async ({ name, hosts }) => ({
        name,
        value: file === undefined ? variableValue(name) : await fileValue(name, file),
        ...(hosts ? { hosts } : {}),
        ...(headers.length > 0 ? { headers } : {}),
      })),
    );
    using client = openClient();
    const secrets = await client.call("vmSecretsChange", { vm }, { set });
    return { data: secrets, text: secretTable(secrets) };
  },
});
