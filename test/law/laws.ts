/** The laws of docs/architecture.md, as checks over the source files of a project folder. */
import childProcess from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { isBuiltin } from "node:module";
import { dirname, join, normalize, relative } from "node:path";
import zlib from "node:zlib";
import { type Import, importsOf, lineAt, type Scanned, scan } from "./scan.ts";

export type Law =
  | "layers"
  | "packages"
  | "cycles"
  | "child-process"
  | "output"
  | "any"
  | "empty-catch"
  | "open-ends"
  | "sync";

export type Violation = { law: Law; path: string; line: number; message: string };

/** Parts that the daemon is put together from. They may use each other, without cycles, and know nothing above them. */
const parts = ["host", "vmm", "guest", "oci", "ext4", "debian", "workspace"];
const besides = (part: string): string[] => parts.filter((other) => other !== part);

/** What each folder of src/ may import besides itself. A folder that is not named here is a violation. */
export const layers: Readonly<Record<string, readonly string[]>> = {
  contract: [],
  host: ["contract", ...besides("host")],
  vmm: ["contract", ...besides("vmm")],
  guest: ["contract", ...besides("guest")],
  oci: ["contract", ...besides("oci")],
  ext4: ["contract", ...besides("ext4")],
  debian: ["contract", ...besides("debian")],
  workspace: ["contract", "host"],
  daemon: ["contract", ...parts],
  // The client starts the daemon and must find its socket: both live in host, which lies below it.
  client: ["contract", "host"],
  sdk: ["contract", "host", "client"],
  // vmm for doctor, which looks at the host without a daemon; workspace because the repository is read as the user who calls, with that user's git.
  cli: ["contract", "host", "vmm", "workspace", "client", "sdk"],
};

/** Folders whose code runs in the daemon, where a blocking call stops every VM's traffic. */
const serviceFolders = ["daemon", ...parts];
const spawner = "src/host/process.ts";
const printer = "src/cli/render/";

type Source = Scanned & { path: string; text: string; imports: Import[]; isTest: boolean };

const sourceFiles = async (root: string, folder: string, extension: RegExp): Promise<string[]> => {
  const entries = await readdir(join(root, folder), { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile() && extension.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => !path.includes("node_modules/"))
    .sort();
};

const readSource = async (root: string, path: string): Promise<Source> => {
  const text = await readFile(join(root, path), "utf8");
  const scanned = scan(text);
  return { ...scanned, path, text, imports: importsOf(scanned), isTest: path.endsWith(".test.ts") };
};

const folderOf = (path: string): string | undefined => /^src\/([^/]+)\//.exec(path)?.[1];
const targetOf = (source: Source, { specifier }: Import): string => normalize(join(dirname(source.path), specifier));

function* layerLaw(source: Source): Generator<Omit<Violation, "path" | "line"> & { offset: number }> {
  const folder = folderOf(source.path);
  const allowed = folder === undefined ? undefined : layers[folder];
  if (folder === undefined || allowed === undefined) {
    yield { law: "layers", offset: 0, message: "no layer of that name: test/law/laws.ts lists what may import what" };
    return;
  }
  for (const item of source.imports) {
    const { specifier, offset } = item;
    if (!specifier.startsWith(".")) {
      if (folder === "contract" && specifier !== "zod/mini")
        yield { law: "layers", offset, message: `contract imports nothing but itself and zod/mini, not ${specifier}` };
      continue;
    }
    const target = folderOf(targetOf(source, item));
    if (target === undefined) yield { law: "layers", offset, message: `${specifier} lies outside src/` };
    else if (target !== folder && !allowed.includes(target))
      yield { law: "layers", offset, message: `${folder} must not import ${target} (${specifier})` };
  }
}

function* packageLaw(source: Source, dependencies: ReadonlySet<string>): ReturnType<typeof layerLaw> {
  for (const { specifier, offset } of source.imports) {
    if (specifier.startsWith(".") || isBuiltin(specifier)) continue;
    const name = specifier
      .split("/")
      .slice(0, specifier.startsWith("@") ? 2 : 1)
      .join("/");
    if (!dependencies.has(name)) yield { law: "packages", offset, message: `${name} is not in "dependencies"` };
  }
}

function* matches(
  law: Law,
  text: string,
  pattern: RegExp,
  message: (found: string) => string,
): ReturnType<typeof layerLaw> {
  for (const match of text.matchAll(pattern)) yield { law, offset: match.index, message: message(match[0].trim()) };
}

const syncNames = [fs, childProcess, zlib, crypto].flatMap((module) =>
  Object.keys(module).filter((name) => name.endsWith("Sync")),
);
const syncCall = new RegExp(`\\b(?:${[...new Set(syncNames)].join("|")})\\b`, "g");
/** A catch whose block holds nothing, nor a comment that says why: checked on text without strings but with comments. */
const emptyCatches = [
  /\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}/g,
  /\.catch\(\s*(?:async\s*)?(?:\([^)]*\)|\w+)\s*=>\s*\{\s*\}\s*\)/g,
];

function* textLaws(source: Source): ReturnType<typeof layerLaw> {
  const { code, text, path, isTest } = source;
  yield* matches("any", code, /(?<![.\w$])any\b(?!\s*[(:?])/g, () => "`any`: use `unknown` and narrow it");
  for (const pattern of emptyCatches)
    for (const match of code.matchAll(pattern))
      if (!/\/[/*]/.test(text.slice(match.index, match.index + match[0].length)))
        yield { law: "empty-catch", offset: match.index, message: "an error is dropped without a word why" };
  if (isTest) return;
  const folder = folderOf(path);
  if (path !== spawner)
    for (const { specifier, offset } of source.imports)
      if (/^(?:node:)?child_process$/.test(specifier))
        yield { law: "child-process", offset, message: `only ${spawner} starts processes` };
  if (!path.startsWith(printer)) {
    const output =
      /\bconsole\s*(?:\.\s*(?:log|info|warn|error|debug|trace|dir|table|write|assert|group|time\w*)\b|\[)|\bprocess\s*\.\s*(?:stdout|stderr)\b|\{[^{}]*\b(?:stdout|stderr)\b[^{}]*\}\s*=\s*process\b(?!\s*\.)/g;
    yield* matches("output", code, output, (found) => `only ${printer} writes to the terminal (${found})`);
    for (const { specifier, offset } of source.imports)
      if (/^(?:node:)?(?:process|console)$/.test(specifier))
        yield { law: "output", offset, message: `${specifier} hides who writes to the terminal: use the global` };
  }
  if (folder !== undefined && serviceFolders.includes(folder))
    yield* matches("sync", code, syncCall, (found) => `${found} blocks the daemon: use the asynchronous call`);
}

/** Import cycles between files, each once, as the path that closes it. */
const cycles = (sources: Source[]): Violation[] => {
  const graph = new Map(sources.map((source) => [source.path, source]));
  const state = new Map<string, "open" | "done">();
  const trail: string[] = [];
  const found: Violation[] = [];
  const visit = (source: Source): void => {
    state.set(source.path, "open");
    trail.push(source.path);
    for (const item of source.imports) {
      const next = item.specifier.startsWith(".") ? graph.get(targetOf(source, item)) : undefined;
      if (next === undefined) continue;
      if (state.get(next.path) === "open") {
        const loop = [...trail.slice(trail.indexOf(next.path)), next.path].join(" -> ");
        found.push({ law: "cycles", path: source.path, line: lineAt(source.text, item.offset), message: loop });
      } else if (!state.has(next.path)) visit(next);
    }
    trail.pop();
    state.set(source.path, "done");
  };
  for (const source of sources) if (!state.has(source.path)) visit(source);
  return found;
};

const dependenciesOf = async (root: string): Promise<Set<string>> => {
  const text = await readFile(join(root, "package.json"), "utf8").catch(() => "{}");
  const { dependencies = {} }: { dependencies?: Record<string, string> } = JSON.parse(text);
  return new Set(Object.keys(dependencies));
};

/** Every violation in the project at `root`, in the order of files. Folders that are not there have none. */
export const violationsOf = async (root: string): Promise<Violation[]> => {
  const paths = await sourceFiles(root, "src", /\.[cm]?tsx?$/);
  const sources = await Promise.all(paths.map((path) => readSource(root, path)));
  const dependencies = await dependenciesOf(root);
  const found: Violation[] = [];
  for (const source of sources) {
    const laws = source.isTest ? [] : [...layerLaw(source), ...packageLaw(source, dependencies)];
    for (const { law, offset, message } of [...laws, ...textLaws(source)])
      found.push({ law, path: source.path, line: lineAt(source.text, offset), message });
  }
  found.push(...cycles(sources.filter((source) => !source.isTest)));

  const everywhere = [
    ...paths,
    ...(await sourceFiles(root, "agent/src", /\.rs$/)),
    ...(await sourceFiles(root, "scripts", /\.(?:ts|sh)$/)),
    ...(await sourceFiles(root, "bench", /\.ts$/)),
    ...(await sourceFiles(root, "test/e2e", /\.ts$/)),
  ];
  for (const path of everywhere) {
    const text = await readFile(join(root, path), "utf8");
    for (const match of text.matchAll(/\b(?:TODO|FIXME|XXX)\b/g))
      found.push({
        law: "open-ends",
        path,
        line: lineAt(text, match.index),
        message: `${match[0]}: do it, or file it`,
      });
  }
  return found;
};

/** Files over `limit` lines: a question to whoever looks (is it still one job?), not a violation. */
export const longFiles = async (root: string, limit = 400): Promise<{ path: string; lines: number }[]> => {
  const paths = [...(await sourceFiles(root, "src", /\.ts$/)), ...(await sourceFiles(root, "agent/src", /\.rs$/))];
  const counted = await Promise.all(
    paths.map(async (path) => ({ path, lines: (await readFile(join(root, path), "utf8")).split("\n").length - 1 })),
  );
  return counted.filter(({ lines }) => lines > limit);
};
