/** Progress on stderr, for whatever takes more than a second: one live line on a terminal, plain lines elsewhere. */
import { formatSize } from "../../contract/names.ts";
import type { ProgressEvent } from "../../contract/progress.ts";
import { isTerminal, paint, terminalSize, write } from "./output.ts";

/** Work that is done sooner than this is not talked about, in ms. */
const QUIET = 1000;
/** Between two drawings of the live line, in ms. */
const FRAME = 100;
/** Between two plain lines about the same stage, in ms. */
const REPEAT = 10_000;

export type ProgressDisplay = Disposable & {
  report(event: ProgressEvent): void;
  /** Takes the live line away, to make room for other output. It comes back with the next event. */
  clear(): void;
};

export type ProgressTarget = {
  live: boolean;
  columns: () => number;
  write: (text: string) => void;
  now: () => number;
};

const terminal = (): ProgressTarget => ({
  live: isTerminal(2),
  columns: () => terminalSize().cols,
  write: (text) => void write(2, text).catch(() => undefined),
  now: () => performance.now(),
});

/** What is known of a stage: the last event, and where its amount stood at first, for the rate. */
type Stage = { event: ProgressEvent; since: number; from: number };

/** `download: 12 MiB of 45 MiB, 5.1 MiB/s` */
export const describeProgress = ({ event, since, from }: Stage, now: number): string => {
  const { stage, message, done, total, unit } = event;
  const amount = (n: number) => (unit === "bytes" ? formatSize(n) : String(n));
  const parts: string[] = [];
  if (message) parts.push(message);
  if (done !== undefined) {
    const unitName = unit && unit !== "bytes" ? ` ${unit}` : "";
    parts.push(`${amount(done)}${total === undefined ? "" : ` of ${amount(total)}`}${unitName}`);
    const seconds = (now - since) / 1000;
    if (unit === "bytes" && seconds > 0.5 && done > from)
      parts.push(`${formatSize(Math.round((done - from) / seconds))}/s`);
  }
  return parts.length === 0 ? stage : `${stage}: ${parts.join(", ")}`;
};

/** Cuts to the width of the terminal, and keeps what would move the cursor out. */
const fit = (text: string, columns: number): string => {
  const plain = text.replace(/\p{Cc}/gu, " ");
  return plain.length < columns ? plain : `${plain.slice(0, Math.max(0, columns - 2))}…`;
};

/** @param target where it goes; default: this process's stderr */
export const progressDisplay = (target: ProgressTarget = terminal()): ProgressDisplay => {
  const begun = target.now();
  let stage: Stage | undefined;
  let printed: { stage: string; at: number } | undefined;
  let drawn = false;
  let timer: NodeJS.Timeout | undefined;

  const draw = () => {
    timer = undefined;
    if (!stage) return;
    const text = describeProgress(stage, target.now());
    if (target.live) {
      target.write(`\r\x1b[K${paint(fit(text, target.columns()), "dim")}`);
      drawn = true;
    } else {
      printed = { stage: stage.event.stage, at: target.now() };
      target.write(`${fit(text, 512)}\n`);
    }
  };

  /** How long until the present state may be shown, in ms. */
  const wait = (): number => {
    const quiet = begun + QUIET - target.now();
    if (target.live) return Math.max(quiet, FRAME);
    const repeated = printed?.stage === stage?.event.stage && printed ? printed.at + REPEAT - target.now() : 0;
    return Math.max(quiet, repeated, 0);
  };

  const report = (event: ProgressEvent) => {
    const same = stage?.event.stage === event.stage;
    // A new plain stage does not wait for the timer of the one before it.
    if (!same && !target.live && timer) {
      clearTimeout(timer);
      timer = undefined;
    }
    stage = same && stage ? { ...stage, event } : { event, since: target.now(), from: event.done ?? 0 };
    timer ??= setTimeout(draw, wait()).unref();
  };

  const clear = () => {
    clearTimeout(timer);
    timer = undefined;
    if (drawn) target.write("\r\x1b[K");
    drawn = false;
  };

  return { report, clear, [Symbol.dispose]: clear };
};

/** `debian-bookworm, 2 vcpu, 2 GiB, 8 GiB disk, qemu/tcg` */
export const shapeLine = (vm: {
  image: string;
  vcpu: number;
  memory: number;
  diskSize: number;
  vmm: string;
  accel: string;
}): string =>
  `${vm.image}, ${vm.vcpu} vcpu, ${formatSize(vm.memory)}, ${formatSize(vm.diskSize)} disk, ${vm.vmm}/${vm.accel}`;
