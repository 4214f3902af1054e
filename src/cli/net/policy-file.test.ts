import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { formatNetRule } from "../../contract/net-rules.ts";
import { learnedFrom, toldIn } from "./log-lines.ts";
import { learnInto, parsePolicy, policyText, readPolicy } from "./policy-file.ts";

test("a line of the filter tells what was refused, by which rule, whose it was and under which name", () => {
  assert.deepEqual(toldIn("refused tcp 192.168.1.1:80 a.lan from curl(612) by: deny a.lan any *"), {
    verdict: "refused",
    protocol: "tcp",
    address: "192.168.1.1",
    port: 80,
    name: "a.lan",
    process: { name: "curl", pid: 612 },
    rule: "deny a.lan any *",
  });
  assert.deepEqual(toldIn("refused udp [fd00::1]:53 by: private"), {
    verdict: "refused",
    protocol: "udp",
    address: "fd00::1",
    port: 53,
    rule: "private",
  });
  // A name may be one that looks like a word of the line.
  assert.deepEqual(toldIn("refused http api.example.com:443 by: secret TOKEN is not for api.example.com"), {
    verdict: "refused",
    protocol: "http",
    address: "api.example.com",
    port: 443,
    rule: "secret TOKEN is not for api.example.com",
  });
  assert.deepEqual(toldIn("refused http api.example.com:443 from curl(612) by: why")?.process, {
    name: "curl",
    pid: 612,
  });
  assert.equal(toldIn("refused tcp 1.2.3.4:80 from from a(b)(7) by: private")?.name, "from");
  assert.deepEqual(toldIn("refused tcp 1.2.3.4:80 from a(b)(7) by: private")?.process, { name: "a(b)", pid: 7 });
  assert.equal(toldIn("refused icmp fd00::1 by: private")?.address, "fd00::1");
  assert.equal(toldIn("refused protocol 47 10.0.0.1 by: never")?.protocol, "protocol 47");
  assert.equal(toldIn("passed tcp 1.2.3.4:443 example.org")?.name, "example.org");
  for (const other of [
    "",
    "team not joined: x",
    "refused more, or let through, which is not written down",
    "refused tcp",
  ])
    assert.equal(toldIn(other), undefined, other);
});

async function* lines(...all: string[]) {
  yield* all;
}

test("what has passed is a policy, each rule once, and reads as it was written", async () => {
  const learned = await learnedFrom(
    lines(
      "passed tcp 1.2.3.4:443 example.org",
      "passed tcp 1.2.3.5:443 example.org",
      "passed udp [2001:db8::1]:123",
      "passed tcp 1.2.3.6:80 lan",
      "passed icmp 1.2.3.4",
      "refused tcp 192.168.1.1:80 a.lan from curl(7) by: private",
    ),
  );
  const text = policyText(learned);
  assert.equal(
    text,
    `# What a run has reached, and no more: banger vm run --net-policy FILE
allow 1.2.3.6:80/tcp
allow [2001:db8::1]:123/udp
allow example.org:443/tcp
# What it was refused:
#   a.lan 192.168.1.1 80/tcp by: private
`,
  );
  assert.deepEqual(parsePolicy(text, "x"), learned.rules);
});

test("a policy of a person's keeps its order; a line that is none is named by its number", () => {
  const rules = parsePolicy("\n  deny any:25  # no mail\nallow *.example.org:443/tcp\r\n#\n", "x");
  assert.deepEqual(
    rules.map((rule) => `${rule.action} ${formatNetRule(rule)}`),
    ["deny any:25", "allow *.example.org:443/tcp"],
  );
  for (const wrong of ["example.org", "permit example.org", "allow", "allow a.org b.org", "allow https://a.org"])
    assert.throws(() => parsePolicy(`allow a.org\n${wrong}`, "x.policy"), {
      code: "USAGE",
      message: /^x\.policy line 2: /,
    });
});

test("a file that cannot be read or written is said before anything is done with it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "policy-"));
  try {
    await assert.rejects(readPolicy(join(folder, "none")), { code: "USAGE", message: /ENOENT/ });
    await assert.rejects(learnInto(join(folder, "no", "such")), { code: "USAGE", message: /ENOENT/ });
    await assert.rejects(learnInto(folder), { code: "USAGE", message: /is a folder/ });
    await writeFile(join(folder, "target"), "");
    await symlink("target", join(folder, "link"));
    await using learner = await learnInto(join(folder, "link"));
    await learner.write();
    assert.deepEqual(await readdir(folder), ["link", "target"], "nothing was learned, and nothing is written");
  } finally {
    await rm(folder, { recursive: true });
  }
});
