/** The only way to the terminal: stdout for data, stderr for everything said to a person. */
import { writeSync } from "node:fs";
import type { Readable, Writable } from "node:stream";
import { BangerError, errnoOf } from "../../contract/errors.ts";

/** Exit status of a program whose reader went away: 128 + SIGPIPE. */
export const PIPE_STATUS = 141;

export type Descriptor = 1 | 2;
const opened = new Set<Descriptor>();

const open = (fd: Descriptor) => {
  opened.add(fd);
  return fd === 1 ? process.stdout : process.stderr;
};

export const isTerminal = (fd: Descriptor): boolean => open(fd).isTTY === true;

/** Size of the terminal in character cells; 80 by 24 where there is none. */
export const terminalSize = (): { cols: number; rows: number } => {
  const { columns, rows } = isTerminal(1) ? process.stdout : process.stderr;
  return { cols: columns || 80, rows: rows || 24 };
};

/** Calls `listener` whenever the terminal has a new size. @returns how to stop that */
export const onResize = (listener: (size: { cols: number; rows: number }) => void): (() => void) => {
  const onChange = () => listener(terminalSize());
  const stdout = open(1);
  stdout.on("resize", onChange);
  return () => stdout.off("resize", onChange);
};

/** `text` in a colour, where stderr is a terminal and NO_COLOR does not say otherwise. */
export const paint = (text: string, style: "red" | "yellow" | "green" | "dim" | "bold", fd: Descriptor = 2): string => {
  if (!isTerminal(fd) || process.env.NO_COLOR) return text;
  const code = { red: 31, green: 32, yellow: 33, dim: 2, bold: 1 }[style];
  return `\x1b[${code}m${text}\x1b[0m`;
};

/** A reader that went away ends the command without a word, as it ends any other program in a pipe. */
export const isBrokenPipe = (error: unknown): boolean => errnoOf(error) === "EPIPE";

/** Resolves when `data` has been handed to the system. @throws EPIPE when nobody reads it any more */
export const write = (fd: Descriptor, data: string | Uint8Array): Promise<void> =>
  new Promise((resolve, reject) => {
    if (data.length === 0) return resolve();
    const stream = open(fd);
    // The same error arrives twice, here and as an event, and an event that nobody hears ends the process.
    if (stream.listenerCount("error") === 0) stream.on("error", () => undefined);
    stream.write(data, (error) => (error ? reject(error) : resolve()));
  });

/**
 * One line of data. Where stdout was not opened as a stream yet, which takes 2 ms, it is written as it is: what is a pipe would wait for
 * its reader all the same.
 */
export const printLine = async (text: string): Promise<void> => {
  const line = Buffer.from(`${text}\n`);
  await write(1, opened.has(1) ? line : line.subarray(writeDirectly(line)));
};

/** @returns how many bytes were written; the rest is for a descriptor that somebody has made non-blocking, and that is full */
const writeDirectly = (bytes: Buffer): number => {
  let written = 0;
  try {
    while (written < bytes.length) written += writeSync(1, bytes, written);
  } catch (error) {
    if (errnoOf(error) !== "EAGAIN") throw error;
  }
  return written;
};

/** One line for a person. A terminal that is gone is no reason to fail. */
export const say = (text: string): Promise<void> => write(2, `${text}\n`).catch(() => undefined);

/** Carries all of `source` to the terminal or whatever stands in its place. @throws EPIPE */
export const carry = async (source: Readable, fd: Descriptor): Promise<void> => {
  const target: Writable = open(fd);
  const broken = Promise.withResolvers<never>();
  broken.promise.catch(() => undefined);
  target.on("error", broken.reject);
  try {
    for await (const chunk of source) {
      if (target.destroyed) throw new BangerError("CANCELLED", "the output was closed");
      if (!target.write(chunk)) {
        const drained = Promise.withResolvers<void>();
        target.once("drain", drained.resolve);
        await Promise.race([drained.promise, broken.promise]);
      }
    }
    // What is still queued must reach the system before the process may end.
    await Promise.race([new Promise<void>((resolve) => target.write("", () => resolve())), broken.promise]);
  } finally {
    target.off("error", broken.reject);
    target.on("error", () => undefined);
  }
};
