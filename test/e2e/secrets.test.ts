/** Secrets: programs of a guest use them and never have them; so after every kind of start, and nowhere on this machine but in their file. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import type { SecretInfo } from "../../src/contract/secrets.ts";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { gitServer } from "../support/git-server.ts";
import { type Done, type Host, testHost } from "../support/host.ts";
import { listening, ownAddress, serverAuthority } from "../support/secrets-bed.ts";

const GOLDEN = "debian-bookworm";
const SLIM = "debian-bookworm-slim";
const VALUE = "the-real-value-of-this-test-7c1d";
const OTHER_VALUE = "another-real-value-of-this-test-55aa";
const own = ownAddress();

let host: Host;
let folder: string;
/** What a server was sent, and a way to send it something. */
type Recorder = { port: number; seen: (string | undefined)[]; url: string; close(): void };
let certificates: Awaited<ReturnType<typeof serverAuthority>>;
let api: Recorder;
let other: Recorder;
let env: Record<string, string>;

const recorder = async (servers: Awaited<ReturnType<typeof serverAuthority>>): Promise<Recorder> => {
  const seen: (string | undefined)[] = [];
  const server = createServer(servers.serverFor(own), (request: IncomingMessage, response) => {
    seen.push(request.headers.authorization ?? (request.headers["x-api-key"] as string | undefined));
    void text(request).then(() => response.end(`you sent ${request.headers.authorization}\n`));
  });
  const port = await listening(server, own);
  return { port, seen, url: `https://${own}:${port}/`, close: () => server.close() };
};

const ok = async (args: readonly string[], more: Record<string, string> = {}): Promise<Done> => {
  const done = await host.run(args, { env: { ...env, ...more } });
  assert.equal(done.status, 0, `${args.join(" ")}: ${done.stderr}`);
  return done;
};
const inGuest = async (vm: string, script: string): Promise<string> =>
  (await ok(["vm", "exec", vm, "--", "sh", "-c", script])).stdout;
const curl = (vm: string, words: string) => inGuest(vm, `curl -sSi ${words} 2>&1 || :`);
const withToken = `-H "Authorization: Bearer $TOKEN"`;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-secrets-e2e-"));
  certificates = await serverAuthority();
  [api, other] = await Promise.all([recorder(certificates), recorder(certificates)]);
  const roots = join(folder, "roots.pem");
  await writeFile(roots, certificates.certificate);
  env = { NODE_EXTRA_CA_CERTS: roots };
  host = await testHost('[vm_defaults]\nvcpu = 2\nmemory = "640M"\ndisk_size = "2G"\n');
  await installFixture(host, [GOLDEN, SLIM]);
});
after(async () => {
  api.close();
  other.close();
  await host[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

test("what cannot be is refused before anything is made", async () => {
  const refused = async (args: readonly string[], said: RegExp, more: Record<string, string> = {}) => {
    const done = await host.run(["vm", "create", ...args], { env: { ...env, ...more } });
    assert.equal(done.status, 2, done.stdout);
    assert.match(done.stderr, said);
    assert.ok(!done.stderr.includes(VALUE));
  };
  await refused(["--secret", `TOKEN=${VALUE}@${own}`], /does not stand on a command line/);
  await refused(["--secret", "TOKEN"], /for no host/);
  await refused(["--secret", "TOKEN@api.example.com"], /no TOKEN in your environment/);
  await refused(["--secret", "TOKEN@api.example.com"], /has 5 characters/, { TOKEN: "short" });
  await refused(["--secret", "TOKEN@api.example.com", "--net", "none"], /without a network card/, { TOKEN: VALUE });
  await refused(["--secret", "TOKEN@a.example", "--env", "TOKEN=x"], /is a secret and a variable/, { TOKEN: VALUE });
  await refused(["--secret-header", "TOKEN=X-Key"], /which is not given/);
  assert.deepEqual(await host.json("vm", "list"), []);
});

test("curl, git's way and Python in the guest: the server has the value, the guest a placeholder, ssh and root's friends too", async () => {
  await ok(
    ["vm", "run", "-d", "--name", "box", "--net", "policy", "--allow", own, "--secret", `TOKEN@${own}:${api.port}`],
    { TOKEN: VALUE },
  );
  const placeholder = (await inGuest("box", "printenv TOKEN")).trim();
  assert.match(placeholder, /^banger_secret_[0-9a-f]{32}$/);
  const answer = await curl("box", `${withToken} ${api.url}`);
  assert.match(answer, /^HTTP\/1\.1 200 [\s\S]*you sent Bearer banger_secret_/m);
  assert.match(await curl("box", `-u git:$TOKEN ${api.url}`), /^HTTP\/1\.1 200 /m);
  const python = `import os, urllib.request as u; print(u.urlopen(u.Request("${api.url}", headers={"X-Api-Key": os.environ["TOKEN"]})).status)`;
  assert.equal(await inGuest("box", `python3 -c '${python}'`), "200\n");
  assert.equal(
    await inGuest("box", `su nobody -s /bin/sh -c 'curl -sS -o /dev/null -w %{http_code} ${api.url}'`),
    "200",
  );
  const basic = Buffer.from(`git:${VALUE}`).toString("base64");
  assert.deepEqual(api.seen.splice(0), [`Bearer ${VALUE}`, `Basic ${basic}`, VALUE, undefined]);
  const bySsh = await ok(["vm", "ssh", "box", "--", "printenv", "TOKEN", "HTTPS_PROXY"]);
  assert.equal(bySsh.stdout, `${placeholder}\nhttp://127.0.0.1:42070\n`);
  // Another host is passed through unseen, and sees the placeholder.
  await curl("box", `-k ${withToken} ${other.url}`);
  assert.deepEqual(other.seen.splice(0), [`Bearer ${placeholder}`]);
});

test("git in the guest clones and pushes over https by a placeholder, in the address or from a credential helper", async () => {
  const root = join(folder, "repositories");
  const made = await host.tool("git", "init", "--quiet", "--bare", "--initial-branch=main", join(root, "work.git"));
  assert.equal(made.status, 0, made.stderr);
  await host.tool("git", "-C", join(root, "work.git"), "config", "http.receivepack", "true");
  await using server = await gitServer(root, VALUE, { address: own, certificate: certificates.serverFor(own) });
  const url = new URL(server.url("work.git"));
  await ok(["vm", "secret", "set", "box", `GIT_TOKEN@${url.host}`], { GIT_TOKEN: VALUE });
  const work = `cd /tmp && git clone --quiet "https://me:$GIT_TOKEN@${url.host}/work.git" && cd work && seq 20000 >numbers && git add numbers && git -c user.name=me -c user.email=me@example.org commit --quiet -m "from the guest" && git push --quiet origin HEAD:main`;
  await inGuest("box", work);
  const log = await host.tool("git", "-C", join(root, "work.git"), "log", "--format=%s %an", "main");
  assert.equal(log.stdout, "from the guest me\n");
  const helper = `git -c credential.helper='!f() { echo username=me; echo "password=$GIT_TOKEN"; }; f' clone --quiet ${url} /tmp/again && wc -l </tmp/again/numbers`;
  assert.equal(await inGuest("box", helper), "20000\n");
  assert.match(await inGuest("box", "git -C /tmp/work remote get-url origin"), /banger_secret_/);
  const wrong = await inGuest(
    "box",
    `git -c credential.helper= clone "https://me:other@${url.host}/work.git" /tmp/no 2>&1 </dev/null || :`,
  );
  assert.match(wrong, /Authentication failed/);
  await ok(["vm", "secret", "delete", "box", "GIT_TOKEN"]);
});

test("refusals are answers with a reason, and lines of the network log", async () => {
  await ok(["vm", "secret", "set", "box", `OTHER@${own}:${other.port}`], { OTHER: OTHER_VALUE });
  assert.match(
    await curl("box", `${withToken} ${other.url}`),
    /403 [\s\S]*X-Banger-Refused: SECRET_REFUSED[\s\S]*"TOKEN"/,
  );
  assert.match(await curl("box", `-A $TOKEN ${api.url}`), /not for header user-agent/);
  assert.match(await curl("box", "http://169.254.169.254/latest/"), /403 [\s\S]*X-Banger-Refused: NET_REFUSED/);
  assert.match(await curl("box", "https://198.51.100.7/"), /403 [\s\S]*X-Banger-Refused: NET_REFUSED/);
  await ok(["vm", "net", "deny", "box", own]);
  assert.match(await curl("box", `${withToken} ${api.url}`), /403 [\s\S]*NET_REFUSED/);
  await ok(["vm", "net", "deny", "--remove", "box", own]);
  const { stdout } = await ok(["vm", "net", "log", "box"]);
  for (const line of [
    `http ${own}:${other.port} from curl by: secret TOKEN is not for ${own}:${other.port}`,
    "tcp 169.254.169.254:80 from curl by: never",
    "tcp 198.51.100.7:443 from curl by: default deny",
    `tcp ${own}:${api.port} from curl by: deny ${own}/32 any *`,
  ])
    assert.ok(
      stdout
        .replace(/(?<= from curl)\(\d+\)/g, "")
        .split("\n")
        .includes(line),
      `${line}\n---\n${stdout}`,
    );
  assert.deepEqual([api.seen.length, other.seen.length], [0, 0]);
});

test("a daemon that is killed, sleep, and a fork change nothing; a copy out of a snapshot is given its values anew", async () => {
  const works = async (vm: string) => {
    assert.match(await curl(vm, `${withToken} ${api.url}`), /^HTTP\/1\.1 200 /m);
    assert.deepEqual(api.seen.splice(0), [`Bearer ${VALUE}`]);
  };
  process.kill(await host.daemonPid(), "SIGKILL");
  await works("box");
  await ok(["vm", "sleep", "box"]);
  await works("box");
  const [fork = ""] = (await ok(["vm", "fork", "box"])).stdout.trim().split("\n");
  await works(fork);
  await ok(["vm", "delete", fork]);
  await ok(["vm", "snapshot", "box", "--as", "saved"]);
  await ok(["vm", "delete", "box"]);
  const restored = await ok(["vm", "restore", "saved", "--name", "again"]);
  assert.match(restored.stderr, /without a value: TOKEN, OTHER/);
  assert.match(await curl("again", `${withToken} ${api.url}`), /403 [\s\S]*TOKEN has no value in this VM/);
  const unnamed = await host.run(["vm", "secret", "set", "again", "TOKEN"], { env: { ...env, TOKEN: VALUE } });
  assert.match(unnamed.stderr, /for no host yet/);
  const listed = await ok(["vm", "secret", "set", "again", `TOKEN@${own}:${api.port}`], { TOKEN: VALUE });
  assert.match(listed.stdout, /TOKEN +\S+ +those for credentials +set\nOTHER .* not set/);
  await works("again");
  const pipe = join(folder, "value");
  await writeFile(pipe, `${OTHER_VALUE}\n`);
  await ok(["vm", "secret", "set", "again", "--file", pipe, "--header", "X-Mine", `OTHER@${own}:${other.port}`]);
  assert.match(await curl("again", `-H "X-Mine: $OTHER" ${other.url}`), /^HTTP\/1\.1 200 /m);
  other.seen.length = 0;
});

test("no value is anywhere on this machine but in the file of its VM", async () => {
  await ok(["vm", "sleep", "again"]);
  const { id } = await host.json<Vm>("vm", "show", "again");
  const state = join(host.env.XDG_STATE_HOME, "banger");
  const file = join(state, "vms", id, "secrets.json");
  const { mode } = await stat(file);
  assert.equal(mode & 0o777, 0o600);
  const placeholder = (await host.json<SecretInfo[]>("vm", "secret", "list", "again"))[0]?.placeholder ?? "";
  const basic = Buffer.from(`git:${VALUE}`).toString("base64");
  const places = [state, host.env.XDG_CACHE_HOME, host.env.XDG_CONFIG_HOME, host.env.HOME];
  const patterns = [VALUE, OTHER_VALUE, basic, placeholder].flatMap((pattern) => ["-e", pattern]);
  const skipped = ["--exclude-dir=images", "--exclude-dir=kernels"];
  const { stdout } = await host.tool("grep", "-raoFH", ...skipped, ...patterns, ...places);
  const found = [...new Set(stdout.split("\n"))];
  const holding = (what: string) =>
    found.filter((line) => line.endsWith(`:${what}`)).map((line) => line.slice(0, -what.length - 1));
  assert.deepEqual([VALUE, OTHER_VALUE, basic].map(holding), [[file], [file], []]);
  // The search finds what is there: the guest's memory, of the snapshot and of the one that sleeps, holds what it knows.
  for (const part of ["snapshots/saved/memory", `vms/${id}/asleep/memory`, "banger.db"])
    assert.ok(
      holding(placeholder).some((path) => path.includes(part)),
      part,
    );
  for (const { pid } of await host.processes()) {
    const environ = await readFile(`/proc/${pid}/environ`, "latin1");
    assert.ok(!environ.includes(VALUE) && !environ.includes(OTHER_VALUE), `process ${pid} has a value`);
  }
  const shown = await ok(["vm", "show", "again", "--json"]);
  assert.ok(shown.stdout.includes(placeholder) && !shown.stdout.includes(VALUE));
});

test("a secret that is deleted is worth nothing any more, and the last one takes the proxy with it", async () => {
  const before = await inGuest("again", "printenv TOKEN HTTPS_PROXY");
  assert.match(before, /^banger_secret_\w+\nhttp:/);
  await ok(["vm", "secret", "delete", "again", "TOKEN"]);
  assert.match(
    await curl("again", `-H "Authorization: ${before.split("\n")[0]}" ${other.url}`),
    /of no secret of this VM/,
  );
  await ok(["vm", "secret", "delete", "again", "OTHER"]);
  assert.equal(
    await inGuest("again", "printenv TOKEN OTHER HTTPS_PROXY; cat /etc/environment | grep -c banger || :"),
    "0\n",
  );
  assert.match(
    await inGuest("again", "curl -sS -x http://127.0.0.1:42070 http://x.example/ 2>&1 || :"),
    /^curl: \(7\)/,
  );
  const gone = await host.run(["vm", "secret", "delete", "again", "TOKEN"], { env });
  assert.match(gone.stderr, /has no secret "TOKEN"/);
  const { id } = await host.json<Vm>("vm", "show", "again");
  await assert.rejects(stat(join(host.env.XDG_STATE_HOME, "banger/vms", id, "secrets.json")), /ENOENT/);
  await ok(["vm", "delete", "again"]);
});

test("a command of a VM's own, in an image without a shell's comforts, has its placeholder from the start", async () => {
  const run = await ok(
    [
      "vm",
      "run",
      "--rm",
      "--image",
      SLIM,
      "--memory",
      "192M",
      "--secret",
      "TOKEN@api.example.com",
      "--",
      "sh",
      "-c",
      'echo "$TOKEN"; grep -c "BEGIN CERT" "$SSL_CERT_FILE"; ls /usr/local/share/ca-certificates',
    ],
    { TOKEN: VALUE },
  );
  assert.match(run.stdout, /^banger_secret_\w{32}\n\d{3}\nbanger\.crt\n$/);
});
