/** The public TypeScript API: every verb, on real VMs, in this very process. */
import assert from "node:assert/strict";
import { buffer, text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { daemon, images, kernels, Sandbox, snapshots, templates } from "../../src/sdk/index.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";

const SLIM = "debian-bookworm-slim";
const KERNEL = "debian-bookworm-cloud";
let host: Host;
let box: Sandbox;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "192M"\ndisk_size = "1G"\n`);
  await installFixture(host, [SLIM]);
  Object.assign(process.env, host.env);
  const stages: string[] = [];
  box = await Sandbox.create({ name: "box", labels: { a: "b" }, onProgress: ({ stage }) => stages.push(stage) });
  assert.ok(stages.includes("boot"), stages.join());
});
after(() => host[Symbol.asyncDispose]());

const out = async (...argv: string[]): Promise<string> => {
  const { exit, stdout, stderr } = await box.exec(argv);
  assert.equal(exit, 0, stderr);
  return stdout;
};

test("files and folders go in and out, and commands have their streams", async () => {
  await box.writeFile("/srv/tree/deep/file", "contents", { parents: true, mode: 0o750 });
  const { type, mode, size } = await box.stat("/srv/tree/deep/file");
  assert.deepEqual([type, mode, size], ["file", 0o750, 8]);
  await out("mkdir", "/srv/other");
  await box.writeArchive("/srv/other", await box.readArchive("/srv/tree"));
  assert.equal(String(await box.readFile("/srv/other/tree/deep/file")), "contents");
  await assert.rejects(box.readFile("/nowhere"), { code: "FILE_NOT_FOUND" });
  await assert.rejects(buffer(await box.readArchive("/nowhere")), { code: "FILE_NOT_FOUND" });
  const { exit, stdout } = await box.exec(["sh", "-c", "cat; exit 3"], { stdin: "typed" });
  assert.deepEqual([exit, stdout], [3, "typed"]);
  const terminal = await box.stream(["stty", "size"], { pty: { cols: 91, rows: 33, term: "dumb" } });
  terminal.stderr.resume();
  assert.equal((await text(terminal.stdout)).trim(), "33 91");
});

test("a secret is a placeholder in the guest, from when it is set until it is deleted", async () => {
  const hosts = ["api.example.com"];
  const [set] = await box.setSecrets({ TOKEN: { value: "a-value-for-the-sdk", hosts, headers: ["X-Key"] } });
  assert.deepEqual([set?.name, set?.hosts, set?.headers, set?.given], ["TOKEN", hosts, ["x-key"], true]);
  assert.equal(await out("printenv", "TOKEN"), `${set?.placeholder}\n`);
  assert.deepEqual(await box.secrets(), [set]);
  await assert.rejects(box.setSecrets({ TOKEN: { value: "short", hosts } }), { code: "USAGE" });
  await assert.rejects(box.set({ network: "none" }), { code: "USAGE" });
  assert.deepEqual(await box.deleteSecrets(["TOKEN"]), []);
  assert.equal((await box.exec(["printenv", "TOKEN"])).exit, 1);
  await assert.rejects(box.deleteSecrets(["TOKEN"]), { code: "SECRET_NOT_FOUND" });
});

test("what listens in the guest is found and reached", async () => {
  const server =
    "use Socket; socket(S,PF_INET,SOCK_STREAM,0); bind(S,sockaddr_in(8123,INADDR_ANY)); listen(S,5); $|=1; print qq(up\\n); accept(C,S); syswrite C, qq(hello\\n)";
  const serving = await box.stream(["perl", "-e", server]);
  for await (const chunk of serving.stdout) if (String(chunk).includes("up")) break;
  assert.ok((await box.ports()).some(({ port }) => port === 8123));
  const { published } = await box.publish(["0:8123"]);
  assert.deepEqual(
    published.map(({ guest, proto }) => [guest, proto]),
    [[8123, "tcp"]],
  );
  assert.deepEqual((await box.unpublish([], { all: true })).published, []);
  await assert.rejects(box.publish(["web"]), { code: "USAGE" });
  const { rules } = await box.net({ deny: ["any:25"], allow: ["192.168.1.5:22"] });
  assert.deepEqual(
    rules.map(({ action, to }) => `${action} ${to}`),
    ["deny 0.0.0.0/0", "allow 192.168.1.5/32"],
  );
  assert.deepEqual((await box.net({ deny: ["any:25"], allow: ["192.168.1.5:22"], remove: true })).rules, []);
  await assert.rejects(box.net({ deny: ["any:25"], remove: true }), { code: "USAGE" });
  const connection = await box.dial({ port: 8123 });
  connection.stderr.resume();
  assert.equal(await text(connection.stdout), "hello\n");
  connection.stdin.end();
  await connection.closed;
});

test("a VM is changed, looked at, stopped and started", async () => {
  const { effects } = await box.set({ diskSize: "2G", memory: "224M", labels: { a: null, c: "d" }, autoStop: 0 });
  assert.deepEqual(effects, { memory: "restart", diskSize: "now", autoStop: "now", labels: "now" });
  const bootId = await out("cat", "/proc/sys/kernel/random/boot_id");
  await out("sh", "-c", "echo written >/root/file; echo a-line >/dev/console");
  assert.equal((await box.restart()).memory, 224 * 2 ** 20);
  assert.notEqual(await out("cat", "/proc/sys/kernel/random/boot_id"), bootId);
  assert.match(await text(await box.logs()), /a-line/);
  const { guest } = await box.stats();
  assert.ok(guest && Math.abs(guest.clockOffset ?? Number.NaN) < 2000, JSON.stringify(guest));
  assert.equal((await box.stop()).state, "stopped");
  await assert.rejects(box.exec(["true"]), { code: "VM_STOPPED" });
  assert.equal((await box.start()).state, "running");
  assert.equal((await box.pause()).state, "paused");
  assert.equal((await box.resume()).state, "running");
  assert.equal((await box.sleep()).state, "asleep");
  assert.equal(await out("cat", "/root/file"), "written\n");
});

test("snapshots, copies, and those that are gone", async () => {
  const { snapshot } = await box.snapshot({ name: "kept" });
  assert.deepEqual(
    (await snapshots.list()).map(({ name }) => name),
    ["kept"],
  );
  assert.equal((await snapshots.show("kept")).vm, snapshot.vm);
  {
    await using again = await Sandbox.restore("kept", { name: "again" });
    assert.equal((await again.exec(["cat", "/root/file"])).stdout, "written\n");
  }
  const [fork] = await box.fork({ prefix: "try" });
  assert.equal(fork?.name, "try-1");
  assert.equal((await fork?.kill())?.state, "stopped");
  await fork?.delete();
  await fork?.[Symbol.asyncDispose]();
  await snapshots.delete("kept");
  await assert.rejects(Sandbox.restore("kept"), { code: "SNAPSHOT_NOT_FOUND" });
  await assert.rejects(Sandbox.connect("again"), { code: "VM_NOT_FOUND" });
  {
    await using same = await Sandbox.connect("bo");
    assert.equal(same.id, box.id);
  }
  assert.deepEqual(
    (await Sandbox.list()).map(({ name }) => name),
    ["box"],
  );
});

test("images, kernels and the daemon", async () => {
  assert.deepEqual((await images.show(SLIM)).usedBy, ["box"]);
  await assert.rejects(images.delete(SLIM), { code: "IMAGE_IN_USE" });
  assert.ok((await images.list()).length === 1 && (await images.available()).length > 1);
  assert.equal((await kernels.show(KERNEL)).name, KERNEL);
  assert.ok((await kernels.list()).length === 1 && (await kernels.available()).length > 0);
  assert.equal(await templates.clear(), 0);
  assert.deepEqual(await templates.list(), []);
  assert.deepEqual(await images.prune({ dryRun: true }), { blobs: 0, blobBytes: 0, images: [] });
  assert.deepEqual(await daemon.operations(), []);
  await assert.rejects(daemon.cancel("nothing"), { code: "OPERATION_NOT_FOUND" });
  await box[Symbol.asyncDispose]();
  assert.equal((await daemon.status()).vms, 0);
  await daemon.stop();
  await assert.rejects(daemon.status(), { code: "DAEMON_UNREACHABLE" });
});
