import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { resolverKind, resolverKinds, routesTo, setUp } from "./resolver.ts";

const inMachine = async (files: Record<string, string>, use: (root: string) => Promise<void>): Promise<void> => {
  const root = await mkdtemp(join(tmpdir(), "banger-resolver-"));
  try {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), text);
    }
    await use(root);
  } finally {
    await rm(root, { recursive: true });
  }
};

test("each kind of resolver is told from the others", async () => {
  const plain = { "etc/resolv.conf": "nameserver 192.0.2.1\n" };
  const cases = {
    "systemd-resolved": { "etc/resolv.conf": "nameserver 127.0.0.53\noptions edns0\n" },
    NetworkManager: { ...plain, "etc/NetworkManager/conf.d/dns.conf": "[main]\ndns=dnsmasq\n" },
    dnsmasq: { ...plain, "run/dnsmasq/dnsmasq.pid": "1\n" },
    "resolv.conf": { ...plain, "etc/NetworkManager/NetworkManager.conf": "[main]\nplugins=ifupdown\n" },
  };
  for (const [kind, files] of Object.entries(cases))
    await inMachine(files, async (root) => assert.equal(await resolverKind(root), kind));
});

test("a set-up writes what the resolver reads, and is found again", async () => {
  for (const kind of resolverKinds) {
    const folders = { "etc/dnsmasq.d/README": "", "etc/NetworkManager/dnsmasq.d/README": "", "etc/systemd/README": "" };
    await inMachine(folders, async (root) => {
      // As it is printed, with the machine's root elsewhere and without its services and packages.
      const printed = setUp(kind, "127.0.0.1", 42069)
        .replace(/^.*dnsmasq && printf/, "printf")
        .replace(/ && sudo systemctl.*$/, "")
        .replaceAll("sudo ", "")
        .replaceAll(" /etc/", ` ${root}/etc/`);
      await promisify(execFile)("sh", ["-ec", printed]);
      const [path = ""] = await routesTo(42069, root);
      const text = await readFile(path, "utf8");
      const expected =
        kind === "systemd-resolved" ? "[Resolve]\nDNS=127.0.0.1:42069\nDomains=~vm\n" : "server=/vm/127.0.0.1#42069\n";
      assert.equal(text, expected, kind);
    });
  }
});
