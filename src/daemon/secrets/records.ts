/** From what is asked for to what a VM has. */
import { randomBytes } from "node:crypto";
import { BangerError } from "../../contract/errors.ts";
import {
  checkSecretHeaders,
  checkSecretHosts,
  checkSecretName,
  checkSecretValue,
  SECRET_HEADERS,
} from "../../contract/secret-text.ts";
import type { SecretRecord, SetSecret } from "../../contract/secrets.ts";
import { PLACEHOLDER_PREFIX } from "./put-in.ts";
import type { KeptSecret } from "./values.ts";

const newPlaceholder = (): string => `${PLACEHOLDER_PREFIX}${randomBytes(16).toString("hex")}`;

export const recordOf = ({ name, hosts, headers, placeholder }: SecretRecord): SecretRecord => ({
  name,
  hosts,
  headers,
  placeholder,
});

/**
 * Checks what is to be set.
 * @param there what the VM has of the same names: placeholders stay, since programs hold them
 * @param kept their values: hosts that came with a value of the user's own need not be named again
 * @throws USAGE
 */
export const settle = (
  wanted: readonly SetSecret[],
  there: readonly SecretRecord[],
  kept: readonly KeptSecret[] = [],
): KeptSecret[] => {
  const names = wanted.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined)
    throw new BangerError("USAGE", `secret ${twice} is given twice`, { hint: "give each name once" });
  return wanted.map(({ name, value, hosts, headers }) => {
    checkSecretName(name);
    const before = there.find((record) => record.name === name);
    const known = kept.find((record) => record.name === name);
    // Hosts of a copy may be somebody else's choice: whoever gives the value says where it goes.
    const target = hosts ?? known?.hosts;
    if (target === undefined)
      throw new BangerError("USAGE", `secret ${name} is for no host yet`, {
        hint: `name those that may get it: ${name}@api.example.com`,
      });
    return {
      name,
      placeholder: before?.placeholder ?? newPlaceholder(),
      hosts: checkSecretHosts(target),
      headers: headers ? checkSecretHeaders(headers) : [...(before?.headers ?? SECRET_HEADERS)],
      value: checkSecretValue(name, value),
    };
  });
};

/**
 * Those of a snapshot, which may be of somebody else's making: the daemon acts on their names and hosts.
 * @throws SAVED_CORRUPT
 */
export const checkCopied = (records: readonly SecretRecord[]): void => {
  try {
    for (const { name, hosts, headers } of records) {
      checkSecretName(name);
      checkSecretHosts(hosts);
      checkSecretHeaders(headers);
    }
  } catch (error) {
    throw new BangerError("SAVED_CORRUPT", "what was saved names secrets as banger names none", { cause: error });
  }
};

/** What replaces one of the same name takes its place. */
export const merged = <T extends { name: string }>(there: readonly T[], fresh: readonly T[]): T[] => [
  ...there.map((one) => fresh.find(({ name }) => name === one.name) ?? one),
  ...fresh.filter(({ name }) => !there.some((one) => one.name === name)),
];

/** More than so many of one VM are a mistake. */
export const SECRETS_MAX = 100;

/** @throws USAGE for what a VM cannot have */
export const checkSecrets = (
  { network, env }: { network: string; env: Readonly<Record<string, string>> },
  records: readonly SecretRecord[],
): void => {
  if (records.length === 0) return;
  if (network === "none")
    throw new BangerError("USAGE", "a VM without a network card reaches no host that a secret could be for", {
      hint: "leave out --net none (--net policy allows what --allow names, and nothing else), or the secrets",
    });
  if (records.length > SECRETS_MAX)
    throw new BangerError("USAGE", `a VM can have ${SECRETS_MAX} secrets, not ${records.length}`, {
      hint: "delete some: banger vm secret delete VM NAME",
    });
  const both = records.find(({ name }) => name in env);
  if (both)
    throw new BangerError("USAGE", `${both.name} is a secret and a variable of the VM`, {
      hint: `leave out --env ${both.name}: the VM sees a placeholder there`,
    });
};
