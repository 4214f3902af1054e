/** A command in a guest, joined to this process: its bytes, its window, its signals and its exit status. */
import { constants } from "node:os";
import { errnoOf } from "../contract/errors.ts";
import type { ExecResult } from "../contract/vms.ts";
import type { FrameStream } from "../client/frame-stream.ts";
import { carry, isBrokenPipe, PIPE_STATUS } from "./render/output.ts";
import { takeTerminal } from "./terminal.ts";

/** A second Ctrl-C within this time does not ask the command any more, in ms. */
const TWICE = 2000;
/** How long the undoing may take after the terminal was lost, in ms. */
const CLEANUP_LIMIT = 30_000;

const forwarded = ["SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP"] as const;
type Forwarded = (typeof forwarded)[number];

export type SessionOptions = {
  pty: boolean;
  /** Sends stdin; else the command's input is empty. */
  stdin: boolean;
  /** The command runs: from here on the terminal is its own, once this is done. */
  onOpened?: (() => void | Promise<void>) | undefined;
};

/** @returns the exit status: the command's own, or 128 and the number of the signal that ended it */
export const statusOf = (result: ExecResult): number => result.exit ?? 128 + (result.signal ?? 0);

/**
 * Signals to this process, as long as the session lives. Before the command runs each of them cancels; while it runs it is sent there.
 * `ended` is the exit status where a signal ended the session.
 */
const handleSignals = (stream: FrameStream<ExecResult>, pty: boolean) => {
  const state: { running: boolean; ended: number | undefined; interruptedAt: number } = {
    running: false,
    ended: undefined,
    interruptedAt: Number.NEGATIVE_INFINITY,
  };
  const end = (name: Forwarded) => {
    const status = 128 + constants.signals[name];
    if (state.ended !== undefined) process.exit(status);
    state.ended = status;
    stream.abort();
    setTimeout(() => process.exit(status), CLEANUP_LIMIT).unref();
  };
  const onSignal = (name: Forwarded) => {
    const twice = name === "SIGINT" && performance.now() - state.interruptedAt < TWICE;
    if (name === "SIGINT") state.interruptedAt = performance.now();
    // With a pty, what reaches us as a signal is no key: the terminal is gone or somebody wants us gone.
    const lost = pty && (name === "SIGHUP" || name === "SIGTERM");
    if (!state.running || state.ended !== undefined || twice || lost) end(name);
    else stream.signal(constants.signals[name]);
  };
  for (const name of forwarded) process.on(name, onSignal);
  return {
    state,
    [Symbol.dispose]() {
      for (const name of forwarded) process.off(name, onSignal);
    },
  };
};

/** Sends stdin until it ends; the command need not wait for that. */
const sendStdin = (stream: FrameStream<ExecResult>): (() => void) => {
  const { stdin } = process;
  const onData = (chunk: Buffer) => {
    if (stream.stdin.destroyed || stream.stdin.write(chunk)) return;
    stdin.pause();
    stream.stdin.once("drain", () => stdin.resume());
  };
  const onEnd = () => void stream.stdin.end();
  stdin.on("data", onData).on("end", onEnd);
  // A terminal that was closed, or a descriptor that cannot be read: the input ends here.
  stdin.on("error", onEnd);
  return () => void stdin.off("data", onData).off("end", onEnd).pause();
};

/**
 * Runs the session to its end.
 * @returns the exit status
 * @throws what the stream failed with
 */
export const runSession = async (stream: FrameStream<ExecResult>, options: SessionOptions): Promise<number> => {
  using signals = handleSignals(stream, options.pty);
  try {
    await stream.opened;
  } catch (error) {
    if (signals.state.ended !== undefined) return signals.state.ended;
    throw error;
  }
  await options.onOpened?.();
  signals.state.running = true;
  using _terminal = options.pty ? await takeTerminal((size) => stream.resize(size.cols, size.rows)) : undefined;
  const stopStdin = options.stdin ? sendStdin(stream) : void stream.stdin.end();
  // The stream then ends with an error that says less than the pipe.
  const onBroken = () => {
    signals.state.ended ??= PIPE_STATUS;
    stream.abort();
  };
  try {
    const [result] = await Promise.all([
      stream.closed,
      carryOutput(stream, 1, onBroken),
      carryOutput(stream, 2, onBroken),
    ]);
    return signals.state.ended ?? statusOf(result);
  } catch (error) {
    if (signals.state.ended !== undefined) return signals.state.ended;
    throw error;
  } finally {
    stopStdin?.();
    stream.abort();
  }
};

/** @param onBroken is called when nobody reads any more, or the terminal was closed (EIO) */
const carryOutput = async (stream: FrameStream<ExecResult>, fd: 1 | 2, onBroken: () => void): Promise<void> => {
  try {
    await carry(fd === 1 ? stream.stdout : stream.stderr, fd);
  } catch (error) {
    if (!isBrokenPipe(error) && errnoOf(error) !== "EIO") throw error;
    onBroken();
  }
};
