import assert from "node:assert/strict";
import { test } from "node:test";
import { formatPublish, parsePublish } from "./ports.ts";

test("ports are written [[ADDRESS:]HOST:]GUEST[/udp]", () => {
  const read: Record<string, unknown> = {
    "80": { proto: "tcp", guest: 80 },
    "8080:80": { proto: "tcp", guest: 80, host: 8080 },
    "0:80/tcp": { proto: "tcp", guest: 80, host: 0 },
    "53/udp": { proto: "udp", guest: 53 },
    "127.0.0.1:8080:80": { proto: "tcp", guest: 80, host: 8080, address: "127.0.0.1" },
    "[::1]:5353:53/udp": { proto: "udp", guest: 53, host: 5353, address: "::1" },
  };
  for (const [text, expected] of Object.entries(read)) assert.deepEqual(parsePublish(text), expected, text);
});

test("anything else is refused with how to write it", () => {
  const wrong = [
    "",
    "0",
    "65536",
    "x",
    "80/sctp",
    "80:",
    ":80",
    "1:2:3:4",
    "host:80:80",
    "::1:80:80",
    "[::1]:80",
    "-1:80",
    "80 ",
    "8e1",
  ];
  for (const text of wrong) assert.throws(() => parsePublish(text), { code: "USAGE" }, text);
});

test("a port is printed as it is written", () => {
  for (const text of ["80", "8080:80", "53/udp", "5353:53/udp"]) assert.equal(formatPublish(parsePublish(text)), text);
});
