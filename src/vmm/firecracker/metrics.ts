/** What Firecracker tells of its devices: lines of JSON through a named pipe, each with what was added since the line before it. */
import type { DeviceUse } from "../driver.ts";
import { openPipe } from "./pipe.ts";

/** Name of the pipe, in Firecracker's folder. */
export const METRICS = "metrics";
/** Longest line taken, in bytes. Firecracker's have about 10 KiB. */
const MAX_LINE = 256 * 1024;

type Counted = { disk: { read: number; written: number }; network: { received: number; sent: number } };

export type Metrics = {
  /**
   * All that was added since this reader began.
   * @param flush makes Firecracker write a line
   */
  read(flush: () => Promise<void>): Promise<DeviceUse>;
  close(): void;
};

/** @param disk id of the drive that is told of; @param nic of the card */
export const readMetrics = async (path: string, disk: string, nic: string): Promise<Metrics> => {
  const pipe = await openPipe(path);
  const use: Counted = { disk: { read: 0, written: 0 }, network: { received: 0, sent: 0 } };
  let rest = "";
  let told = Promise.withResolvers<void>();
  pipe.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    // No line of Firecracker's: its guest has broken out of it, or is trying to.
    if (rest.length > MAX_LINE) rest = "";
    for (const line of lines) add(use, line, disk, nic);
    if (lines.length === 0) return;
    told.resolve();
    told = Promise.withResolvers();
  });
  return {
    read: async (flush) => {
      const line = told.promise;
      await flush();
      await line;
      return { disk: { ...use.disk }, network: { ...use.network } };
    },
    close: () => void pipe.destroy(),
  };
};

const add = (use: Counted, line: string, disk: string, nic: string): void => {
  let told: unknown;
  try {
    told = JSON.parse(line);
  } catch {
    // Cut off by a pipe that was full: what it told is lost.
    return;
  }
  const number = (device: string, name: string): number => {
    const group = isObject(told) ? told[device] : undefined;
    const value = isObject(group) ? group[name] : undefined;
    return typeof value === "number" && value >= 0 ? value : 0;
  };
  use.disk.read += number(`block_${disk}`, "read_bytes");
  use.disk.written += number(`block_${disk}`, "write_bytes");
  use.network.received += number(`net_${nic}`, "rx_bytes_count");
  use.network.sent += number(`net_${nic}`, "tx_bytes_count");
};

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;
