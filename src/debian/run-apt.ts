/** Runs one apt program with its progress and a watch for standstill, and names what went wrong. */
import { BangerError } from "../contract/errors.ts";
import { abortError, type Progress, throwIfAborted } from "../contract/progress.ts";
import { describeExit, eachLine, startProcess, toolMissing } from "../host/process.ts";
import { isDiskFull } from "../host/tool-errors.ts";
import type { PrivateApt } from "./private-apt.ts";

/** With no byte more for this long, in ms, the mirror counts as unreachable. */
export const STANDSTILL = 20_000;

export type AptCall = {
  apt: PrivateApt;
  argv: readonly [string, ...string[]];
  progress: Progress;
  /** The mirror's URLs, for errors. */
  mirror: string;
  cwd?: string | undefined;
  /** Called with the share that is done, 0 to 1, when it has changed. */
  onShare?: (share: number) => void;
  standstill?: number | undefined;
};

/**
 * Runs apt to its end.
 * @returns its stdout
 * @throws MIRROR_UNREACHABLE, MIRROR_UNTRUSTED, DISK_FULL, TOOL_FAILED, TOOL_MISSING or the signal's error
 */
export const runApt = async (call: AptCall): Promise<string> => {
  const { signal } = call.progress;
  throwIfAborted(signal);
  const [program, ...args] = call.argv;
  await using running = await startProcess({
    argv: [program, "-o", "APT::Status-Fd=3", ...args],
    env: call.apt.env,
    cwd: call.cwd,
    stdio: ["ignore", "pipe", "pipe", "pipe"],
    endWithParent: true,
  });
  const { child } = running;
  let stoodStill = false;
  const end = () => void running.terminate();
  const watch = setTimeout(() => {
    stoodStill = true;
    end();
  }, call.standstill ?? STANDSTILL);
  signal.addEventListener("abort", end, { once: true });
  try {
    let last = "";
    const status = child.stdio[3];
    if (status && "read" in status) {
      eachLine(status, (line) => {
        // dlstatus:<item>:<percent>:<text>, repeated twice a second also when nothing moves
        const [kind, item, percent] = line.split(":");
        if (kind !== "dlstatus" || `${item}:${percent}` === last) return;
        last = `${item}:${percent}`;
        watch.refresh();
        call.onShare?.(Math.min(1, Number(percent) / 100 || 0));
      });
    }
    const chunks: Buffer[] = [];
    const errors: string[] = [];
    child.stdout?.on("data", (chunk: Buffer) => chunks.push(chunk));
    if (child.stderr) eachLine(child.stderr, (line) => errors.push(line));
    const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
    const [exit] = await Promise.all([running.exited, closed]);
    if (signal.aborted) throw abortError(signal);
    const stdout = Buffer.concat(chunks).toString("utf8");
    if (stoodStill) throw unreachable(call.mirror, "no answer");
    if (exit.status === 0) return stdout;
    // setpriv's own status for a program that is not there
    if (exit.status === 127) throw toolMissing(program);
    throw aptError(call.mirror, errors, `${program} ${describeExit(exit)}`);
  } finally {
    clearTimeout(watch);
    signal.removeEventListener("abort", end);
  }
};

const MIRROR_HINT =
  'check the network, or set debian_mirror = "URL of a Debian mirror" in config.toml (`banger config path` names the file)';

const unreachable = (mirror: string, why: string): BangerError =>
  new BangerError("MIRROR_UNREACHABLE", `the Debian mirror cannot be reached (${mirror}): ${why}`, {
    hint: MIRROR_HINT,
    details: { mirror },
  });

const NETWORK =
  /could not resolve|failure resolving|no address associated|could not connect|unable to connect|cannot initiate the connection|connection (?:failed|refused|reset|timed out|closed)|timed out|network is unreachable|no route to host|could not wait for server|proxy|5\d\d\s/i;
const MISSING = /404\s+Not Found|does not have a Release file|no longer has a Release file|File not found/i;
const UNTRUSTED =
  /NO_PUBKEY|is not signed|invalid signature|EXPKEYSIG|KEYEXPIRED|could not verify|Hash Sum mismatch|is not valid yet|is expired|Missing key/i;

/** The error that apt's messages stand for. */
export const aptError = (mirror: string, lines: readonly string[], ending: string): BangerError => {
  const text = lines.join("\n");
  const first = (pattern: RegExp) => (lines.find((line) => pattern.test(line)) ?? "").replace(/^[EW]:\s*/, "").trim();
  if (isDiskFull(text)) {
    return new BangerError("DISK_FULL", "the disk is full: apt could not write its files", {
      hint: "free some space (`banger vm prune -f`, `banger image list`) and run the command again",
    });
  }
  if (UNTRUSTED.test(text)) {
    return new BangerError(
      "MIRROR_UNTRUSTED",
      `the Debian mirror's answer is not to be trusted (${mirror}): ${first(UNTRUSTED)}`,
      {
        hint: "check this machine's date, bring debian-archive-keyring up to date, or choose another debian_mirror in config.toml",
        details: { mirror },
      },
    );
  }
  if (NETWORK.test(text)) return unreachable(mirror, first(NETWORK));
  if (MISSING.test(text)) return unreachable(mirror, first(MISSING));
  return new BangerError("TOOL_FAILED", `${ending}: ${lines.slice(-6).join("\n") || "(no output)"}`);
};
