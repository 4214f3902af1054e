/** Starts the daemon when a command needs it, and waits until it answers. */
import { watch } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import type { Socket } from "node:net";
import { dirname } from "node:path";
import { performance } from "node:perf_hooks";
import type { Readable } from "node:stream";
import { BangerError, type ErrorBody, fromErrorBody } from "../contract/errors.ts";
import { daemonCommand, daemonLogFile } from "../host/paths.ts";
import { startProcess } from "../host/process.ts";
import { startByService } from "../host/service-unit.ts";
import { connectSocket } from "./wire.ts";

/** How long a daemon may take until it answers, in milliseconds: much on an emulated machine that is busy. One that ends is not waited for. */
const START_LIMIT = 60_000;
/** How long a daemon may take until it has ended, in milliseconds. */
const END_LIMIT = 10_000;
/** How long another daemon that holds the lock is waited for before it is tried again, in milliseconds. */
const PEER_LIMIT = 2_000;
/** How much of the log is shown when the daemon does not start, in bytes. */
const LOG_TAIL = 2048;

type Ready = { ready: true } | { locked: true } | { error: ErrorBody } | undefined;

/**
 * Starts the daemon, or finds the one that somebody else starts at the same moment.
 * @throws the daemon's own error, or DAEMON_START_FAILED with the end of its log
 */
export const startDaemon = async (socketPath: string): Promise<void> => {
  if (await startByService()) return;
  const deadline = performance.now() + START_LIMIT;
  while (performance.now() < deadline) {
    const ready = await launch();
    if (ready === undefined) throw await startFailed("the daemon ended as it started");
    if ("error" in ready) throw fromErrorBody(ready.error);
    if ("ready" in ready || (await socketAppears(socketPath, Math.min(PEER_LIMIT, deadline - performance.now()))))
      return;
  }
  throw await startFailed("another daemon holds the lock but does not answer");
};

/** Starts one daemon process and reads the line it says about itself on fd 3. */
const launch = async (): Promise<Ready> => {
  const logFile = daemonLogFile();
  await mkdir(dirname(logFile), { recursive: true, mode: 0o700 });
  const log = await open(logFile, "a", 0o600);
  try {
    const daemon = await startProcess({
      argv: daemonCommand(),
      cwd: "/",
      // Of a service that runs this command: the daemon is not it.
      env: { NOTIFY_SOCKET: "" },
      stdio: ["ignore", log.fd, log.fd, "pipe"],
      outlive: true,
    });
    const channel = daemon.child.stdio[3] as Readable;
    try {
      return await firstLine(channel);
    } finally {
      channel.destroy();
    }
  } finally {
    await log.close();
  }
};

/** @returns undefined when the pipe ends without a line, as it does when the process ends */
const firstLine = async (channel: Readable): Promise<Ready> => {
  const timer = setTimeout(() => channel.destroy(), START_LIMIT);
  try {
    let text = "";
    for await (const chunk of channel) {
      text += String(chunk);
      if (text.includes("\n")) return JSON.parse(text.slice(0, text.indexOf("\n"))) as Ready;
    }
  } catch (error) {
    throw await startFailed("the daemon did not say that it is ready", error);
  } finally {
    clearTimeout(timer);
  }
  return undefined;
};

const startFailed = async (message: string, cause?: unknown): Promise<BangerError> => {
  const path = daemonLogFile();
  return new BangerError("DAEMON_START_FAILED", message, {
    hint: "read its log: banger daemon logs",
    details: { log: path, tail: await tailOf(path) },
    cause,
  });
};

const tailOf = async (path: string): Promise<string> => {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const start = Math.max(0, size - LOG_TAIL);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(LOG_TAIL), 0, LOG_TAIL, start);
    return buffer.subarray(0, bytesRead).toString("utf8").trim();
  } finally {
    await file.close();
  }
};

const answers = async (socketPath: string): Promise<boolean> => {
  try {
    (await connectSocket(socketPath)).destroy();
    return true;
  } catch {
    // Not there yet: that is the question.
    return false;
  }
};

/** Waits for somebody else's daemon: each change in the folder of its socket is a reason to look. */
const socketAppears = async (socketPath: string, limitMs: number): Promise<boolean> => {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const look = async () => {
    if (await answers(socketPath)) resolve(true);
  };
  // The daemon puts its socket there by a rename when it listens already (host/sockets.ts), so the event is never too early.
  const watcher = watch(dirname(socketPath), () => void look());
  const timer = setTimeout(() => resolve(false), limitMs);
  try {
    void look();
    return await promise;
  } finally {
    clearTimeout(timer);
    watcher.close();
  }
};

/**
 * Resolves when the daemon at the other end of an open connection has gone.
 * @throws DAEMON_START_FAILED when it has not after 10 s
 */
export const daemonGone = async (socket: Socket): Promise<void> => {
  const timer = setTimeout(() => socket.destroy(new Error("timeout")), END_LIMIT);
  let timedOut = false;
  socket.on("error", (error) => {
    timedOut = error.message === "timeout";
  });
  socket.resume();
  await new Promise((resolve) => socket.once("close", resolve));
  clearTimeout(timer);
  if (!timedOut) return;
  throw new BangerError("DAEMON_START_FAILED", "the daemon of another banger version does not end", {
    hint: "end it: banger daemon stop",
  });
};
