import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSecretHost, SECRET_HEADERS } from "../../contract/secret-text.ts";
import { isSecretsHost, knownSecret, putIn } from "./put-in.ts";

const placeholder = (digit: string) => `banger_secret_${digit.repeat(32)}`;
const TOKEN = placeholder("a");
const UNSET = placeholder("b");
const NARROW = placeholder("c");
const secrets = [
  knownSecret(
    {
      name: "TOKEN",
      hosts: ["api.example.com", "*.corp.example:8443"],
      headers: [...SECRET_HEADERS],
      placeholder: TOKEN,
    },
    "the-real-value",
  ),
  knownSecret(
    { name: "UNSET", hosts: ["api.example.com"], headers: [...SECRET_HEADERS], placeholder: UNSET },
    undefined,
  ),
  knownSecret(
    { name: "NARROW", hosts: ["api.example.com", "http://plain.example"], headers: ["x-mine"], placeholder: NARROW },
    "another-value",
  ),
];
const api = parseSecretHost("api.example.com");
const put = (headers: string[], to = api, path = "/") => putIn(headers, path, to, secrets).headers;
const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;

test("a placeholder becomes its value in a header that may carry it, on its way to a host that may have it", () => {
  assert.deepEqual(put(["Authorization", `Bearer ${TOKEN}`, "Accept", "*/*"]), [
    "Authorization",
    "Bearer the-real-value",
    "Accept",
    "*/*",
  ]);
  assert.deepEqual(put(["authorization", `token ${TOKEN}`]), ["authorization", "token the-real-value"]);
  assert.deepEqual(put(["X-API-Key", TOKEN]), ["X-API-Key", "the-real-value"]);
  assert.deepEqual(put(["X-Mine", `a=${NARROW}, b=${NARROW}`]), ["X-Mine", "a=another-value, b=another-value"]);
  const deep = parseSecretHost("git.eu.corp.example:8443");
  assert.deepEqual(put(["Authorization", TOKEN], deep), ["Authorization", "the-real-value"]);
});

test("as git, curl and docker send it, within Basic", () => {
  const { headers, sent } = putIn(["Authorization", basic(`x-access-token:${TOKEN}`)], "/", api, secrets);
  assert.deepEqual(headers, ["Authorization", basic("x-access-token:the-real-value")]);
  assert.ok(sent.includes(basic("x-access-token:the-real-value").slice(6)), "what was made of it is known");
  assert.deepEqual(put(["Authorization", basic(`${TOKEN}:`)]), ["Authorization", basic("the-real-value:")]);
  const others = ["Basic !!", "Basic", basic("user:password"), "Bearer x"];
  for (const text of others) assert.deepEqual(put(["Authorization", text]), ["Authorization", text]);
});

test("it is refused elsewhere, with what would be right", () => {
  const refused = (headers: string[], to: string, message: RegExp, path = "/") =>
    assert.throws(
      () => putIn(headers, path, parseSecretHost(to), secrets),
      (error: Error & { code: string }) => {
        assert.equal(error.code, "SECRET_REFUSED");
        assert.match(error.message, message);
        assert.doesNotMatch(JSON.stringify(error), /the-real-value|another-value/);
        return true;
      },
    );
  for (const host of [
    "example.com",
    "evil-api.example.com",
    "api.example.com.evil.example",
    "api.example.com:8443",
    "http://api.example.com",
    "corp.example:8443",
    "evilcorp.example:8443",
  ])
    refused(["Authorization", `Bearer ${TOKEN}`], host, /TOKEN is not for/);
  refused(["Authorization", basic(`git:${TOKEN}`)], "example.com", /not for example\.com/);
  refused(["User-Agent", TOKEN], "api.example.com", /not for header user-agent/);
  refused(["Authorization", NARROW], "api.example.com", /not for header authorization/);
  refused(["Authorization", UNSET], "api.example.com", /UNSET has no value/);
  refused(["Authorization", placeholder("d")], "api.example.com", /of no secret of this VM/);
  refused([], "api.example.com", /address of a request/, `/?key=${TOKEN}`);
});

test("hosts that are looked into are those of some secret", () => {
  const is = (text: string) => isSecretsHost(secrets, parseSecretHost(text));
  assert.deepEqual(
    [
      "api.example.com",
      "a.corp.example:8443",
      "a.corp.example",
      "example.com",
      "http://plain.example",
      "plain.example",
    ].map(is),
    [true, true, false, false, true, false],
  );
});
