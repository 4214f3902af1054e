/**
 * Mutates recorded conversations and feeds them to whatever reads them (targets.ts).
 *
 *   node test/fuzz/byte-fuzz.ts [--seconds N] [--seed S] [--target guest|client|daemon] [--repro FILE]
 *
 * A failure writes its bytes to build/fuzz/TARGET-SEED-CASE.json and ends with status 1; `--repro` feeds such a file again.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type TargetName, targets } from "./targets.ts";

/** A generator of numbers from 0 to below `n`, the same for the same seed (mulberry32). */
const random = (seed: number): ((n: number) => number) => {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % n;
  };
};
type Random = ReturnType<typeof random>;

/** Where limits lie. */
const NUMBERS = [0, 1, 11, 12, 255, 32_755, 32_756, 32_757, 65_536, 262_144, 0x7fff_ffff, 0xffff_ffff];

const pickRange = (bytes: Buffer, next: Random): [number, number] => {
  const start = next(bytes.length + 1);
  return [start, Math.min(bytes.length, start + next(64))];
};

const mutations: ((bytes: Buffer, next: Random, other: Buffer) => Buffer)[] = [
  (bytes, next) => {
    if (bytes.length === 0) return bytes;
    const at = next(bytes.length);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << next(8));
    return bytes;
  },
  (bytes, next) => {
    if (bytes.length > 0) bytes[next(bytes.length)] = next(256);
    return bytes;
  },
  (bytes, next) => {
    if (bytes.length >= 4) bytes.writeUInt32LE(NUMBERS[next(NUMBERS.length)] ?? 0, next(bytes.length - 3));
    return bytes;
  },
  (bytes, next) => {
    const [start, end] = pickRange(bytes, next);
    return Buffer.concat([bytes.subarray(0, start), bytes.subarray(end)]);
  },
  (bytes, next) => {
    const [start, end] = pickRange(bytes, next);
    return Buffer.concat([bytes.subarray(0, end), bytes.subarray(start)]);
  },
  (bytes, next) => {
    const at = next(bytes.length + 1);
    const noise = Buffer.from(Array.from({ length: next(40) }, () => next(256)));
    return Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at)]);
  },
  (bytes, next, other) =>
    Buffer.concat([bytes.subarray(0, next(bytes.length + 1)), other.subarray(next(other.length + 1))]),
  (bytes, next) => bytes.subarray(0, next(bytes.length + 1)),
  (bytes, next) => (bytes.length < 200_000 ? Buffer.concat(Array.from({ length: 1 + next(20) }, () => bytes)) : bytes),
];

const chunksOf = (bytes: Buffer, next: Random): Buffer[] => {
  const most = [1, 7, 64, 4096, 65_536][next(5)] ?? 64;
  const chunks: Buffer[] = [];
  // One byte at a time is for short ones: each chunk is a turn of the event loop.
  const least = Math.ceil(bytes.length / 200);
  for (let at = 0; at < bytes.length; ) {
    const size = Math.max(least, 1 + next(most));
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return chunks;
};

/** The bytes of one case: everything about it follows from its seed. */
const caseOf = (name: TargetName, seed: number): Buffer[] => {
  const next = random(seed);
  const { conversations } = targets[name];
  const pick = () => Buffer.from(conversations[next(conversations.length)] ?? []);
  let bytes: Buffer = pick();
  for (let rounds = next(12); rounds > 0; rounds--)
    bytes = mutations[next(mutations.length)]?.(bytes, next, pick()) ?? bytes;
  return chunksOf(bytes, next);
};

export type Failure = { target: TargetName; seed: number; message: string; chunks: string[] };

/** Feeds one case, and takes what escapes from it as its failure too. */
const runCase = async (name: TargetName, chunks: readonly Uint8Array[]): Promise<string | undefined> => {
  const escaped = Promise.withResolvers<never>();
  escaped.promise.catch(() => undefined);
  const onEscape = (error: unknown) => escaped.reject(error);
  process.on("uncaughtException", onEscape).on("unhandledRejection", onEscape);
  try {
    await Promise.race([targets[name].feed(chunks), escaped.promise]);
    // What escapes does so by the end of this turn.
    await Promise.race([new Promise(setImmediate), escaped.promise]);
    return undefined;
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  } finally {
    process.off("uncaughtException", onEscape).off("unhandledRejection", onEscape);
  }
};

export type FuzzOptions = { names: readonly TargetName[]; seed: number; milliseconds: number };

/** @returns how many cases went well, and the first that did not */
export const fuzz = async ({
  names,
  seed,
  milliseconds,
}: FuzzOptions): Promise<{ cases: number; failure?: Failure }> => {
  const end = performance.now() + milliseconds;
  let cases = 0;
  for (; performance.now() < end; cases++) {
    const target = names[cases % names.length] ?? "guest";
    const chunks = caseOf(target, seed + cases);
    const message = await runCase(target, chunks);
    if (message === undefined) continue;
    return {
      cases,
      failure: { target, seed: seed + cases, message, chunks: chunks.map((chunk) => chunk.toString("base64")) },
    };
  }
  return { cases };
};

const isTarget = (name: unknown): name is TargetName => typeof name === "string" && Object.hasOwn(targets, name);

/** Feeds a written failure again. @returns what goes wrong, or undefined */
export const repeat = async (file: string): Promise<string | undefined> => {
  const { target, chunks } = JSON.parse(await readFile(file, "utf8")) as Failure;
  if (!isTarget(target)) throw new Error(`${file} names no target`);
  return await runCase(
    target,
    chunks.map((chunk) => Buffer.from(chunk, "base64")),
  );
};

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string" },
      seed: { type: "string" },
      target: { type: "string" },
      repro: { type: "string" },
    },
  });
  const print = (text: string) => void process.stdout.write(`${text}\n`);
  if (values.repro !== undefined) {
    const message = await repeat(values.repro);
    print(message ?? "it goes well");
    return message === undefined ? 0 : 1;
  }
  const names = isTarget(values.target) ? [values.target] : (Object.keys(targets) as TargetName[]);
  const seed = Number(values.seed ?? Date.now() % 1e9);
  const { cases, failure } = await fuzz({ names, seed, milliseconds: Number(values.seconds ?? 30) * 1000 });
  if (!failure) {
    print(`${cases} cases from seed ${seed}, none failed`);
    return 0;
  }
  const folder = join(import.meta.dirname, "..", "..", "build", "fuzz");
  const file = join(folder, `${failure.target}-${seed}-${cases}.json`);
  await mkdir(folder, { recursive: true });
  await writeFile(file, JSON.stringify(failure, undefined, 1));
  print(`${failure.message}\nagain with: node test/fuzz/byte-fuzz.ts --repro ${file}`);
  return 1;
};

if (import.meta.main) process.exitCode = await main();
