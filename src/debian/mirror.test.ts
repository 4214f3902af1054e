import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chooseMirror } from "./mirror.ts";

let folder: string;
let keyring: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-mirror-"));
  keyring = join(folder, "keys.gpg");
  await writeFile(keyring, "");
});
after(() => rm(folder, { recursive: true }));

let count = 0;
/** A machine with these files below /etc/apt. */
const machine = async (files: Record<string, string>, os = "ID=debian\nVERSION_CODENAME=trixie\n") => {
  const root = join(folder, String(count++));
  await mkdir(join(root, "apt/sources.list.d"), { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(join(root, "apt", name), text);
  const osRelease = join(root, "os-release");
  await writeFile(osRelease, os);
  return { suite: "bookworm", aptFolder: join(root, "apt"), osRelease, keyring };
};

const brief = (sources: readonly { uris: string[]; suites: string[] }[]) =>
  sources.map(({ uris, suites }) => `${uris.join(",")} ${suites.join(",")}`);

test("the machine's own mirror serves another release, with updates and security", async () => {
  const { sources } = await chooseMirror(
    await machine({
      "sources.list":
        "deb http://one.test/debian trixie main\ndeb http://sec.test/debian-security trixie-security main\n",
      "sources.list.d/more.sources":
        "Types: deb\nURIs: http://one.test/debian\nSuites: trixie-updates trixie-backports\nComponents: main\n",
    }),
  );
  assert.deepEqual(brief(sources), [
    "http://one.test/debian bookworm",
    "http://one.test/debian bookworm-updates",
    "http://sec.test/debian-security bookworm-security",
  ]);
  assert.ok(sources.every(({ signedBy }) => signedBy === keyring));
});

test("other vendors' repositories are not taken for Debian's", async () => {
  const { sources } = await chooseMirror(
    await machine({
      "sources.list.d/a-browser.list": "deb [arch=amd64] http://browser.test/deb/ stable main\n",
      "sources.list.d/b-vendor.sources":
        "Types: deb\nURIs: http://vendor.test/apt\nSuites: trixie\nComponents: main\nSigned-By: /etc/apt/keyrings/vendor.gpg\n",
      "sources.list.d/c.sources":
        "Types: deb\nURIs: http://one.test/debian\nSuites: stable\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.pgp\n",
      "sources.list.d/d.sources.disabled": "Types: deb\nURIs: http://x.test/debian\nSuites: trixie\nComponents: main\n",
    }),
  );
  assert.deepEqual(brief(sources), ["http://one.test/debian bookworm"]);
  assert.equal(sources[0]?.signedBy, "/usr/share/keyrings/debian-archive-keyring.pgp");
});

test("a machine that names no Debian mirror gets a hint", async () => {
  const ubuntu = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n";
  for (const choice of [
    await machine({}),
    await machine({ "sources.list": "deb http://other.test/ubuntu noble main\n" }, ubuntu),
    await machine({ "sources.list": "deb cdrom:[Debian]/ trixie main\n" }),
    { suite: "bookworm", aptFolder: join(folder, "none"), osRelease: join(folder, "none"), keyring },
  ]) {
    await assert.rejects(chooseMirror(choice), { code: "MIRROR_UNREACHABLE", hint: /debian_mirror.*config\.toml/ });
  }
});

test("a configured mirror wins; its security archive lies beside it or is named", async () => {
  const own = await machine({ "sources.list": "deb http://one.test/debian trixie main\n" });
  const beside = await chooseMirror({ ...own, mirror: "https://m.test/debian/" });
  assert.deepEqual(brief(beside.sources), [
    "https://m.test/debian bookworm,bookworm-updates",
    "https://m.test/debian-security bookworm-security",
  ]);
  const named = await chooseMirror({ ...own, mirror: "https://m.test/a https://s.test/b" });
  assert.deepEqual(brief(named.sources), [
    "https://m.test/a bookworm,bookworm-updates",
    "https://s.test/b bookworm-security",
  ]);
  assert.notEqual(beside.key, named.key);
  for (const mirror of ["m.test/debian", "ftp://m.test", "http://a http://b http://c"]) {
    await assert.rejects(chooseMirror({ ...own, mirror }), { code: "INVALID_CONFIG" });
  }
});

test("missing keys of Debian are named with the package that has them", async () => {
  const choice = { suite: "bookworm", mirror: "http://m.test/debian", keyring: join(folder, "none") };
  await assert.rejects(chooseMirror(choice), { code: "TOOL_MISSING", hint: /debian-archive-keyring/ });
});
