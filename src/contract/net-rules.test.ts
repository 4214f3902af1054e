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
    "2001:DB8::1": { to: "2001:db8::1/128", proto: "any" },
    "2001:db8:0:0:1::7/64": { to: "2001:db8::/64", proto: "any" },
    "2001:db8:ffff:ffff::/37/tcp": { to: "2001:db8:f800::/37", proto: "tcp" },
    "[2001:db8::1]:443/tcp": { to: "2001:db8::1/128", proto: "tcp", ports: [443, 443] },
    "[2001:db8::/32]:80-90": { to: "2001:db8::/32", proto: "any", ports: [80, 90] },
    "[fd00::1]": { to: "fd00::1/128", proto: "any" },
    "::1": { to: "::1/128", proto: "any" },
    "::/0": { to: "::/0", proto: "any" },
    "::ffff:1.2.3.4": { to: "::ffff:102:304/128", proto: "any" },
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
    "::1/129",
    "::1::2",
    "2001:db8::1:443:",
    "[1.2.3.4]:80",
    "[example.org]:80",
    "[::1",
    "::1]:80",
    "[::1]443",
    "fe80::1%eth0",
    "any/sctp",
    "1.2.3.4 ",
  ])
    assert.throws(() => parseNetRule("deny", text), { code: "USAGE" }, text);
});

test("a rule is printed as it is written, and the same however it was", () => {
  for (const text of [
    "any",
    "192.168.1.5:22/tcp",
    "192.168.1.0/24",
    "any:1-65535/udp",
    "*.example.org:443",
    "2001:db8::1",
    "2001:db8::/32/tcp",
    "[2001:db8::1]:443",
    "[::/0]:25/tcp",
  ])
    assert.equal(formatNetRule(parseNetRule("allow", text)), text);
  const one = parseNetRule("allow", "192.168.1.1/24");
  assert.ok(sameNetRule(one, parseNetRule("allow", "192.168.1.0/24")));
  assert.ok(!sameNetRule(one, parseNetRule("deny", "192.168.1.0/24")));
});
