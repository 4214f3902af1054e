import assert from "node:assert/strict";
import { test } from "node:test";
import { parseDeb822, parseOneLine, renderDeb822 } from "./sources.ts";

test("a deb822 file gives its binary sources, without disabled and source-only ones", () => {
  const sources = parseDeb822(`# a comment
Types: deb deb-src
URIs: http://one.test/debian http://two.test/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
# within a stanza
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://three.test/
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://four.test/
Suites: bookworm
Components: main

Types: deb
Architectures: arm64
URIs: http://five.test/
Suites: bookworm
Components: main
`);
  assert.deepEqual(sources, [
    {
      uris: ["http://one.test/debian", "http://two.test/debian"],
      suites: ["bookworm", "bookworm-updates"],
      components: ["main", "contrib"],
      signedBy: "/usr/share/keyrings/debian-archive-keyring.gpg",
    },
  ]);
});

test("an embedded key survives reading and writing", () => {
  const text = `Types: deb
URIs: http://one.test/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
`;
  const [source] = parseDeb822(text);
  assert.match(source?.signedBy ?? "", /^\n -----BEGIN[\s\S]*\n \.\n mQINBF\n/);
  assert.deepEqual(parseDeb822(renderDeb822(source ? [source] : [])), [source]);
});

test("one-line sources are read with options and comments", () => {
  const text = `
# deb http://off.test/debian bookworm main
deb [arch=amd64 signed-by=/a.gpg,/b.gpg] http://one.test/debian bookworm main contrib # why
deb-src http://two.test/debian bookworm main
deb	http://three.test/debian   bookworm-security  main
deb [arch=arm64] http://four.test/debian bookworm main
`;
  assert.deepEqual(parseOneLine(text), [
    {
      uris: ["http://one.test/debian"],
      suites: ["bookworm"],
      components: ["main", "contrib"],
      signedBy: "/a.gpg /b.gpg",
    },
    { uris: ["http://three.test/debian"], suites: ["bookworm-security"], components: ["main"], signedBy: undefined },
  ]);
});

test("text that is no source list gives nothing", () => {
  for (const text of ["", "\n\n\n", "deb", "URIs\nnonsense", ": x"]) {
    assert.deepEqual(parseDeb822(text), []);
    assert.deepEqual(parseOneLine(text), []);
  }
});
