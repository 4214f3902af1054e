import type { SecretInfo } from "../../contract/secrets.ts";
import { SECRET_HEADERS } from "../../contract/secret-text.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { table } from "../render/table.ts";
import { vmArgument } from "../vm/shared.ts";

const headersText = (headers: readonly string[]): string =>
  headers.length === SECRET_HEADERS.length && SECRET_HEADERS.every((header) => headers.includes(header))
    ? "those for credentials"
    : headers.join(", ");

export const secretTable = (secrets: readonly SecretInfo[]): string =>
  table(
    ["NAME", "HOSTS", "HEADERS", "VALUE"],
    secrets.map(({ name, hosts, headers, given }) => [
      name,
      hosts.join(", "),
      headersText(headers),
      given ? "set" : "not set",
    ]),
  );

export const command = defineCommand({
  usage: ["VM"],
  description: "Values are never printed. `not set`: a copy out of a snapshot, which holds no values.",
  args: [vmArgument],
  argv: "none",
  flags: {},
  examples: [["banger vm secret list box", "which are there, and where may they go?"]],
  run: async ({ args: [vm = ""] }) => {
    using client = openClient();
    const secrets = await client.call("vmSecrets", { vm }, {});
    return { data: secrets, text: secretTable(secrets) };
  },
});
