/**
 * Fills `build/lib` and `build/bin` with the two programs:
 *
 *   build/bin/banger, bangerd            launchers (scripts/launcher.sh)
 *   build/lib/NAME.cjs                   turns V8's compile cache on, then loads the bundle
 *   build/lib/NAME.bundle.cjs            everything of the program in one file
 *   build/lib/cache/                     V8's compile cache, made here so that the first command is fast too
 *   build/lib/{catalog,images}/          copies of what they are named after
 *
 * Bundles are CommonJS because an ESM `import "node:http"` costs 26 ms at start-up and a `require` of it 2 ms (Node 26).
 * Every file is put in place by a rename: a command or a daemon that is running keeps what it started with.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { promisify } from "node:util";
import { type BuildOptions, build } from "esbuild";

const root = join(import.meta.dirname, "..");
const lib = join(root, "build/lib");
const bin = join(root, "build/bin");
const programs = { banger: "src/cli/main.ts", bangerd: "src/daemon/main.ts" };

const options: BuildOptions & { metafile: true } = {
  absWorkingDir: root,
  bundle: true,
  format: "cjs",
  platform: "node",
  target: "node24",
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: "none",
  define: { "import.meta.dirname": "__dirname", "import.meta.filename": "__filename" },
  logLevel: "error",
  // What works from source and would be empty in the bundle, such as import.meta.url.
  logOverride: { "empty-import-meta": "error" },
  write: false,
  metafile: true,
};

/** Files below a folder of the project, as paths from the root, sorted; none where the folder does not exist. */
const filesBelow = async (folder: string): Promise<string[]> => {
  const entries = await readdir(join(root, folder), { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
};

/**
 * Names this build: 12 hex digits of a SHA-256 over the path and content of every file that makes it, the agent's sources
 * and the catalog included. The same sources give the same id on every machine; two ids mean that the daemon is replaced.
 */
const buildId = async (): Promise<string> => {
  const { metafile } = await build({ ...options, entryPoints: Object.values(programs), outdir: lib });
  const inputs = [
    ...Object.keys(metafile.inputs),
    ...(await filesBelow("agent/src")),
    ...(await filesBelow("catalog")),
    ...(await filesBelow("images")),
    "agent/Cargo.lock",
    "agent/Cargo.toml",
    "package.json",
    "scripts/build.ts",
  ];
  const hash = createHash("sha256");
  for (const path of [...new Set(inputs)].sort()) {
    const content = await readFile(join(root, path));
    hash.update(`${path}\0${content.length}\0`).update(content);
  }
  return hash.digest("hex").slice(0, 12);
};

const publish = async (path: string, content: string | Uint8Array, mode = 0o644): Promise<void> => {
  await writeFile(`${path}.new`, content);
  await chmod(`${path}.new`, mode);
  await rename(`${path}.new`, path);
};

const starter = (name: string): string =>
  `require("node:module").enableCompileCache({directory:__dirname+"/cache",portable:true});require("./${name}.bundle.cjs");\n`;

const { version }: { version: string } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
const id = await buildId();
const launcher = await readFile(join(root, "scripts/launcher.sh"));
await mkdir(lib, { recursive: true });
await mkdir(bin, { recursive: true });

for (const [name, entry] of Object.entries(programs)) {
  const { outputFiles } = await build({
    ...options,
    entryPoints: [entry],
    outfile: join(lib, `${name}.bundle.cjs`),
    define: {
      ...options.define,
      "process.env.BANGER_BUILD_ID": JSON.stringify(id),
      "process.env.BANGER_VERSION": JSON.stringify(version),
    },
  });
  for (const file of outputFiles ?? []) await publish(file.path, file.contents);
  await publish(join(lib, `${name}.cjs`), starter(name));
  await publish(join(bin, name), launcher, 0o755);
}

for (const shipped of ["catalog", "images"]) {
  await rm(join(lib, shipped), { recursive: true, force: true });
  await cp(join(root, shipped), join(lib, shipped), { recursive: true });
}

// The first run of a bundle writes its cache at exit; V8 checks it against the bundle's own content, so a stale one is
// never used. Only the CLI is run: starting the daemon is not a build step's business.
await rm(join(lib, "cache"), { recursive: true, force: true });
const { stdout } = await promisify(execFile)(join(bin, "banger"), ["version"]);
process.stdout.write(`built ${stdout.trim().split("\n")[0]} (${id})\n`);
