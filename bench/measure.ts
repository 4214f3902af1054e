/** Timing, medians, and what a figure is. */
import { performance } from "node:perf_hooks";

/** One measured figure beside what it is compared with, both from the same run. */
export type Figure = {
  what: string;
  value: number;
  unit: string;
  /** Measurements behind `value`, their median. */
  n: number;
  /** 10th and 90th percentile. */
  spread?: [number, number];
  baseline?: { what: string; value: number };
  /** What was promised, in words, and whether it holds. */
  limit: string;
  holds: boolean;
};

export const quantile = (values: readonly number[], q: number): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
};

export const median = (values: readonly number[]): number => quantile(values, 0.5);
export const spreadOf = (values: readonly number[]): [number, number] => [quantile(values, 0.1), quantile(values, 0.9)];

/** Wall time of `work` in ms. */
export const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const start = performance.now();
  await work();
  return performance.now() - start;
};

/** Times each of several works `rounds` times, in turn, so that a slow moment of the machine meets them all. */
export const interleaved = async (rounds: number, works: readonly (() => Promise<unknown>)[]): Promise<number[][]> => {
  const times: number[][] = works.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [index, work] of works.entries()) times[index]?.push(await timed(work));
  }
  return times;
};

export const round = (value: number): number => (value >= 100 ? Math.round(value) : Math.round(value * 10) / 10);
