/** Copies of running machines, of every shape and with much going on in them: each goes on as if nothing had happened. */
import assert from "node:assert/strict";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Done, type Host, testHost } from "../support/host.ts";

const GOLDEN = "debian-bookworm";
const SLIM = "debian-bookworm-slim";
let host: Host;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "128M"\ndisk_size = "1G"\n`);
  await installFixture(host, [SLIM, GOLDEN]);
});
after(() => host[Symbol.asyncDispose]());

const ok = async (...args: string[]): Promise<Done> => {
  const done = await host.run(args, { timeout: 300_000 });
  assert.equal(done.status, 0, `${args.join(" ")}: ${done.stderr}`);
  return done;
};
const exec = async (vm: string, script: string) => (await ok("vm", "exec", vm, "--", "sh", "-ec", script)).stdout;
const fork = async (vm: string, number: number) =>
  (await ok("vm", "fork", vm, "-n", `${number}`)).stdout.trim().split("\n");

test("one CPU or four, 128 MiB or 4 GiB: a copy has what its source had in memory, and all of its CPUs work", async () => {
  for (const [vcpu, memory, least] of [
    [1, "128M", 80],
    [2, "256M", 200],
    [3, "1G", 900],
    [4, "4G", 3800],
  ] as const) {
    const name = `of-${vcpu}`;
    await ok("vm", "run", "-d", "--name", name, "--vcpu", `${vcpu}`, "--memory", memory);
    await exec(name, "head -c 20000000 /dev/urandom >/dev/shm/kept");
    const kept = await exec(name, "sha256sum </dev/shm/kept");
    const [copy = ""] = await fork(name, 1);
    const busy = Array.from({ length: vcpu }, (_, cpu) => `taskset -c ${cpu} sha256sum </dev/shm/kept &`).join("\n");
    const [cpus, total, ...sums] = (
      await exec(copy, `nproc\nsed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo\n${busy}\nwait`)
    ).split("\n");
    assert.equal(Number(cpus), vcpu);
    assert.ok(Number(total) > least * 1024 && Number(total) < 1.1 * least * 1024 + 60_000, `${memory}: ${total} kB`);
    assert.deepEqual(
      sums.map((sum) => `${sum}\n`),
      [...Array.from({ length: vcpu }, () => kept), "\n"],
    );
    await ok("vm", "delete", name, copy);
  }
});

test("twenty copies made at once are twenty machines, and none waits for another's end", async () => {
  await ok("vm", "run", "-d", "--name", "source");
  const names = await fork("source", 20);
  assert.equal(new Set(names).size, 20);
  const told = await Promise.all(
    names.map((name) => exec(name, "cat /etc/machine-id /sys/class/net/eth0/address; hostname")),
  );
  for (const [index, name] of names.entries()) assert.equal(told[index]?.split("\n")[2], name);
  for (const line of [0, 1]) assert.equal(new Set(told.map((text) => text.split("\n")[line])).size, 20);
  const running = await host.json<Vm[]>("vm", "list");
  assert.equal(running.filter(({ restored }) => restored === "snapshot").length, 20);
  await ok("vm", "delete", "source", ...names);
  assert.deepEqual(await host.json("vm", "list"), []);
});

/** The services of a machine at work; how far its container has come. */
const turns = async (vm: string) => Number(await exec(vm, "docker exec turns busybox cat /turns"));
const turnsGoOn = async (vm: string): Promise<number> => {
  const before = await turns(vm);
  await exec(
    vm,
    `timeout 60 sh -c 'until [ $(docker exec turns busybox cat /turns) -gt ${before} ]; do sleep 0.1; done'`,
  );
  return before;
};

test("Docker and a TLS server go on in copies, and in a machine that has slept", async () => {
  await ok("vm", "run", "-d", "--name", "dev", "--image", GOLDEN, "--vcpu", "4", "--memory", "1G", "--disk-size", "4G");
  const busybox = join(host.env.HOME, "busybox");
  await copyFile("/bin/busybox", busybox);
  await ok("vm", "cp", busybox, "dev:/srv/busybox");
  await exec(
    "dev",
    `mkdir -p /srv/root/bin && cp /srv/busybox /srv/root/bin/busybox && ln -s busybox /srv/root/bin/sh
     tar -C /srv/root -c . | docker import - box:1 >/dev/null
     docker run -d --name turns box:1 sh -c 'n=0; while :; do n=$((n+1)); echo $n >/new; busybox mv /new /turns; busybox sleep 0.1; done' >/dev/null
     openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout /srv/key -out /srv/cert 2>/dev/null
     systemd-run --quiet --unit tls openssl s_server -quiet -accept 443 -key /srv/key -cert /srv/cert -www`,
  );
  await exec(
    "dev",
    "timeout 60 sh -c 'until docker exec turns busybox cat /turns >/dev/null 2>&1; do sleep 0.1; done'",
  );
  const copies = await fork("dev", 2);
  const at = await turnsGoOn("dev");
  assert.ok(at > 0);
  await Promise.all(
    copies.map(async (copy) => {
      assert.ok((await turnsGoOn(copy)) > 0);
      assert.equal(await exec(copy, "docker ps --format '{{.Names}} {{.State}}'"), "turns running\n");
      assert.equal(await exec(copy, "docker run --rm box:1 busybox echo new"), "new\n");
      assert.match(await exec(copy, "curl -sS --cacert /srv/cert https://localhost/"), /TLSv1\.3/);
    }),
  );
  // What one copy's Docker does is nothing of the others'.
  await exec(copies[0] ?? "", "docker rm -f turns >/dev/null");
  await turnsGoOn(copies[1] ?? "");
  await ok("vm", "delete", ...copies);
  await ok("vm", "sleep", "dev");
  assert.ok((await turnsGoOn("dev")) >= at);
  assert.match(await exec("dev", "curl -sS --cacert /srv/cert https://localhost/"), /TLSv1\.3/);
  assert.equal(await exec("dev", "systemctl --failed --plain --no-legend"), "");
  await ok("vm", "delete", "dev");
});
