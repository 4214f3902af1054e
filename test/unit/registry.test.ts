/** Pulling from a real registry: with users, with faults on the way, and with whatever may come between. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { after, afterEach, before, test } from "node:test";
import { promisify } from "node:util";
import { BangerError } from "../../src/contract/errors.ts";
import { type Progress, silentProgress } from "../../src/contract/progress.ts";
import { cleanStaging } from "../../src/daemon/artifacts/staging.ts";
import { type ImageService, imageService, type ImageServiceOptions } from "../../src/daemon/images/service.ts";
import { blobsFolder, imageFiles, imagesFolder, partialBlobsFolder, stagingFolder } from "../../src/host/paths.ts";
import { dockerCredentials } from "../../src/oci/registry/docker-config.ts";
import { assertClean, listTree } from "../support/ext4-judge.ts";
import { type Blob, writeLayout } from "../support/oci-layout.ts";
import {
  dockerConfig,
  type FaultyProxy,
  makeCertificate,
  type Registry,
  startFaultyProxy,
  startRegistry,
} from "../support/registry.ts";
import { tar } from "../support/tar-builder.ts";
import { folderHolds, outputHolds } from "../support/wait.ts";

const MiB = 2 ** 20;
/** Set-up has made sure that sudo works where the tests run as somebody else. */
const asRoot = async (...argv: string[]): Promise<void> => {
  const [program = "", ...args] = process.getuid?.() === 0 ? argv : ["sudo", "-n", ...argv];
  await promisify(execFile)(program, args);
};
let folder: string;
let layout: string;
let registry: Registry;
let proxy: FaultyProxy;
let config: string;
let layers: Blob[];

const dir = (name: string) => ({ name, type: "5" });
const oneFile = (name: string, size: number) => tar([{ name, data: randomBytes(size) }]);

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-pull-"));
  process.env.XDG_STATE_HOME = join(folder, "state");
  process.env.XDG_CACHE_HOME = join(folder, "cache");
  registry = await startRegistry();
  proxy = await startFaultyProxy(registry.host);
  layout = join(folder, "layout");
  await mkdir(layout);
  const written = await writeLayout(layout, [
    {
      tag: "app",
      layers: [
        tar([dir("bin"), { name: "bin/tool", data: "1", mode: 0o755 }, { name: "old", data: "x" }]),
        oneFile("big", 3 * MiB),
        tar([
          { name: ".wh.old", data: "" },
          { name: "new", data: "y" },
        ]),
      ],
      packing: ["zstd", "gzip", "none"],
      config: { Entrypoint: ["/bin/tool"], Env: ["A=b=c"], User: "7:8", WorkingDir: "/work" },
    },
    { tag: "other", layers: [tar([dir("other")])] },
    { tag: "arm", layers: [tar([dir("arm")])], platform: { os: "linux", architecture: "arm64" } },
    { layers: [tar([dir("for-arm")])], platform: { os: "linux", architecture: "arm64", variant: "v8" } },
    { layers: [tar([dir("for-v3")])], platform: { os: "linux", architecture: "amd64", variant: "v3" } },
    { layers: [tar([dir("for-amd64")])], platform: { os: "linux", architecture: "amd64" } },
  ]);
  layers = written[0]?.layers ?? [];
  await registry.push(layout, "app", "team/app:1");
  await registry.push(layout, "arm", "team/arm:1");
  await registry.push(layout, "all", "team/multi:1", "--all");
  config = await dockerConfig(join(folder, "docker"), proxy.host);
});
after(async () => {
  await proxy[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});
afterEach(async () => {
  proxy.fault = undefined;
  proxy.requests.length = 0;
  // Whatever a test did: nothing half-made is left of it.
  assert.deepEqual(await readdir(stagingFolder()).catch(() => []), []);
  for (const path of [imagesFolder(), blobsFolder(), partialBlobsFolder()])
    await rm(path, { recursive: true, force: true });
});

const service = (registryOptions: ImageServiceOptions["registry"] = {}): ImageService =>
  imageService({
    registry: {
      credentials: dockerCredentials(join(config, "config.json")),
      pause: 1,
      attempts: 3,
      ...registryOptions,
    },
  });
const app = () => `${proxy.host}/team/app:1`;
/** Names of VMs that use the image. */
const nobody = () => [];
const pull = (name = app(), images = service(), progress = silentProgress()) => images.pull({ name }, nobody, progress);
const isBlob = (url: string | undefined, blob: Blob | undefined) => url?.endsWith(`/blobs/${blob?.digest}`) === true;
const big = () => layers[1];
const installed = () => readdir(imagesFolder()).catch(() => []);

test("an image is pulled whole: every packing, its config, its digests, and the same bytes each time", async () => {
  const images = service();
  const info = await pull(app(), images);
  assert.equal(info.name, app());
  assert.deepEqual(info.boot, {
    env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", A: "b=c" },
    user: "7:8",
    workdir: "/work",
    entrypoint: ["/bin/tool"],
    command: [],
  });
  assert.deepEqual(
    info.layers,
    layers.map(({ digest, size }) => ({ digest, size })),
  );
  assert.equal(info.source.type, "oci");
  const { rootfs } = imageFiles(app());
  await assertClean(rootfs);
  const paths = (await listTree(rootfs, folder)).map(({ path }) => path).sort();
  assert.deepEqual(paths, ["big", "bin", "bin/tool", "lost+found", "new", "work"]);
  await images.verifyDigest(app(), silentProgress());
  const before = proxy.requests.length;
  await images.ensure(app(), silentProgress());
  assert.equal(proxy.requests.length, before, "to use what is there nobody is asked");
  await pull(app(), images);
  assert.deepEqual(
    [...new Set(proxy.requests.slice(before).map((line) => /\/(manifests|blobs)\//.exec(line)?.[1]))],
    ["manifests"],
    "to pull it is to ask what its tag means by now",
  );
  await images.delete(app(), () => []);
  assert.equal((await pull(app(), images)).digest, info.digest);
  await images.delete(app(), () => []);
  const imported = await images.importImage(
    { path: layout, ref: "app", name: "imported" },
    new PassThrough().end(),
    silentProgress(),
  );
  assert.equal(imported.digest, info.digest);
});

test("an image larger than the disk is refused before it is fetched, and a disk that fills up is named", async () => {
  const small = join(folder, "small");
  await mkdir(small);
  const { XDG_STATE_HOME, XDG_CACHE_HOME } = process.env;
  const owner = `uid=${process.getuid?.()},gid=${process.getgid?.()},mode=0700`;
  await asRoot("mount", "-t", "tmpfs", "-o", `size=5M,${owner}`, "none", small);
  try {
    process.env.XDG_CACHE_HOME = small;
    await assert.rejects(pull(), {
      code: "DISK_FULL",
      message: /a layer of 3\d{6} bytes does not fit/,
      hint: /image prune/,
    });
    assert.ok(!proxy.requests.some((line) => line.includes(big()?.digest ?? "?")));
    await rm(join(small, "banger"), { recursive: true });
    process.env.XDG_CACHE_HOME = XDG_CACHE_HOME;
    process.env.XDG_STATE_HOME = small;
    // Room for its manifest, and not for what is in it.
    await writeFile(join(small, "other"), randomBytes(4 * MiB));
    await assert.rejects(pull(), { code: "DISK_FULL" });
    assert.deepEqual([await installed(), await readdir(stagingFolder())], [[], []]);
  } finally {
    Object.assign(process.env, { XDG_STATE_HOME, XDG_CACHE_HOME });
    await asRoot("umount", "--lazy", small);
  }
});

test("a tag that has moved is fetched anew when it is pulled, not when it is used, and not from under a VM", async () => {
  const name = `${proxy.host}/team/moving:1`;
  const digest = `${proxy.host}/team/moving@`;
  await registry.push(layout, "app", "team/moving:1");
  const images = service();
  const first = await pull(name, images);
  await registry.push(layout, "other", "team/moving:1");
  await images.ensure(name, silentProgress());
  assert.equal((await images.show(name)).digest, first.digest);
  const used = images.pull({ name }, () => ["box", "sandbox"], silentProgress());
  await assert.rejects(used, (error: BangerError) => {
    assert.equal(error.code, "IMAGE_IN_USE");
    assert.match(error.message, /moving:1 is another image by now, and box, sandbox use the one that is here/);
    assert.ok(
      error.hint?.includes(`banger image pull ${digest}sha256:`) && error.hint.includes("vm delete box sandbox"),
    );
    return true;
  });
  assert.equal((await images.show(name)).digest, first.digest);
  // A registry that cannot be asked leaves the image as it is.
  proxy.fault = (_incoming, outgoing) => {
    outgoing.writeHead(503).end();
    return true;
  };
  await assert.rejects(pull(name, images), { code: "REGISTRY_ERROR" });
  proxy.fault = undefined;
  assert.equal((await images.show(name)).digest, first.digest);
  const pulls = await Promise.all([pull(name, images), pull(name, images), images.ensure(name, silentProgress())]);
  const second = await images.show(name);
  assert.notEqual(second.digest, first.digest);
  assert.deepEqual([pulls[0].digest, pulls[1].digest], [second.digest, second.digest]);
  await images.verifyDigest(name, silentProgress());
  // By its digest an image is what it is.
  const { source } = second;
  const pinned = `${digest}${source.type === "oci" ? source.digest : ""}`;
  await pull(pinned, images);
  const before = proxy.requests.length;
  await pull(pinned, images);
  assert.equal(proxy.requests.length, before);
});

test("the credentials are those of whoever asks", async () => {
  const strange = { credentials: dockerCredentials(join(folder, "nothing.json")) };
  await assert.rejects(pull(app(), service(strange)), { code: "REGISTRY_AUTH" });
  const dockerConfig = join(config, "config.json");
  await service(strange).pull({ name: app(), dockerConfig }, nobody, silentProgress());
  await service(strange).delete(app(), nobody);
  await service(strange).ensure(app(), silentProgress(), dockerConfig);
});

test("without credentials, with wrong ones and with a broken helper the error says what to do", async () => {
  const without = { credentials: dockerCredentials(join(folder, "nothing.json")) };
  await assert.rejects(pull(app(), service(without)), {
    code: "REGISTRY_AUTH",
    message: /without credentials/,
    hint: new RegExp(`docker login ${proxy.host}`),
  });
  const wrong = await dockerConfig(join(folder, "wrong"), proxy.host, "guess");
  await assert.rejects(pull(app(), service({ credentials: dockerCredentials(join(wrong, "config.json")) })), {
    code: "REGISTRY_AUTH",
    message: /refuses your credentials/,
  });
  const broken = join(folder, "broken.json");
  await writeFile(broken, JSON.stringify({ credsStore: "is-not-there" }));
  await assert.rejects(pull(app(), service({ credentials: dockerCredentials(broken) })), {
    code: "REGISTRY_AUTH",
    message: /docker-credential-is-not-there is not installed/,
  });
  await writeFile(broken, "{");
  await assert.rejects(pull(app(), service({ credentials: dockerCredentials(broken) })), {
    code: "REGISTRY_AUTH",
    message: /cannot be understood/,
  });
  assert.deepEqual(await installed(), []);
});

test("credentials come from a helper program, for one registry or for all", async () => {
  const programs = join(folder, "programs");
  await mkdir(programs);
  await writeFile(
    join(programs, "docker-credential-banger-test"),
    `#!/bin/sh\nread -r server\n[ "$1" = get ] && [ "$server" = "${proxy.host}" ] || { echo "credentials not found in native keychain"; exit 1; }\necho '{"ServerURL":"x","Username":"me","Secret":"secret"}'\n`,
  );
  await chmod(join(programs, "docker-credential-banger-test"), 0o755);
  const { PATH = "" } = process.env;
  process.env.PATH = `${programs}:${PATH}`;
  try {
    for (const content of [{ credHelpers: { [proxy.host]: "banger-test" } }, { credsStore: "banger-test" }]) {
      const path = join(folder, "helper.json");
      await writeFile(path, JSON.stringify(content));
      const images = service({ credentials: dockerCredentials(path) });
      await pull(app(), images);
      await images.delete(app(), () => []);
    }
  } finally {
    process.env.PATH = PATH;
  }
});

test("a tag or a repository that is not there, and a name that is none", async () => {
  await assert.rejects(pull(`${proxy.host}/team/app:2`), {
    code: "IMAGE_NOT_FOUND",
    message: /has no tag 2 of team\/app/,
  });
  await assert.rejects(pull(`${proxy.host}/team/nothing:1`), { code: "IMAGE_NOT_FOUND" });
  await assert.rejects(pull(`${proxy.host}/team/app@sha256:${"0".repeat(64)}`), { code: "IMAGE_NOT_FOUND" });
  await assert.rejects(pull("Not A Name"), { code: "IMAGE_NOT_FOUND" });
  await assert.rejects(pull("127.0.0.1:1/x:1"), { code: "REGISTRY_UNREACHABLE", message: /refuses the connection/ });
  await assert.rejects(pull("registry.invalid/x:1"), {
    code: "REGISTRY_UNREACHABLE",
    message: /no host of that name|cannot be resolved/,
  });
});

test("of several platforms the host's is taken; an image for others only names them", async () => {
  await pull(`${proxy.host}/team/multi:1`);
  const paths = (await listTree(imageFiles(`${proxy.host}/team/multi:1`).rootfs, folder)).map(({ path }) => path);
  assert.ok(paths.includes("for-amd64"), String(paths));
  await assert.rejects(pull(`${proxy.host}/team/arm:1`), { code: "IMAGE_PLATFORM", hint: /linux\/arm64/ });
});

test("a certificate that nobody signed is refused, and taken for a registry that is named as insecure", async () => {
  await using secure = await startRegistry({ tls: true });
  await secure.push(layout, "app", "team/app:1");
  const port = secure.host.split(":")[1];
  const own = await dockerConfig(join(folder, "tls"), secure.host);
  const credentials = dockerCredentials(join(own, "config.json"));
  // Loopback addresses are exempt, as Docker has it; another name of this host is not.
  await assert.rejects(pull(`ip6-localhost.invalid:${port}/team/app:1`), { code: "REGISTRY_UNREACHABLE" });
  const name = `0.0.0.0:${port}/team/app:1`;
  const forName = await dockerConfig(join(folder, "tls-name"), `0.0.0.0:${port}`);
  const named = dockerCredentials(join(forName, "config.json"));
  await assert.rejects(pull(name, service({ credentials: named })), {
    code: "REGISTRY_UNREACHABLE",
    message: /no secure connection/,
    hint: /insecure_registries/,
  });
  await pull(name, service({ credentials: named, insecure: [`0.0.0.0:${port}`] }));
  await pull(`${secure.host}/team/app:1`, service({ credentials }));
});

test("a secure registry is not left for plain HTTP", async () => {
  const own = join(folder, "authority");
  await mkdir(own);
  // An address of this machine that is not taken for the loopback.
  await makeCertificate(own, "0.0.0.0");
  const [key, cert] = await Promise.all(["key.pem", "cert.pem"].map((name) => readFile(join(own, name))));
  const server = createSecureServer({ key, cert }, (_incoming, outgoing) =>
    outgoing.writeHead(307, { location: `http://${proxy.host}/` }).end(),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const name = `0.0.0.0:${(server.address() as AddressInfo).port}/x:1`;
  try {
    const worker = [join(import.meta.dirname, "../support/build-worker.ts"), "image", name];
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: join(own, "cert.pem") };
    const ended = promisify(execFile)(process.execPath, worker, { env });
    await assert.rejects(ended, { stdout: /"REGISTRY_ERROR".*redirects from HTTPS to plain HTTP/ });
    assert.equal(proxy.requests.length, 0);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

test("redirects: not in circles, not to nowhere, and without the credentials to another host", async () => {
  proxy.fault = ({ url = "" }, outgoing) => {
    if (!url.includes("/manifests/")) return false;
    outgoing.writeHead(307, { location: url }).end();
    return true;
  };
  await assert.rejects(pull(), { code: "REGISTRY_ERROR", message: /redirects over 8 times/ });
  proxy.fault = (_incoming, outgoing) => {
    outgoing.writeHead(302, { location: "file:///etc/passwd" }).end();
    return true;
  };
  await assert.rejects(pull(), { code: "REGISTRY_ERROR", message: /redirects to "file:/ });
  const seen: (string | undefined)[] = [];
  const other = createServer((incoming, outgoing) => {
    seen.push(incoming.headers.authorization);
    void readFile(registry.blobFile(big()?.digest ?? "")).then((bytes) => outgoing.end(bytes));
  });
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const { port } = other.address() as AddressInfo;
  proxy.fault = ({ url }, outgoing) => {
    if (!isBlob(url, big())) return false;
    outgoing.writeHead(307, { location: `http://localhost:${port}/blob` }).end();
    return true;
  };
  await pull();
  assert.deepEqual(seen, [undefined]);
  await new Promise((resolve) => other.close(resolve));
});

test("a download that breaks off goes on where it was; nothing is fetched twice", async () => {
  let cuts = 0;
  let passed = 0;
  proxy.fault = ({ url }, _outgoing, pass) => {
    if (!isBlob(url, big())) return false;
    pass({ onChunk: (bytes) => (passed += bytes), ...(cuts++ < 5 ? { cutAfter: 300_000 + cuts } : {}) });
    return true;
  };
  await pull();
  const ranges = proxy.requests.filter((line) => line.includes(big()?.digest ?? "?"));
  assert.equal(ranges.length, 6);
  assert.ok(
    ranges.slice(1).every((line) => /bytes=[1-9]\d*-$/.test(line)),
    ranges.join("\n"),
  );
  // What was on its way when the connection broke is lost; what had arrived is not asked for again.
  assert.ok(passed < (big()?.size ?? 0) + MiB, `${passed} bytes`);
});

test("a registry that does not do ranges is read from the start, one that falls silent is asked again", async () => {
  let asked = 0;
  proxy.fault = ({ url }, _outgoing, pass) => {
    if (!isBlob(url, big())) return false;
    pass(asked++ === 0 ? { cutAfter: 500_000 } : { ignoreRange: true });
    return true;
  };
  await pull();
  await service().delete(app(), () => []);
  await rm(blobsFolder(), { recursive: true });
  asked = 0;
  proxy.fault = ({ url }, _outgoing, pass) => {
    if (!isBlob(url, big())) return false;
    pass(asked++ === 0 ? { stallAfter: 200_000 } : {});
    return true;
  };
  await pull(app(), service({ idleLimit: 400 }));
  assert.equal(asked, 2);
});

test("one that always breaks off, or fails, is given up with what is kept", async () => {
  proxy.fault = ({ url }, outgoing) => {
    if (!isBlob(url, big())) return false;
    outgoing.destroy();
    return true;
  };
  await assert.rejects(pull(), { code: "REGISTRY_UNREACHABLE", message: /could not be downloaded/, hint: /are kept/ });
  proxy.fault = ({ url }, outgoing) => {
    if (!isBlob(url, big())) return false;
    outgoing.writeHead(503).end("busy");
    return true;
  };
  await assert.rejects(pull(), { code: "REGISTRY_ERROR", message: /answered 503/ });
  assert.deepEqual(await installed(), []);
});

test("bytes with a wrong digest, and more bytes than announced, are refused and not kept", async () => {
  for (const [change, message] of [
    [{ corrupt: true }, /sent sha256:[0-9a-f]+ for the layer/],
    [{ append: 10 }, /more than the \d+ bytes announced/],
  ] as const) {
    proxy.fault = ({ url }, _outgoing, pass) => {
      if (!isBlob(url, big())) return false;
      pass(change);
      return true;
    };
    await assert.rejects(pull(), { code: "REGISTRY_ERROR", message });
    assert.deepEqual(await installed(), []);
    assert.ok(!(await readdir(join(blobsFolder(), "sha256"))).includes(big()?.digest.slice(7) ?? ""));
  }
  proxy.fault = ({ url = "" }, outgoing) => {
    if (!url.includes("/manifests/")) return false;
    outgoing.writeHead(200, { "docker-content-digest": `sha256:${"1".repeat(64)}` }).end("{}");
    return true;
  };
  await assert.rejects(pull(), { code: "REGISTRY_ERROR", message: /sent a manifest with the digest/ });
});

test("a manifest of 100 MB is refused after its first few", async () => {
  let sent = 0;
  for (const announced of [true, false]) {
    proxy.fault = ({ url = "" }, outgoing) => {
      if (!url.includes("/manifests/")) return false;
      outgoing.writeHead(200, announced ? { "content-length": 100 * MiB } : {});
      const more = () => {
        while (sent < 100 * MiB && !outgoing.destroyed) {
          sent += 65536;
          if (!outgoing.write(Buffer.alloc(65536, "{"))) return void outgoing.once("drain", more);
        }
        outgoing.end();
      };
      more();
      return true;
    };
    await assert.rejects(pull(), { code: "REGISTRY_ERROR", message: /over 4194304 bytes/ });
  }
  assert.ok(sent < 40 * MiB, `${sent} bytes were sent`);
});

test("what is no manifest of an image is refused", async () => {
  const bodies: [string, RegExp][] = [
    ["no json", /no JSON/],
    ["[]", /manifest of a container image/],
    ['{"schemaVersion":1,"fsLayers":[]}', /first format/],
    [
      '{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:00","size":1},"layers":[]}',
      /config.digest/,
    ],
    [`{"config":{"digest":"sha256:${"0".repeat(64)}","size":99999999},"layers":[]}`, /config of .* has 99999999 bytes/],
    [`{"config":{"digest":"sha256:${"0".repeat(64)}","size":-1},"layers":[]}`, /config.size/],
    [`{"manifests":[{"digest":"../../x","size":1}]}`, /manifests.0.digest/],
  ];
  for (const [body, message] of bodies) {
    proxy.fault = ({ url = "" }, outgoing) => {
      if (!url.includes("/manifests/")) return false;
      outgoing.end(body);
      return true;
    };
    await assert.rejects(pull(), { code: "IMAGE_REFUSED", message }, body);
  }
});

test("cancelled at any byte nothing is left but what a next pull goes on with", async () => {
  for (const limit of [1, 100_000, 1_500_000, 3_000_000]) {
    const controller = new AbortController();
    const report: Progress["report"] = ({ stage, done = 0 }) => {
      if (stage === "download" && done >= limit) controller.abort(new BangerError("CANCELLED", "cancelled"));
    };
    await assert.rejects(pull(app(), service(), { signal: controller.signal, report }), { code: "CANCELLED" });
    assert.deepEqual(await installed(), []);
    assert.deepEqual(await readdir(stagingFolder()), []);
  }
  await pull();
  assert.match(proxy.requests.findLast((line) => line.includes(big()?.digest ?? "?")) ?? "", /bytes=[1-9]/);
});

test("cancelled while it is unpacked nothing is left", async () => {
  for (const stage of ["unpack", "digest"]) {
    const controller = new AbortController();
    const progress: Progress = {
      signal: controller.signal,
      report: (event) => event.stage === stage && controller.abort(new BangerError("CANCELLED", "cancelled")),
    };
    await assert.rejects(pull(app(), service(), progress), { code: "CANCELLED" });
    assert.deepEqual(await installed(), []);
    assert.deepEqual(await readdir(stagingFolder()), []);
  }
});

test("a process that is killed in the middle of a download leaves what the next one goes on with", async () => {
  await mkdir(partialBlobsFolder(), { recursive: true });
  proxy.fault = ({ url }, _outgoing, pass) => {
    if (!isBlob(url, big())) return false;
    pass({ stallAfter: 1_000_000 });
    return true;
  };
  const worker = spawn(process.execPath, [join(import.meta.dirname, "../support/build-worker.ts"), "image", app()], {
    env: { ...process.env, DOCKER_CONFIG: config },
    stdio: "ignore",
  });
  const ended = new Promise((resolve) => worker.once("exit", resolve));
  const hex = big()?.digest.slice(7) ?? "";
  await folderHolds(partialBlobsFolder(), async () => {
    const name = (await readdir(partialBlobsFolder())).find((one) => one.startsWith(hex));
    const found = name === undefined ? undefined : await stat(join(partialBlobsFolder(), name));
    return (found?.size ?? 0) > 0;
  });
  worker.kill("SIGKILL");
  await ended;
  proxy.fault = undefined;
  proxy.requests.length = 0;
  assert.equal((await cleanStaging()).length, 1);
  await pull();
  assert.match(proxy.requests.find((line) => line.includes(big()?.digest ?? "?")) ?? "", /bytes=[1-9]/);
});

for (const stage of ["download", "unpack", "digest"]) {
  test(`a process that is killed as it says "${stage}" leaves a whole image or none`, async () => {
    const worker = spawn(process.execPath, [join(import.meta.dirname, "../support/build-worker.ts"), "image", app()], {
      env: { ...process.env, DOCKER_CONFIG: config },
      stdio: ["ignore", "pipe", "ignore"],
    });
    const ended = new Promise((resolve) => worker.once("exit", resolve));
    await outputHolds(worker, `"stage":"${stage}"`);
    worker.kill("SIGKILL");
    await ended;
    await cleanStaging();
    const images = service();
    if ((await installed()).length > 0) await images.verifyDigest(app(), silentProgress());
    await pull(app(), images);
    await images.verifyDigest(app(), silentProgress());
  });
}

test("parallel pulls of one name, and of images that share layers, fetch each blob once", async () => {
  await registry.push(layout, "app", "team/copy:1");
  const images = service();
  const names = [app(), app(), `${proxy.host}/team/copy:1`, app(), `${proxy.host}/team/copy:1`];
  const infos = await Promise.all(names.map((name) => pull(name, images)));
  assert.equal(new Set(infos.map(({ digest }) => digest)).size, 1);
  // The first request of a name may be answered by a 401.
  for (const { digest } of layers)
    assert.equal(
      new Set(proxy.requests.filter((line) => line.includes(digest)).map((line) => line.replace(/team\/\w+/, ""))).size,
      1,
    );
  assert.equal(proxy.requests.filter((line) => line.includes(big()?.digest ?? "?")).length, 1);
});

test("a blob that lost bits in the cache is fetched again; prune tells first, then removes what nobody uses", async () => {
  const images = service();
  await pull(app(), images);
  await images.delete(app(), () => []);
  const cached = join(blobsFolder(), "sha256", big()?.digest.slice(7) ?? "");
  await chmod(cached, 0o600);
  const bytes = await readFile(cached);
  bytes[1000] = (bytes[1000] ?? 0) ^ 1;
  await writeFile(cached, bytes);
  proxy.requests.length = 0;
  await pull(app(), images);
  assert.equal(proxy.requests.filter((line) => line.includes("/blobs/")).length, 1);
  const told = await images.prune({ dryRun: true, images: false }, () => []);
  assert.deepEqual([told.blobs, told.images], [4, []]);
  assert.ok(told.blobBytes > 3 * MiB);
  assert.equal((await readdir(join(blobsFolder(), "sha256"))).length, 4);
  const used = await images.prune({ dryRun: false, images: true }, () => ["box"]);
  assert.deepEqual([used.blobs, used.images, await installed()], [4, [], [encodeURIComponent(app())]]);
  assert.equal((await readdir(join(blobsFolder(), "sha256"))).length, 0);
  assert.equal((await images.prune({ dryRun: false, images: true }, () => [])).images.length, 1);
  assert.deepEqual(await installed(), []);
});

test("mirrors come first, with credentials of their own, and the registry where they fail", async () => {
  const mirrored = `${registry.host}/team/app:1`;
  const both = join(folder, "both.json");
  const auth = Buffer.from("me:secret").toString("base64");
  await writeFile(
    both,
    JSON.stringify({ auths: { [registry.host]: { auth }, [`http://${proxy.host}/v1/`]: { auth } } }),
  );
  const images = service({
    credentials: dockerCredentials(both),
    mirrors: { [registry.host]: ["http://127.0.0.1:1", `http://${proxy.host}/`] },
  });
  await pull(mirrored, images);
  assert.ok(proxy.requests.some((line) => line.includes(big()?.digest ?? "?")));
  await images.delete(mirrored, () => []);
  await rm(blobsFolder(), { recursive: true });
  proxy.fault = (_incoming, outgoing) => {
    outgoing.writeHead(500).end();
    return true;
  };
  await pull(mirrored, images);
  await assert.rejects(pull(`${registry.host}/team/app:9`, images), {
    code: "IMAGE_NOT_FOUND",
    hint: /its mirrors did not do either: http:\/\/127/,
  });
});

test("pulls, deletes and uses at once never see half an image", async () => {
  const images = service();
  const round = async () => {
    await Promise.allSettled([
      images.ensure(app(), silentProgress()).then(async ({ rootfs }) => {
        const bytes = await readFile(rootfs).catch((error: unknown) => {
          // Deleted since: gone as a whole.
          assert.equal((error as { code?: string }).code, "ENOENT");
        });
        if (bytes) assert.equal(bytes.readUInt16LE(1080), 0xef53);
      }),
      pull(app(), images),
      images.delete(app(), () => []),
      images.verify(app()),
    ]).then((results) => {
      for (const result of results)
        if (result.status === "rejected")
          assert.match(String(result.reason?.code), /^IMAGE_(?:NOT_FOUND|CORRUPT)$/, String(result.reason));
    });
  };
  for (let i = 0; i < 10; i++) await Promise.all([round(), round()]);
  await images.ensure(app(), silentProgress());
  await images.verifyDigest(app(), silentProgress());
});
