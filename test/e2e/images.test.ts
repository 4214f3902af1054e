/** Containers' images as VMs: pulled from a real registry by the first `vm run`, imported, with and without init, shell and anything else. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import type { ImageInfo } from "../../src/contract/images.ts";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { writeLayout } from "../support/oci-layout.ts";
import { dockerConfig, PASSWORD, type Registry, startRegistry, USER } from "../support/registry.ts";
import { type Made, tar } from "../support/tar-builder.ts";

const run = promisify(execFile);
let host: Host;
let registry: Registry;
let app: string;
let layout: string;

/** Folder of the credentials, below HOME. */
const LOGIN = "login";
const APPLETS = ["sh", "cat", "echo", "id", "pwd", "env", "ls", "stat", "ps", "test"];
const dir = (name: string): Made => ({ name, type: "5" });
const link = (name: string, to: string): Made => ({ name, type: "2", link: to });

before(async () => {
  host = await testHost('[vm_defaults]\nvcpu = 1\nmemory = "256M"\n');
  await installFixture(host, []);
  registry = await startRegistry();
  // Not where the daemon, which is started by others, would look by itself.
  await dockerConfig(join(host.env.HOME, LOGIN), registry.host);
  app = `${registry.host}/team/app:1`;
  layout = join(host.env.HOME, "layout");
  await mkdir(layout);
  const busybox = await readFile("/bin/busybox");
  await writeLayout(layout, [
    {
      // Like alpine's: busybox is its init too, and nobody means to start that.
      tag: "app",
      layers: [
        tar([
          dir("bin"),
          { name: "bin/busybox", data: busybox, mode: 0o755 },
          ...APPLETS.map((name) => link(`bin/${name}`, "busybox")),
        ]),
        tar([
          dir("sbin"),
          link("sbin/init", "/bin/busybox"),
          dir("etc"),
          { name: "etc/passwd", data: "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n" },
          { name: "gone", data: "x" },
        ]),
        tar([
          { name: ".wh.gone", data: "" },
          { name: "owned", data: "o", mode: 0o4751, uid: 70_000, gid: 4_000_000_000, mtime: 1_234_567_890 },
        ]),
      ],
      packing: ["zstd", "gzip", "none"],
      config: {
        Entrypoint: ["/bin/sh", "-c"],
        Cmd: ["echo $GREETING; id -un; pwd; cat"],
        Env: ["PATH=/bin", "GREETING=hello world"],
        User: "app",
        WorkingDir: "/srv/work",
      },
    },
    {
      tag: "scratch",
      layers: [tar([{ name: "busybox", data: busybox, mode: 0o755 }])],
      config: { Entrypoint: ["/busybox", "echo"], Cmd: ["from", "scratch"] },
    },
  ]);
  await registry.push(layout, "app", "team/app:1");
});
after(async () => {
  await registry[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

test("the first run pulls the image and runs its entrypoint as its user, in its folder, with its environment", async () => {
  assert.equal((await host.banger("daemon", "start")).status, 0);
  const args = ["vm", "run", "--rm", "--image", app];
  const stranger = await host.run(args);
  assert.match(stranger.stderr, /lets nobody without credentials have team\/app[\s\S]*docker login/);
  const done = await host.run(args, { input: "from stdin", env: { DOCKER_CONFIG: LOGIN } });
  assert.equal(done.status, 0, done.stderr);
  assert.equal(done.stdout, "hello world\napp\n/srv/work\nfrom stdin");
  assert.doesNotMatch(done.stderr, /\r|\u001b/);
});

test("commands in it: the image's defaults, and what is said in place of them; its init is not started", async () => {
  const started = await host.banger("vm", "run", "-d", "--name", "box", "--image", app);
  assert.equal(started.status, 0, started.stderr);
  const sh = async (line: string, ...flags: string[]) => {
    const done = await host.banger("vm", "exec", "box", ...flags, "--", "sh", "-c", line);
    assert.equal(done.status, 0, done.stderr);
    return done.stdout;
  };
  assert.equal(
    await sh("id -u; pwd; echo $GREETING $MORE", "--env", "MORE=more"),
    "1000\n/srv/work\nhello world more\n",
  );
  assert.equal(await sh("id -u; pwd", "--user", "root", "--cwd", "/"), "0\n/\n");
  assert.equal(
    await sh("stat -c '%a %u %g %Y' /owned; test ! -e /gone && echo gone"),
    "4751 70000 4000000000 1234567890\ngone\n",
  );
  assert.match(await sh("ps -o pid,args"), /^ +1 \/init/m);
  const shell = await host.run(["vm", "shell", "box"], { input: "id -un; pwd\n" });
  assert.deepEqual([shell.status, shell.stdout], [0, "app\n/srv/work\n"]);
  const { image } = await host.json<Vm>("vm", "show", "box");
  assert.equal(image, app);
});

test("an image in use is not deleted, its VMs are named; show tells of layers, source and users", async () => {
  const done = await host.banger("image", "delete", app);
  assert.equal(done.status, 1);
  assert.match(done.stderr, /is used by box\nhint: delete them first: banger vm delete box/);
  const info = await host.json<ImageInfo>("image", "show", app);
  assert.deepEqual([info.usedBy, info.layers.length, info.source.type], [["box"], 3, "oci"]);
  assert.match((await host.banger("image", "show", app)).stdout, /^layer: +sha256:[0-9a-f]{64} {2}/m);
  // Its tag comes to mean another image: whoever uses it goes on with the one that is here, whoever pulls it is told.
  await registry.push(layout, "scratch", "team/app:1");
  const env = { DOCKER_CONFIG: join(host.env.HOME, LOGIN) };
  const moved = await host.run(["image", "pull", app], { env });
  assert.match(
    moved.stderr,
    /is another image by now, and box uses the one that is here\nhint: get the new one beside it/,
  );
  const kernel = await host.run(["kernel", "pull", app, "--name", "mine"], { env });
  assert.match(kernel.stderr, /team\/app:1 cannot be used: it holds no file vmlinux/);
  const unnamed = await host.run(["kernel", "pull", app]);
  assert.deepEqual([moved.status, kernel.status, unnamed.status], [1, 1, 2]);
  assert.match(unnamed.stderr, /hint: banger kernel pull .*team\/app:1 --name NAME/);
  const log = await readFile(join(host.env.XDG_STATE_HOME, "banger", "daemon.log"), "utf8");
  for (const secret of [PASSWORD, Buffer.from(`${USER}:${PASSWORD}`).toString("base64")])
    assert.ok(!log.includes(secret), "credentials are in no log");
  const pruned = await host.banger("image", "prune", "--images");
  assert.match(pruned.stdout, /^6 downloaded layers {2}\d/);
  assert.doesNotMatch(pruned.stdout, /image /);
  assert.match(pruned.stderr, /banger image prune --images -f/);
});

test("an image of one static program boots and runs it; that it has no shell is said", async () => {
  const archive = join(host.env.HOME, "scratch.tar");
  await run("skopeo", [
    "copy",
    "-q",
    "--insecure-policy",
    `oci:${layout}:scratch`,
    `docker-archive:${archive}:scratch:1`,
  ]);
  const imported = await host.run(["image", "import", "-"], { input: await readFile(archive) });
  assert.deepEqual([imported.status, imported.stdout], [0, "scratch:1\n"], imported.stderr);
  const first = await host.banger("vm", "run", "--rm", "--image", "docker.io/library/scratch:1");
  assert.deepEqual([first.status, first.stdout], [0, "from scratch\n"], first.stderr);
  assert.equal((await host.banger("vm", "run", "-d", "--name", "bare", "--image", "scratch:1")).status, 0);
  assert.match((await host.banger("vm", "exec", "bare", "/busybox", "cat", "/etc/hosts")).stdout, /bare/);
  const shell = await host.run(["vm", "shell", "bare"], { input: "" });
  assert.equal(shell.status, 127);
  assert.match(shell.stderr, /the image has no shell\nhint: run a program of its own/);
  assert.equal((await host.banger("vm", "delete", "bare", "box")).status, 0);
});

test("an unknown image is refused before anything is made, with what to do", async () => {
  const near = await host.banger("vm", "run", "--rm", "--image", "debian-bokworm", "--", "true");
  assert.match(near.stderr, /there is no image "debian-bokworm"\nhint: did you mean debian-bookworm\?/);
  const env = { DOCKER_CONFIG: LOGIN };
  const tag = await host.run(["vm", "run", "--rm", "--image", `${registry.host}/team/app:none`, "--", "true"], { env });
  assert.match(tag.stderr, /has no tag none of team\/app/);
  const none = await host.banger("image", "import", join(host.env.HOME, "none.tar"));
  assert.match(none.stderr, /none\.tar is not there/);
  assert.deepEqual([near.status, tag.status, none.status], [1, 1, 1]);
  assert.deepEqual(await host.json("vm", "list"), []);
});

test("deleted, the images are gone from the disk, and so are their layers after a prune", async () => {
  const done = await host.banger("image", "delete", app, "scratch:1");
  assert.deepEqual([done.status, done.stdout], [0, `${app}\nscratch:1\n`], done.stderr);
  assert.deepEqual(await readdir(join(host.env.XDG_STATE_HOME, "banger", "images")), []);
  assert.equal((await host.banger("image", "prune", "-f")).status, 0);
  assert.deepEqual(await readdir(join(host.env.XDG_CACHE_HOME, "banger/oci/blobs/sha256")), []);
});
