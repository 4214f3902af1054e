/** Placeholders in the headers of a request, and the values that take their place where the request may carry them. */
import { BangerError } from "../../contract/errors.ts";
import type { SecretRecord } from "../../contract/secrets.ts";
import { formatSecretHost, isFor, parseSecretHost, type SecretHost } from "../../contract/secret-text.ts";

/** What all placeholders begin with. */
export const PLACEHOLDER_PREFIX = "banger_secret_";
const PLACEHOLDER = /banger_secret_[0-9a-f]{32}/g;

export type KnownSecret = Omit<SecretRecord, "hosts"> & {
  hosts: readonly SecretHost[];
  /** Undefined where it has not been given. */
  value: string | undefined;
};

export const knownSecret = (record: SecretRecord, value: string | undefined): KnownSecret => ({
  ...record,
  hosts: record.hosts.map(parseSecretHost),
  value,
});

/** Whether the host is one that some secret is for. */
export const isSecretsHost = (secrets: readonly KnownSecret[], to: SecretHost): boolean =>
  secrets.some(({ hosts }) => hosts.some((host) => isFor(host, to)));

const refuse = (message: string, hint: string, details: Record<string, unknown> = {}): never => {
  throw new BangerError("SECRET_REFUSED", message, { hint, details });
};

type Put = {
  /** Name, value, name, value. */
  headers: string[];
  /** What was put in, in the form in which it goes out: an answer may hold it. */
  sent: string[];
};

/**
 * @param headers name, value, name, value, as they came
 * @param path of the request, which never carries a value
 * @throws SECRET_REFUSED when a placeholder stands where its value must not go
 */
export const putIn = (
  headers: readonly string[],
  path: string,
  to: SecretHost,
  secrets: readonly KnownSecret[],
): Put => {
  if (path.includes(PLACEHOLDER_PREFIX))
    refuse(
      "a secret's placeholder stands in the address of a request, where its value is not put in",
      "send it in a header: an address ends up in logs",
    );
  const sent: string[] = [];
  const valueFor = (placeholder: string, header: string): string => {
    const secret = secrets.find((known) => known.placeholder === placeholder);
    if (!secret)
      return refuse(
        "a placeholder stands in a header that is of no secret of this VM",
        "it may have been deleted, or be another VM's: see `banger vm secret list VM`",
      );
    const { name, hosts, headers: allowed, value } = secret;
    const details = { secret: name, host: to.name, port: to.port, header };
    if (!hosts.some((host) => isFor(host, to)))
      return refuse(
        `secret ${name} is not for ${formatSecretHost(to)}`,
        `it is for ${hosts.map(formatSecretHost).join(", ")}; to change that: banger vm secret set VM ${name}@HOST,…`,
        details,
      );
    if (!allowed.includes(header))
      return refuse(
        `secret ${name} is not for header ${header}`,
        `it is for ${allowed.join(", ")}; to change that: banger vm secret set VM ${name} --header ${header}`,
        details,
      );
    if (value === undefined)
      return refuse(
        `secret ${name} has no value in this VM`,
        `a copy of a VM is given its values anew: banger vm secret set VM ${name}@${hosts.map(formatSecretHost).join(",")}`,
        details,
      );
    sent.push(value);
    return value;
  };
  const replaced = (text: string, header: string): string =>
    text.includes(PLACEHOLDER_PREFIX) ? text.replace(PLACEHOLDER, (found) => valueFor(found, header)) : text;
  const basic = (text: string, header: string): string => {
    const [, scheme = "", token = "", rest = ""] = /^(basic +)([A-Za-z0-9+/=]+)( *)$/i.exec(text) ?? [];
    if (token === "") return replaced(text, header);
    const plain = Buffer.from(token, "base64").toString("latin1");
    const filled = replaced(plain, header);
    if (filled === plain) return replaced(text, header);
    const encoded = Buffer.from(filled, "latin1").toString("base64");
    sent.push(encoded);
    return `${scheme}${encoded}${rest}`;
  };
  const out = headers.map((text, index) => {
    if (index % 2 === 0) return text;
    const header = (headers[index - 1] ?? "").toLowerCase();
    return header === "authorization" ? basic(text, header) : replaced(text, header);
  });
  return { headers: out, sent };
};
