import assert from "node:assert/strict";
import { test } from "node:test";
import { formatNetRule, parseNetRule, sameNetRule } from "./net-rules.ts";

test("a rule is a target, ports and a protocol", () => {
  const read = {
    any: { to: "0.0.0.0/0", proto: "any" },
    "192.168.1.5": { to: "192.168.1.5/32", proto: "any" },
    "192.168.1.7/24": { to: "192.168.1.0/24", proto: "any" },
    "10.0.0.0/8:443/tcp": { to: "10.0.0.0/8", proto: "tcp", ports: [443, 443] },
    "any:8000-8080": { to: "0.0.0.0/0", proto: "any", ports: [8000, 8080] },
    "255.255.255.255/1/udp": { to: "128.0.0.0/1", proto: "udp" },
    "Example.org": { to: "example.org", proto: "any" },
    "*.cdn.example.org:443/tcp": { to: "*.cdn.example.org", proto: "tcp", ports: [443, 443] },
  };
  for (const [text, expected] of Object.entries(read))
    assert.deepEqual(parseNetRule("allow", text), { action: "allow", ...expected }, text);
});

test("anything else is refused with how to write it", () => {
  for (const text of [
    "",
    "localhost",
    "*.com",
    "exam*.org",
    "a..b",
    "-a.org",
    "https://example.org",
    "example.org/path",
    "1.2.3",
    "256.1.1.1",
    "1.2.3.4/33",
    "1.2.3.4:0",
    "1.2.3.4:9-8",
    "1.2.3.4:70000",
    "::1",
    "any/sctp",
    "1.2.3.4 ",
  ])
    assert.throws(() => parseNetRule("deny", text), { code: "USAGE" }, text);
});

test("a rule is printed as it is written, and the same however it was", () => {
  for (const text of ["any", "192.168.1.5:22/tcp", "192.168.1.0/24", "any:1-65535/udp", "*.example.org:443"])
    assert.equal(formatNetRule(parseNetRule("allow", text)), text);
  const one = parseNetRule("allow", "192.168.1.1/24");
  assert.ok(sameNetRule(one, parseNetRule("allow", "192.168.1.0/24")));
  assert.ok(!sameNetRule(one, parseNetRule("deny", "192.168.1.0/24")));
});
