import assert from "node:assert/strict";
import { test } from "node:test";
import { BangerError } from "./errors.ts";
import {
  checkSecretHeaders,
  checkSecretName,
  checkSecretValue,
  formatSecretHost,
  hostName,
  isFor,
  parseSecret,
  parseSecretHost,
} from "./secret-text.ts";

const isUsage = (error: unknown) => error instanceof BangerError && error.code === "USAGE";

test("a secret is a name and hosts", () => {
  assert.deepEqual(parseSecret("GITHUB_TOKEN@API.github.com,github.com:443"), {
    name: "GITHUB_TOKEN",
    hosts: ["api.github.com", "github.com"],
  });
  assert.deepEqual(parseSecret("TOKEN"), { name: "TOKEN", hosts: undefined });
  for (const text of ["", "@x.example", "A B@x.example", "1A@x.example", "A@", "A@x,,y", "A@https://", "A@x/y"])
    assert.throws(() => parseSecret(text), isUsage, text);
});

test("a value on a command line is refused, and not repeated", () => {
  assert.throws(
    () => parseSecret("TOKEN=hunter2hunter2@x.example"),
    (error) => isUsage(error) && !JSON.stringify([(error as Error).message, error]).includes("hunter2"),
  );
});

test("hosts: names, addresses, what is below a name; TLS and its port unless another is named", () => {
  for (const [text, expected] of [
    ["Api.Example.com", "api.example.com"],
    ["*.Example.com", "*.example.com"],
    ["https://api.example.com", "api.example.com"],
    ["api.example.com:443", "api.example.com"],
    ["api.example.com:8443", "api.example.com:8443"],
    ["http://git.corp", "http://git.corp"],
    ["http://git.corp:80", "http://git.corp"],
    ["192.168.1.5:3000", "192.168.1.5:3000"],
    ["localhost", "localhost"],
  ] as const)
    assert.equal(formatSecretHost(parseSecretHost(text)), expected);
  const wrong = [
    "*",
    "*.com",
    "a.*.example.com",
    "x.example:0",
    "x.example:70000",
    "ftp://x.example",
    "x.example/y",
    "a b",
    "[::1]",
    "1.2.3",
    "1.2.3.400",
    "x..y",
    "-x.example",
    "user@x.example",
  ];
  for (const text of wrong) assert.throws(() => parseSecretHost(text), isUsage, text);
});

test("a name is one however it is written, and an address has one way to be", () => {
  assert.deepEqual(
    ["A.B.", "a.b", "127.0.0.1", "0x7f.1", "2130706433", "127.1", "a.0x1", "1.2.3.4.", "a_b.c", "ä.example"].map(
      hostName,
    ),
    ["a.b", "a.b", "127.0.0.1", undefined, undefined, undefined, undefined, "1.2.3.4", "a_b.c", undefined],
  );
  const host = (text: string) => parseSecretHost(text);
  assert.ok(isFor(host("*.example.com"), host("a.b.example.com")));
  assert.ok(!isFor(host("*.example.com"), host("example.com")));
  assert.ok(!isFor(host("*.example.com"), host("evilexample.com")));
  assert.ok(!isFor(host("example.com"), host("http://example.com")));
});

test("names, headers and values that cannot be what they should", () => {
  for (const name of ["PATH", "XDG_STATE_HOME", "HOME", "https_proxy", "LD_PRELOAD", "NODE_OPTIONS", "a-b", "ä"])
    assert.throws(() => checkSecretName(name), isUsage, name);
  assert.deepEqual(checkSecretHeaders(["X-Token", "x-token", "Cookie"]), ["x-token", "cookie"]);
  for (const header of ["Host", "content-length", "Transfer-Encoding", "proxy-authorization", "a b", "x:y", ""])
    assert.throws(() => checkSecretHeaders([header]), isUsage, header);
  assert.equal(checkSecretValue("A", "long enough\n"), "long enough");
  for (const value of [
    "short",
    "two\nlines here",
    " padded value",
    "b\u00e4umchen-value",
    "nul\0nul\0nul",
    "x".repeat(20_000),
  ])
    assert.throws(
      () => checkSecretValue("A", value),
      (error) => isUsage(error) && !(error as Error).message.includes(value),
    );
});
