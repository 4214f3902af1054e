import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { type Law, longFiles, violationsOf } from "./laws.ts";
import { importsOf, scan } from "./scan.ts";

const project = join(import.meta.dirname, "../..");

/** A small project on disk for the time of one test. */
const withTree = async (files: Record<string, string>, use: (root: string) => Promise<void>): Promise<void> => {
  const root = await mkdtemp(join(tmpdir(), "banger-law-"));
  try {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), text);
    }
    await use(root);
  } finally {
    await rm(root, { recursive: true });
  }
};

const expectLaws = (files: Record<string, string>, expected: `${Law} ${string}:${number}`[]): Promise<void> =>
  withTree(files, async (root) => {
    const found = (await violationsOf(root)).map(({ law, path, line }) => `${law} ${path}:${line}`);
    assert.deepEqual(found.sort(), [...expected].sort());
  });

describe("this project", () => {
  test("keeps every law", async (t) => {
    const found = await violationsOf(project);
    assert.deepEqual(
      found.map(({ law, path, line, message }) => `${path}:${line} [${law}] ${message}`),
      [],
    );
    for (const { path, lines } of await longFiles(project)) t.diagnostic(`${path} has ${lines} lines: one job?`);
  });
});

describe("layers", () => {
  test("downward imports are lawful, and folders that do not exist are no offence", async () => {
    await expectLaws({}, []);
    await expectLaws(
      {
        "package.json": '{ "dependencies": { "zod": "1.0.0", "smol-toml": "1.0.0" } }',
        "src/contract/api.ts": 'import * as z from "zod/mini";\nimport { a } from "./a.ts";\n',
        "src/contract/a.ts": "export const a = 1;\n",
        "src/client/call.ts": 'import { a } from "../contract/a.ts";\nimport "../host/paths.ts";\n',
        "src/sdk/index.ts": 'export { call } from "../client/call.ts";\n',
        "src/cli/doctor.ts":
          'import "../sdk/index.ts";\nimport "../host/paths.ts";\nawait import("../vmm/driver.ts");\n',
        "src/host/paths.ts": 'import { join } from "node:path";\nimport "smol-toml";\n',
        "src/host/process.ts": 'import { spawn } from "node:child_process";\n',
        "src/vmm/driver.ts": 'import "../contract/a.ts";\nimport "../host/process.ts";\n',
        "src/daemon/main.ts": 'import "../vmm/driver.ts";\nimport "../contract/api.ts";\n',
        "src/cli/render/print.ts": "export const print = (text: string) => process.stdout.write(text);\n",
      },
      [],
    );
  });

  const upward: [string, string][] = [
    ["cli", "daemon"],
    ["sdk", "daemon"],
    ["client", "daemon"],
    ["client", "sdk"],
    ["client", "cli"],
    ["client", "vmm"],
    ["sdk", "cli"],
    ["sdk", "vmm"],
    ["cli", "guest"],
    ["daemon", "client"],
    ["daemon", "sdk"],
    ["daemon", "cli"],
    ["contract", "host"],
    ["contract", "client"],
    ...["vmm", "guest", "oci", "ext4", "debian", "host"].flatMap((below) =>
      ["daemon", "cli", "sdk", "client"].map((above): [string, string] => [below, above]),
    ),
  ];
  for (const [from, to] of upward) {
    test(`${from} must not import ${to}`, () =>
      expectLaws({ [`src/${from}/x.ts`]: `\nimport { y } from "../${to}/y.ts";\n`, [`src/${to}/y.ts`]: "" }, [
        `layers src/${from}/x.ts:2`,
      ]));
  }

  test("no form of import gets around the law", () =>
    expectLaws(
      {
        "src/guest/x.ts": [
          'import type { A } from "../daemon/a.ts";',
          'export * from "../daemon/a.ts";',
          'import "../daemon/a.ts";',
          'const b = await import("../daemon/a.ts");',
          "const c = await import(`../daemon/a.ts`);",
          'type D = import("../daemon/a.ts").D;',
          "import {\n  e, // from elsewhere\n} from '../daemon/a.ts';",
        ].join("\n"),
      },
      [1, 2, 3, 4, 5, 6, 7].map((line) => `layers src/guest/x.ts:${line}` as const),
    ));

  test("contract knows no node: module and no package but zod/mini", () =>
    expectLaws(
      {
        "package.json": '{ "dependencies": { "zod": "1.0.0" } }',
        "src/contract/x.ts": [
          'import "node:path";',
          'import "fs";',
          'process.getBuiltinModule("node:http");',
          'import * as z from "zod";',
        ].join("\n"),
      },
      [1, 2, 3, 4].map((line) => `layers src/contract/x.ts:${line}` as const),
    ));

  test("a new folder needs a place among the layers, and src/ itself is none", () =>
    expectLaws({ "src/utils/x.ts": "", "src/x.ts": "" }, ["layers src/utils/x.ts:1", "layers src/x.ts:1"]));

  test("sources import nothing outside src/, but tests beside them may", () =>
    expectLaws(
      {
        "src/oci/x.ts": 'import p from "../../package.json";\n',
        "src/oci/x.test.ts":
          'import "../../test/support/tree.ts";\nimport "fast-check";\nimport "node:child_process";\n',
      },
      ["layers src/oci/x.ts:1"],
    ));

  test("a package must be a dependency, not only happen to be installed", () =>
    expectLaws({ "src/oci/x.ts": 'import "left-pad";\nimport "@scope/name/deep";\n' }, [
      "packages src/oci/x.ts:1",
      "packages src/oci/x.ts:2",
    ]));
});

describe("cycles", () => {
  test("a cycle over three files is found once, with its path", () =>
    withTree(
      {
        "src/oci/a.ts": 'import "./b.ts";\n',
        "src/oci/b.ts": 'import "./c.ts";\n',
        "src/oci/c.ts": 'import type { A } from "./a.ts";\n',
      },
      async (root) => {
        const found = await violationsOf(root);
        assert.deepEqual(found, [
          {
            law: "cycles",
            path: "src/oci/c.ts",
            line: 1,
            message: "src/oci/a.ts -> src/oci/b.ts -> src/oci/c.ts -> src/oci/a.ts",
          },
        ]);
      },
    ));

  test("two ways to the same file are no cycle", () =>
    expectLaws(
      {
        "src/oci/a.ts": 'import "./b.ts";\nimport "./c.ts";\n',
        "src/oci/b.ts": 'import "./c.ts";\n',
        "src/oci/c.ts": "",
      },
      [],
    ));
});

describe("single places", () => {
  test("only src/host/process.ts touches child_process", () =>
    expectLaws(
      {
        "src/host/process.ts": 'import { spawn } from "node:child_process";\n',
        "src/host/other.ts": 'import { spawn } from "node:child_process";\n',
        "src/vmm/x.ts": 'const c = process.getBuiltinModule("child_process");\n',
      },
      ["child-process src/host/other.ts:1", "child-process src/vmm/x.ts:1"],
    ));

  test("only src/cli/render/ writes to the terminal, src/daemon/main.ts included", () =>
    expectLaws(
      {
        "src/cli/render/print.ts": "process.stderr.write('x');\nconsole.log(1);\n",
        "src/cli/vm/run.ts": "process.stdout.write('x');\n",
        "src/daemon/main.ts": "console.error('x');\nconst { stdout } = process;\n",
        "src/sdk/x.ts": 'import { stderr } from "node:process";\nprocess . stderr.write("");\n',
        "src/host/x.ts": "child.stdout.pipe(x); watch(console.path); // not console.log\nconst s = 'process.stdout';\n",
      },
      [
        "output src/cli/vm/run.ts:1",
        "output src/daemon/main.ts:1",
        "output src/daemon/main.ts:2",
        "output src/sdk/x.ts:1",
        "output src/sdk/x.ts:2",
      ],
    ));

  test("services make no blocking calls; the CLI may", () =>
    expectLaws(
      {
        "src/daemon/x.ts": 'import { readFileSync } from "node:fs";\nfs.mkdirSync("x");\n',
        "src/oci/x.ts": "zlib.gunzipSync(data);\n",
        "src/vmm/x.ts": 'import { DatabaseSync } from "node:sqlite";\nconst fileSync = 1;\n',
        "src/cli/x.ts": 'readFileSync("x");\n',
      },
      ["sync src/daemon/x.ts:1", "sync src/daemon/x.ts:2", "sync src/oci/x.ts:1"],
    ));
});

describe("text", () => {
  test("any is found as a type and nowhere else", () =>
    expectLaws(
      {
        "src/oci/x.ts": [
          "const a: any = 1;",
          "const b = a as any;",
          "const c = new Map<string, any>();",
          "let d: any[];",
          "await Promise.any(list); const e = { any: 1 }; // any",
          'const f = "any"; const g = /any/; const h = `any $' + "{a} any`;",
        ].join("\n"),
      },
      [1, 2, 3, 4].map((line) => `any src/oci/x.ts:${line}` as const),
    ));

  test("a caught error is handled, or a comment says why it is not", () =>
    expectLaws(
      {
        "src/oci/x.ts": [
          "try { a(); } catch {}",
          "try { a(); } catch (error) { }",
          "promise.catch(() => {});",
          "try { a(); } catch { /* gone already, which is what we wanted */ }",
          "try { a(); } catch { b(); }",
        ].join("\n"),
      },
      [1, 2, 3].map((line) => `empty-catch src/oci/x.ts:${line}` as const),
    ));

  test("nothing is left open in code, scripts and the agent", () => {
    const mark = "TO" + "DO";
    const other = "FIX" + "ME";
    return expectLaws(
      { "src/oci/x.ts": `// ${mark}: later\n`, "agent/src/main.rs": `\n// ${other}\n`, "scripts/x.sh": `# ${mark}\n` },
      ["open-ends src/oci/x.ts:1", "open-ends agent/src/main.rs:2", "open-ends scripts/x.sh:1"],
    );
  });

  test("long files are listed", () =>
    withTree({ "src/oci/x.ts": "a;\n".repeat(401), "src/oci/y.ts": "a;\n".repeat(400) }, async (root) => {
      assert.deepEqual(await longFiles(root), [{ path: "src/oci/x.ts", lines: 401 }]);
    }));
});

describe("scanner", () => {
  test("tells code from comments, strings, templates and regular expressions", () => {
    const source = "a('x', `y$" + "{b('z')}w`, /[/'\"]q/.test(c / d), e); // f";
    assert.equal(scan(source).code, "a(' ', ` $" + "{b(' ')} `, /      /.test(c / d), e);     ");
    assert.equal(scan("a; /* b\nc */ d;").uncommented, "a;     \n     d;");
  });

  test("an import in a comment or a string is none", () => {
    const source = ['// import "a";', "const s = 'import \"b\"';", "/* from 'c' */ import d from 'd';"].join("\n");
    assert.deepEqual(
      importsOf(scan(source)).map((item) => item.specifier),
      ["d"],
    );
  });
});
