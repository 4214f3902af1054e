/** A policy in a file: `allow RULE` or `deny RULE` a line, the first that fits decides; `#` begins a remark. */
import { constants } from "node:fs";
import { access, type FileHandle, open, readFile, realpath, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { quoted } from "../../contract/names.ts";
import type { NetRule } from "../../contract/network.ts";
import { formatNetRule, parseNetRule } from "../../contract/net-rules.ts";
import { writeFileAtomic } from "../../host/files.ts";
import { vmFiles } from "../../host/paths.ts";
import { linesOf } from "../follow-file.ts";
import { learnedFrom, type Told } from "./log-lines.ts";

const refuse = (message: string, hint: string, cause?: unknown): never => {
  throw new BangerError("USAGE", message, { hint, cause });
};

/** @param file for messages @throws USAGE with the number of the line that is no rule */
export const parsePolicy = (text: string, file: string): NetRule[] =>
  text.split("\n").flatMap((line, index) => {
    const [action, target, ...more] = (line.split("#")[0] ?? "").trim().split(/\s+/);
    if (action === undefined || action === "") return [];
    const where = `${file} line ${index + 1}`;
    if ((action !== "allow" && action !== "deny") || target === undefined || more.length > 0)
      return refuse(`${where}: ${quoted(line.trim())} is no line of a policy`, "write: allow example.org:443/tcp");
    try {
      return [parseNetRule(action, target)];
    } catch (error) {
      if (!(error instanceof BangerError)) throw error;
      return refuse(`${where}: ${error.message}`, error.hint ?? "", error);
    }
  });

/** @throws USAGE */
export const readPolicy = async (file: string): Promise<NetRule[]> => {
  try {
    return parsePolicy(await readFile(file, "utf8"), file);
  } catch (error) {
    if (error instanceof BangerError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    return refuse(`the policy cannot be read: ${why}`, "write one with: banger vm run --net-learn FILE", error);
  }
};

const targetOfTold = ({ address, port, name, protocol }: Told): string =>
  [name, address, port === undefined ? protocol : `${port}/${protocol}`].filter(Boolean).join(" ");

/** What `readPolicy` takes, with what was refused as remarks. */
export const policyText = ({ rules, refused }: { rules: readonly NetRule[]; refused: readonly Told[] }): string =>
  [
    "# What a run has reached, and no more: banger vm run --net-policy FILE",
    ...rules.map((rule) => `${rule.action} ${formatNetRule(rule)}`),
    ...(refused.length > 0 ? ["# What it was refused:"] : []),
    ...refused.map((told) => `#   ${targetOfTold(told)} by: ${told.rule}`),
    "",
  ].join("\n");

/** The file that a link leads to, or the one that is to be made. */
const placeOf = async (file: string): Promise<string> => {
  try {
    return await realpath(file);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    return resolve(file);
  }
};

export type Learner = AsyncDisposable & {
  /** From now on what its VM reaches can be read, even when that is gone. */
  begin(vm: string): Promise<void>;
  /** Writes the file, whole or not at all. */
  write(): Promise<void>;
};

/** @throws USAGE where the file could not be written in the end */
export const learnInto = async (file: string): Promise<Learner> => {
  try {
    const place = await placeOf(file);
    await access(dirname(place), constants.W_OK);
    if ((await stat(place).catch(() => undefined))?.isDirectory()) throw new Error(`${file} is a folder`);
    let log: FileHandle | undefined;
    return {
      begin: async (vm) => {
        log = await open(vmFiles(vm).networkLog, "r");
      },
      write: async () => {
        if (log === undefined) return;
        const learned = await learnedFrom(linesOf(log.createReadStream({ autoClose: false })));
        await writeFileAtomic(place, policyText(learned), 0o644);
      },
      [Symbol.asyncDispose]: async () => log?.close(),
    };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return refuse(`the policy cannot be written: ${why}`, "name a file in a folder that you may write to", error);
  }
};
