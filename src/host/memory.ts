/** The host's memory. */
import { readFile } from "node:fs/promises";

/** Bytes. */
export type HostMemory = {
  total: number;
  /** What new programs can have without others being swapped out, as the kernel estimates it. */
  available: number;
  swapTotal: number;
  swapFree: number;
};

export const hostMemory = async (): Promise<HostMemory> => {
  const text = await readFile("/proc/meminfo", "utf8");
  const bytes = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024;
  return {
    total: bytes("MemTotal"),
    available: bytes("MemAvailable"),
    swapTotal: bytes("SwapTotal"),
    swapFree: bytes("SwapFree"),
  };
};
