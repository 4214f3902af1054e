import { homedir, userInfo } from "node:os";
import { BangerError } from "../../contract/errors.ts";
import { exists } from "../../host/files.ts";
import { sshConfigFile, userSshConfigFile } from "../../host/paths.ts";
import { defineCommand, type Outcome } from "../command.ts";
import { usage } from "../parse.ts";
import { record } from "../render/table.ts";
import {
  findIncludes,
  type Included,
  includeLine,
  readUserConfig,
  withInclude,
  withoutInclude,
  writeUserConfig,
} from "./user-config.ts";

/** Characters that mean something in an Include: quotes, and those of a file pattern. */
const UNSPEAKABLE = /["\\*?[\]$%\p{Cc}]/u;

const included = (found: readonly Included[]): Included | undefined =>
  found.find(({ effective }) => effective) ?? found[0];

const stateOf = (found: Included | undefined): string => {
  if (!found) return "does not include it: `ssh NAME.vm` works with -F only";
  if (!found.effective)
    return `includes it in line ${found.line}, inside a Host or Match block, where it counts for few`;
  return `includes it in line ${found.line}, ${found.ours ? "put there by banger" : "a line of your own"}`;
};

const show = async (path: string, ours: string): Promise<Outcome> => {
  const found = included(findIncludes((await readUserConfig(path, ours)).bytes, ours));
  const written = await exists(ours);
  return {
    data: {
      config: path,
      banger: ours,
      written,
      included: found?.effective === true,
      ...(found ? { line: found.line, ours: found.ours } : {}),
    },
    text: [
      record([
        [ours, written ? "written by the daemon: VMs as NAME.vm" : "written when the daemon starts"],
        [path, stateOf(found)],
      ]),
      ...(found?.effective
        ? ["", "Use it:      ssh NAME.vm", ...(found.ours ? ["Take it out: banger ssh-config --uninstall"] : [])]
        : [
            "",
            "Add it:      banger ssh-config --install",
            `  which puts at the top of ${path}: ${includeLine(ours)}`,
            `Without it:  ssh -F ${ours} NAME.vm`,
          ]),
    ].join("\n"),
  };
};

const install = async (path: string, ours: string): Promise<Outcome> => {
  if (UNSPEAKABLE.test(ours))
    throw new BangerError("FILE_REFUSED", `ssh cannot include a file of this name: ${ours}`, {
      hint: `use it with: ssh -F '${ours}' NAME.vm`,
    });
  const config = await readUserConfig(path, ours);
  const before = included(findIncludes(config.bytes, ours));
  const bytes = withInclude(config.bytes, ours);
  const changed = !bytes.equals(config.bytes);
  if (changed) await writeUserConfig(config, bytes, ours);
  const where = changed ? "added" : before?.ours ? "is there already" : `is there already, in line ${before?.line}`;
  return { data: { config: path, changed }, text: `${path}: ${where}. Use it: ssh NAME.vm` };
};

const uninstall = async (path: string, ours: string): Promise<Outcome> => {
  const config = await readUserConfig(path, ours);
  const bytes = withoutInclude(config.bytes);
  const changed = !bytes.equals(config.bytes);
  if (changed) await writeUserConfig(config, bytes, ours);
  const left = findIncludes(bytes, ours)[0];
  const rest = left ? `; line ${left.line}, which is your own, stays` : "";
  return {
    data: { config: path, changed },
    text: `${path}: ${changed ? "taken out" : "there was nothing of banger"}${rest}`,
  };
};

export const command = defineCommand({
  usage: ["", "--install", "--uninstall"],
  description:
    "With the Include, `ssh box.vm`, scp, rsync and editors know every VM by its name. Nothing else in the file is changed, and\nwithout a flag nothing at all.",
  args: [],
  argv: "none",
  flags: {
    install: { kind: "switch", help: "add one marked Include to ~/.ssh/config" },
    uninstall: { kind: "switch", help: "take it out again" },
  },
  examples: [
    ["banger ssh-config", "is it there, and what to do"],
    ["banger ssh-config --install", "make `ssh NAME.vm` work"],
    ["banger ssh-config --uninstall", "undo it"],
  ],
  run: async ({ values }) => {
    if (values.install && values.uninstall)
      throw usage("ssh-config", "--install and --uninstall contradict each other", "leave one of them out");
    const [path, ours] = [userSshConfigFile(), sshConfigFile()];
    const outcome = await (values.install ? install : values.uninstall ? uninstall : show)(path, ours);
    const { homedir: home } = userInfo();
    if (home === homedir()) return outcome;
    const note = `HOME is not your home folder by the password database: ssh reads ${home}/.ssh/config, not ${path}`;
    return { ...outcome, text: `${outcome.text}\n${note}` };
  },
});
