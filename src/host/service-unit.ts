/** The daemon as a systemd user service: the unit's text, and talking to the user's systemd. */
import { BangerError, toBangerError } from "../contract/errors.ts";
import { readFileIfThere } from "./files.ts";
import { daemonCommand, serviceUnitFile } from "./paths.ts";
import { runTool } from "./process.ts";

export const serviceName = "bangerd.service";
/** First line of a unit that is ours to change. */
const MARK = "# Written by `banger daemon install`; taken away by `banger daemon uninstall`.";

/** A word of a command line or a setting of the environment; `%` and `$` mean something to systemd. */
const word = (text: string): string =>
  `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("%", "%%").replaceAll("$", "$$$$")}"`;
const setting = (text: string): string =>
  `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("%", "%%")}"`;

const folders = ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] as const;

/** The unit of this program, for these folders. */
export const unitText = (
  command: readonly string[] = daemonCommand(),
  environment: Readonly<Record<string, string | undefined>> = process.env,
): string => `${MARK}
[Unit]
Description=banger, the owner of this user's microVMs

[Service]
Type=notify
NotifyAccess=all
ExecStart=${command.map(word).join(" ")}
${folders.flatMap((name) => (environment[name] ? [`Environment=${setting(`${name}=${environment[name]}`)}\n`] : [])).join("")}# VMs go on running when the daemon ends, is started again or crashes, and when the host runs out of memory over one of them.
KillMode=process
OOMPolicy=continue
TasksMax=infinity
Restart=on-failure
RestartSec=1
# It has said why, and would say it again: a config that is not valid, say.
RestartPreventExitStatus=1
TimeoutStopSec=30

[Install]
WantedBy=default.target
`;

const isOurs = (text: string): boolean => text.startsWith(MARK);

/** The unit that is installed, if it is ours. */
export const installedUnit = async (): Promise<string | undefined> => {
  const text = await readFileIfThere(serviceUnitFile());
  return text !== undefined && isOurs(text) ? text : undefined;
};

/** @throws FILE_REFUSED when somebody else's unit has our name */
export const refuseForeignUnit = async (): Promise<void> => {
  const text = await readFileIfThere(serviceUnitFile());
  if (text === undefined || isOurs(text)) return;
  throw new BangerError("FILE_REFUSED", `${serviceUnitFile()} is there and was not written by banger`, {
    hint: `look at it, and move it away: mv '${serviceUnitFile()}' '${serviceUnitFile()}.mine'`,
  });
};

/** @throws TOOL_FAILED with systemd's words */
export const systemctl = async (...args: readonly [string, ...string[]]): Promise<string> =>
  (await runTool({ argv: ["systemctl", "--user", ...args] })).stdout.trim();

/**
 * Makes sure that there is a systemd of this user's to talk to.
 * @throws SERVICE_UNAVAILABLE
 */
export const requireUserSystemd = async (): Promise<void> => {
  const uid = process.getuid?.();
  try {
    // Answers by the manager; any state of it will do.
    await systemctl("show", "--property=Version");
  } catch (error) {
    const cause = toBangerError(error);
    throw new BangerError(
      "SERVICE_UNAVAILABLE",
      cause.code === "TOOL_MISSING"
        ? "this machine has no systemd: there is nothing that could run a user service"
        : `there is no systemd of this user's to talk to: ${cause.message.replace(/^systemctl [^:]*: /, "")}`,
      {
        hint:
          cause.code === "TOOL_MISSING"
            ? "nothing is lost: the first command that needs the daemon starts it"
            : `log in by ssh or at the console rather than by su or sudo, or: sudo loginctl enable-linger ${uid}; export XDG_RUNTIME_DIR=/run/user/${uid}. Without it nothing is lost: the first command that needs the daemon starts it`,
        cause,
      },
    );
  }
};

/**
 * Starts the daemon by its service, where one is installed for this very program and these folders.
 * @returns whether it runs now
 */
export const startByService = async (): Promise<boolean> => {
  if ((await installedUnit()) !== unitText()) return false;
  try {
    await systemctl("start", serviceName);
    return true;
  } catch {
    // No session, or the daemon does not start: started without systemd, it says why itself.
    return false;
  }
};

/**
 * Tells systemd, where that has started this process, that it is ready.
 * @throws TOOL_FAILED, TOOL_MISSING: systemd then ends the process when it has waited long enough
 */
export const notifyReady = async (): Promise<void> => {
  if (!process.env.NOTIFY_SOCKET) return;
  try {
    await runTool({ argv: ["systemd-notify", "--ready"], signal: AbortSignal.timeout(10_000) });
  } finally {
    // Not for the programs that are started from here.
    delete process.env.NOTIFY_SOCKET;
  }
};
