/** Values of secrets, as their user has them. Apart from the flags: a command that takes none loads none of this. */
import { readFile } from "node:fs/promises";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { checkSecretValue } from "../../contract/secret-text.ts";
import type { Secret } from "../../contract/secrets.ts";
import type { ValuesOf } from "../command.ts";
import type { secretFlags } from "../flags/secret.ts";

/** Larger than any secret may be: what is read of a file or stdin. */
const READ_MAX = 64 * 1024;

/**
 * The user's own variable; from here on no program that is started has it, the daemon among them.
 * @throws USAGE
 */
export const variableValue = (name: string): string => {
  const value = process.env[name];
  if (value === undefined || value === "")
    throw new BangerError("USAGE", `there is no ${name} in your environment`, {
      hint: `export it, or give a file that holds the value (see --help)`,
    });
  delete process.env[name];
  return checkSecretValue(name, value);
};

/** @param path `-`: stdin @throws USAGE, FILE_NOT_FOUND */
export const fileValue = async (name: string, path: string): Promise<string> => {
  try {
    const text = path === "-" ? await stdinText() : await readFile(path, "utf8");
    return checkSecretValue(name, text);
  } catch (error) {
    if (error instanceof BangerError) throw error;
    const missing = errnoOf(error) === "ENOENT";
    throw new BangerError(
      missing ? "FILE_NOT_FOUND" : "FILE_REFUSED",
      `cannot read the value of ${name} from ${path}`,
      {
        hint: missing ? "check the path" : "see that you may read it, and that it is a file",
        cause: error,
      },
    );
  }
};

const stdinText = async (): Promise<string> => {
  let text = "";
  for await (const chunk of process.stdin) {
    text += String(chunk);
    if (text.length > READ_MAX) break;
  }
  return text;
};

/** What was given, with its values. @throws USAGE, FILE_NOT_FOUND */
export const secretsOf = async (values: ValuesOf<typeof secretFlags>): Promise<Secret[]> => {
  const { secret: variables, "secret-file": files, "secret-header": headers } = values;
  const stray = headers.find(({ name }) => ![...variables, ...files].some((given) => given.name === name));
  if (stray)
    throw new BangerError("USAGE", `--secret-header is about ${stray.name}, which is not given`, {
      hint: `add --secret ${stray.name}@HOST`,
    });
  const read = await Promise.all([
    ...variables.map(async ({ name, hosts }) => ({ name, hosts, value: variableValue(name) })),
    ...files.map(async ({ name, hosts, path }) => ({ name, hosts, value: await fileValue(name, path) })),
  ]);
  return read.map((secret) => {
    const named = headers.filter(({ name }) => name === secret.name).flatMap((one) => one.headers);
    return named.length > 0 ? { ...secret, headers: named } : secret;
  });
};
