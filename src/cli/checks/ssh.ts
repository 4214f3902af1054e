/** ssh into VMs: the user's key, and whether plain ssh knows the VMs. */
import { stat } from "node:fs/promises";
import type { Config } from "../../contract/config.ts";
import { errnoOf } from "../../contract/errors.ts";
import { exists } from "../../host/files.ts";
import { sshConfigFile, userSshConfigFile } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import { findIncludes, readUserConfig } from "../ssh-config/user-config.ts";
import { advise, type Check, fail, pass, warn } from "./check.ts";

const keyCheck = ({ sshKeyPath, sshKeyIsOurs }: Config): Check => ({
  name: "ssh key",
  look: async () => {
    try {
      const found = await stat(sshKeyPath);
      if (!found.isFile()) return advise(fail(`${sshKeyPath} is no file`), "correct `ssh_key_path` in config.toml");
      if ((found.mode & 0o077) !== 0)
        return fail(`${sshKeyPath} can be read by others, so ssh refuses it`, ["chmod", "600", sshKeyPath]);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ENOTDIR") throw error;
      if (sshKeyIsOurs) return pass("made when the first VM starts");
      return fail(`\`ssh_key_path\` names ${sshKeyPath}, which is not there`, [
        "ssh-keygen",
        "-t",
        "ed25519",
        "-f",
        sshKeyPath,
      ]);
    }
    if (await exists(`${sshKeyPath}.pub`)) return pass(sshKeyPath);
    const derived = await runTool({ argv: ["ssh-keygen", "-y", "-P", "", "-f", sshKeyPath], okStatus: [0, 255, 1] });
    if (derived.status === 0) return pass(`${sshKeyPath}; its public half is made from it`);
    return advise(
      fail(`${sshKeyPath} has no public half beside it, and none can be made: it is no key, or has a passphrase`),
      `make it: ssh-keygen -y -f '${sshKeyPath}' > '${sshKeyPath}.pub'`,
    );
  },
});

const includeCheck: Check = {
  name: "ssh config",
  look: async () => {
    const path = userSshConfigFile();
    const found = findIncludes((await readUserConfig(path, sshConfigFile())).bytes, sshConfigFile());
    if (found.some(({ effective }) => effective)) return pass(`${path} includes banger's: \`ssh NAME.vm\` works`);
    const why = found.length > 0 ? "includes banger's inside a Host or Match block" : "does not include banger's";
    return warn(`${path} ${why}: \`ssh NAME.vm\` works with -F ${sshConfigFile()} only`, [
      "banger",
      "ssh-config",
      "--install",
    ]);
  },
};

export const sshChecks = (config: Config | undefined): Check[] => [...(config ? [keyCheck(config)] : []), includeCheck];
