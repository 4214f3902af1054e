import assert from "node:assert/strict";
import { test } from "node:test";
import { parseNetRule } from "../../contract/net-rules.ts";
import type { VmRow } from "../store/vms.ts";
import { refusalOf } from "./judge.ts";

/** As agent/src/host/policy.rs tests its own: the two must agree. */
const judge = (
  network: VmRow["network"],
  rules: readonly string[],
  near: readonly string[] = [],
  team: readonly string[] = [],
) => {
  const parsed = rules.map((text) => {
    const [action = "", rule = ""] = text.split(" ");
    return parseNetRule(action === "deny" ? "deny" : "allow", rule);
  });
  return (address: string, port: number, host = address) =>
    refusalOf({ network, rules: parsed, team }, near, { host, address, port }) ?? "pass";
};

test("the default reaches the world and nothing near", () => {
  const open = judge("user", [], ["192.0.2.0/24"]);
  assert.equal(open("93.184.216.34", 443), "pass");
  for (const never of [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "169.254.169.254",
    "10.0.2.2",
    "10.0.2.3",
    "224.0.0.251",
    "255.255.255.255",
  ])
    assert.equal(open(never, 80), "never", never);
  for (const near of ["10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "198.19.0.1", "192.0.2.9"])
    assert.equal(open(near, 80), "private", near);
  assert.equal(judge("none", [])("93.184.216.34", 443), "no network card");
});

test("the first rule that fits decides, but never about what is never reached", () => {
  const rules = judge("policy", [
    "deny 192.168.1.7:22/tcp",
    "allow 192.168.1.0/24:22-80/tcp",
    "allow any:123/udp",
    "allow 127.0.0.0/8",
    "allow 10.0.2.0/24",
  ]);
  assert.equal(rules("192.168.1.7", 22), "deny 192.168.1.7/32 tcp 22-22");
  assert.equal(rules("192.168.1.8", 22), "pass");
  assert.equal(rules("192.168.1.8", 81), "private");
  assert.equal(rules("8.8.8.8", 123), "default deny");
  assert.equal(rules("127.0.0.1", 80), "never");
  assert.equal(rules("10.0.2.2", 80), "never");
});

test("a rule by name counts for what was asked for, and never lets through to what is near", () => {
  const rules = judge("policy", ["deny ads.example.org", "allow *.example.org:443/tcp"], ["203.0.113.0/24"]);
  assert.equal(rules("9.9.9.9", 443, "www.example.org"), "pass");
  assert.equal(rules("9.9.9.9", 80, "www.example.org"), "default deny");
  assert.equal(rules("9.9.9.9", 443, "ads.example.org"), "deny ads.example.org any *");
  assert.equal(rules("9.9.9.9", 443, "example.org"), "default deny");
  assert.equal(rules("9.9.9.9", 443, "evilexample.org"), "default deny");
  assert.equal(rules("9.9.9.9", 443), "default deny");
  for (const near of ["192.168.1.1", "203.0.113.7"]) assert.equal(rules(near, 443, "lan.example.org"), "private");
  assert.equal(rules("127.0.0.1", 443, "loop.example.org"), "never");
  assert.equal(
    judge("user", ["deny lan.example.org"])("192.168.1.1", 80, "lan.example.org"),
    "deny lan.example.org any *",
  );
});

test("IPv6 is judged as IPv4 is, and by what IPv4 address it leads to", () => {
  const open = judge("user", ["deny 203.0.113.0/24"], ["2001:db8:1::/48"]);
  for (const [address, verdict] of [
    ["2001:4860::8888", "pass"],
    ["::1", "never"],
    ["::", "never"],
    ["::ffff:127.0.0.1", "never"],
    ["::ffff:8.8.8.8", "never"],
    ["::7f00:1", "never"],
    ["fe80::1", "never"],
    ["fd00:ec2::254", "never"],
    ["fd62:616e:6765:7200::3", "never"],
    ["ff02::1", "never"],
    ["64:ff9b::7f00:1", "never"],
    ["64:ff9b::a9fe:a9fe", "never"],
    ["2002:7f00:1::", "never"],
    ["2002:e000:1::", "never"],
    ["64:ff9b::c0a8:101", "private"],
    ["2002:c0a8:101::1", "private"],
    ["2001:0:a01:101::f7f7:f7f7", "private"],
    ["fd12::1", "private"],
    ["fec0::1", "private"],
    ["2001:db8:1::5", "private"],
    ["2001:db8:2::5", "pass"],
    ["64:ff9b::cb00:7101", "deny 203.0.113.0/24 any *"],
    ["fe80::1%eth0", "never"],
    ["no address", "never"],
  ] as const)
    assert.equal(open(address, 443), verdict, address);
  const rules = judge("policy", ["allow 2001:db8::/32", "allow 8.8.8.0/24", "allow fd12::/16"]);
  assert.equal(rules("2001:db8::1", 443), "pass");
  assert.equal(rules("fd12::1", 443), "pass");
  assert.equal(rules("64:ff9b::808:808", 443), "default deny");
  assert.equal(judge("policy", ["allow any"])("2001:db8::1", 443), "pass");
  assert.equal(judge("user", ["deny any"])("2001:db8::1", 443), "deny 0.0.0.0/0 any *");
});

test("a team's addresses are not reached from here", () => {
  assert.equal(judge("user", ["allow 10.0.0.0/8"])("10.0.3.9", 80), "pass");
  assert.equal(judge("user", ["allow 10.0.0.0/8"], [], ["team 10.0.3.2"])("10.0.3.9", 80), "team");
});
