import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { BangerError } from "../contract/errors.ts";
import { findCommand } from "./find.ts";
import { type EnvSetting, environmentOf } from "./flags/env.ts";
import { allHelp } from "./help.ts";
import { parseCommand } from "./parse.ts";
import { entries, groupExamples, groups, subgroups } from "./table.ts";

const parse = async (line: readonly string[]) => {
  const { entry, rest } = findCommand(line);
  assert.ok(entry);
  return parseCommand(entry.name, (await entry.load()).command, rest);
};

const settings = (value: unknown) => value as EnvSetting[];

const usageOf = async (line: readonly string[]): Promise<BangerError> => {
  try {
    await parse(line);
  } catch (error) {
    if (error instanceof BangerError) return error;
    throw error;
  }
  throw new Error(`accepted: ${line.join(" ")}`);
};

describe("finding the command", () => {
  const found: [string, string][] = [
    ["vm run", "vm run"],
    ["run --rm", "vm run"],
    ["ps", "vm list"],
    ["rm box", "vm delete"],
    ["vm rm box", "vm delete"],
    ["vm ps", "vm list"],
    ["--json ps", "vm list"],
    ["doctor", "doctor"],
    ["image list", "image list"],
  ];
  for (const [line, name] of found) test(line, () => assert.equal(findCommand(line.split(" ")).entry?.name, name));

  test("help of help is help, an empty word and a control character are shown as such", () => {
    assert.deepEqual([findCommand(["help", "help"]).path, findCommand(["help", "help"]).globals.help], ["", true]);
    assert.throws(() => findCommand([""]), /unknown command: ""/);
    assert.throws(() => findCommand(["a\u001b[31m"]), /unknown command: "a\\u001b\[31m"/);
    assert.throws(() => findCommand(["vm", ""]), /unknown command: vm ""/);
  });

  test("what follows the command is not looked at", () => {
    assert.deepEqual(findCommand(["exec", "box", "--json", "--", "--help"]).rest, ["box", "--json", "--", "--help"]);
    assert.equal(findCommand(["exec", "box", "--json"]).globals.json, false);
  });

  const unknown: [string, RegExp][] = [
    ["vmm run", /`banger vm`/],
    ["vm rnu", /`banger vm run`/],
    ["pss", /`banger ps`/],
    ["--jsn ps", /`--json`/],
    ["quux", /banger --help/],
    ["vm quux", /banger vm --help/],
    ["daemon bogus", /banger daemon --help/],
    ["image run", /`banger vm run`/],
    ["vm --hlep", /`--help`/],
    ["vm -x", /`-h`/],
    ["vm --", /banger vm run --rm -- uname -a/],
    ["-- ls", /banger vm run --rm -- uname -a/],
    ["help vm nosuch", /banger vm --help/],
  ];
  for (const [line, hint] of unknown) {
    test(`unknown: ${line}`, () => {
      assert.throws(
        () => findCommand(line.split(" ")),
        (error: BangerError) => error.code === "USAGE" && hint.test(error.hint ?? ""),
      );
    });
  }
});

describe("the guest's argv", () => {
  const cases: [line: string[], args: string[], argv: string[] | undefined][] = [
    [["exec", "box", "--", "ls", "-la"], ["box"], ["ls", "-la"]],
    [["exec", "box", "ls", "-la"], ["box"], ["ls", "-la"]],
    [["exec", "box", "ls", "--", "-la"], ["box"], ["ls", "--", "-la"]],
    [["exec", "-e", "A=1", "box", "env"], ["box"], ["env"]],
    [["exec", "box", "-e", "A=1", "--user", "bob", "env", "--user"], ["box"], ["env", "--user"]],
    [["exec", "box", "-it", "top", "-d", "1"], ["box"], ["top", "-d", "1"]],
    [["exec", "box", "-ite", "A=1", "top"], ["box"], ["top"]],
    [["exec", "box", "--cwd=/tmp", "pwd"], ["box"], ["pwd"]],
    [["exec", "box", "--", "--", "x"], ["box"], ["--", "x"]],
    [["exec", "box", "--", ""], ["box"], [""]],
    [["exec", "box", "sh", "-c", "exit 42"], ["box"], ["sh", "-c", "exit 42"]],
    [["exec", "box", "--"], ["box"], []],
    [["exec", "box"], ["box"], undefined],
    [["run", "--rm", "--", "echo", "--rm"], [], ["echo", "--rm"]],
    [["run", "--rm"], [], undefined],
    [["ssh", "box", "uptime", "-p"], ["box"], ["uptime", "-p"]],
  ];
  for (const [line, args, argv] of cases) {
    test(line.join(" "), async () => {
      const parsed = await parse(line);
      assert.deepEqual([parsed.args, parsed.argv], [args, argv]);
    });
  }

  test("--help and --json after the command's own words are the guest's", async () => {
    const parsed = await parse(["exec", "box", "ls", "--help", "--json"]);
    assert.deepEqual([parsed.help, parsed.json], [false, false]);
  });
});

describe("flags", () => {
  test("values are parsed", async () => {
    const { values } = await parse([
      "run",
      "--memory",
      "512M",
      "--vcpu=2",
      "--disk-size",
      "4GiB",
      "--net",
      "none",
      "-e",
      "A=1=2",
      "-e",
      "B=",
    ]);
    const { memory, vcpu, net, "disk-size": diskSize, env, rm } = values as Record<string, unknown>;
    assert.deepEqual(
      { memory, vcpu, net, diskSize, rm },
      { memory: 2 ** 29, vcpu: 2, net: "none", diskSize: 2 ** 32, rm: false },
    );
    assert.deepEqual(environmentOf(settings(env)), { A: "1=2", B: "" });
  });

  test("what was not given is not there", async () => {
    const { values } = await parse(["run"]);
    assert.equal(values.memory, undefined);
    assert.equal(values.net, undefined);
  });

  test("a name alone takes the host's value, and nothing where there is none", async () => {
    process.env.BANGER_TEST_VALUE = "x y";
    delete process.env.BANGER_TEST_NOTHING;
    const { values } = await parse(["run", "-e", "BANGER_TEST_VALUE", "-e", "BANGER_TEST_NOTHING"]);
    assert.deepEqual(environmentOf(settings(values.env)), { BANGER_TEST_VALUE: "x y" });
  });

  const wrong: [line: string[], message: RegExp, hint?: RegExp][] = [
    [["run", "--memroy", "1G"], /unknown flag.*--memroy/, /`--memory`/],
    [["run", "-x"], /unknown flag.*-x/],
    [["run", "--mem", "1G"], /unknown flag.*--mem/, /`--memory`/],
    [["run", "--memory"], /--memory needs a value/],
    [["run", "--memory", "--rm"], /--memory needs a value/],
    [["run", "--memory", "0"], /not a valid memory size/],
    [["run", "--memory=-1G"], /not a valid memory size/],
    [["run", "--vcpu", "0"], /not a valid number of CPUs/],
    [["run", "--vcpu", "1.5"], /not a valid number of CPUs/],
    [["run", "--net", "usr"], /not a valid network/, /`user`/],
    [["run", "--name", "Box_1"], /not a valid VM name/],
    [["run", "--env", "=x"], /environment setting/],
    [["run", "--rm=yes"], /--rm takes no value/],
    [["vm", "kill", "--signal", "KIL", "box"], /not a signal/, /SIGKILL/],
    [["stop"], /VM is missing/],
    [["vm", "show", "a", "b"], /one argument too many: b/],
    [["vm", "list", "x"], /unexpected argument: x/],
    [["vm", "list", ""], /unexpected argument: ""/],
    [["vm", "list", "a b"], /unexpected argument: "a b"/],
    [["vm", "show", ""], /VM is empty/],
    [["stop", "box", ""], /VM is empty/],
    [["vm", "cp", "", "box:/x"], /PATHS is empty/],
    [["run", "--image", ""], /the value of --image is empty/],
    [["exec", "-u", "", "box", "ls"], /the value of -u is empty/],
    [["run", "--memory", "-1G"], /"-1G" is not a valid memory size/],
    [["stop", "-t", "-5", "box"], /"-5" is not a time/],
    [["run", "--env", "A B=1"], /environment setting/],
    [["run", "--env", "A\nB=1"], /environment setting/],
    [["run", "--name", "x".repeat(300)], /^"x{60}…" \(300 characters\) is not a valid VM name$/],
    [["run", "--name", "bøx"], /"bøx" is not a valid VM name/],
    [["run", "--allow", "https://example.org"], /is no network rule/, /example\.org:443/],
    [["run", "--deny", "1.2.3.4:70000"], /is no network rule/],
    [["run", "--allow", "[::1:80"], /is no network rule/],
    [["run", "--team", "My Team"], /"My Team" is not a valid team name/],
    [["vm", "net", "allow", "box"], /RULE is missing/],
    [["vm", "net", "log"], /VM is missing/],
    [["run", "--mode", "deep"], /not a valid mode/, /shallow/],
    [["vm", "workspace", "prepare", "box"], /PATH is missing/],
  ];
  for (const [line, message, hint] of wrong) {
    test(`refused: ${line.join(" ")}`, async () => {
      const error = await usageOf(line);
      assert.equal(error.code, "USAGE");
      assert.match(error.message, message);
      if (hint) assert.match(error.hint ?? "", hint);
    });
  }
});

describe("help", () => {
  test("every command is in it, and every command that an example or a hint names exists", async () => {
    const text = await allHelp();
    for (const { name, hidden } of entries) if (!hidden) assert.ok(text.includes(`banger ${name}:`), name);
    for (const [, words = ""] of text.matchAll(/(?:`|^ {2})banger ((?:[a-z]+ ?){1,2})/gm)) {
      const [first = "", second] = words.trim().split(" ");
      assert.doesNotThrow(
        () =>
          findCommand(second && entries.some(({ name }) => name === `${first} ${second}`) ? [first, second] : [first]),
        words,
      );
    }
  });

  test("every example parses", async () => {
    const commands = await Promise.all(entries.map(async ({ load }) => (await load()).command.examples));
    assert.deepEqual(Object.keys(groupExamples), Object.keys(groups));
    const ofSubgroups = Object.values(subgroups).map(({ examples }) => examples);
    for (const examples of [...commands, ...Object.values(groupExamples), ...ofSubgroups]) {
      assert.ok(examples.length > 0);
      for (const [example] of examples) {
        const [, line = ""] = /banger ([^|<>)&]*)/.exec(example) ?? [];
        const words = line
          .trim()
          .replace(/\$\([^)]*\)?/g, "box")
          .split(/\s+/)
          .map((word) => word.replace(/^'|'$/g, ""));
        await assert.doesNotReject(parse(words), example);
      }
    }
  });
});
