/** The proxy as programs of a guest use it: real clients before it, real servers behind it. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createHttps } from "node:https";
import { connect, createServer as createTcp, type Socket } from "node:net";
import { join } from "node:path";
import { buffer, text } from "node:stream/consumers";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import { listening, type SecretsBed, secretsBed, serverAuthority } from "../../../test/support/secrets-bed.ts";

const VALUE = "real-value-4f1d2c3b";
const base64 = (value: string) => Buffer.from(value).toString("base64");

/** Repeats in its headers and its body all that it was sent. */
const echo = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const body = await text(request);
  const headers = Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [`echo-${name}`, value ?? ""]),
  );
  response.writeHead(200, { ...headers, "content-type": "application/json" });
  response.end(JSON.stringify({ url: request.url, headers: request.headers, body }));
};

/** A server of `host` that keeps what it is sent. */
const recorder = async (bed: SecretsBed, host: string) => {
  const seen: { url: string | undefined; headers: IncomingMessage["headers"]; body: string }[] = [];
  const port = await bed.https(host, (request, response) => {
    void text(request).then((body) => {
      seen.push({ url: request.url, headers: request.headers, body });
      response.end("ok\n");
    });
  });
  return { port, seen, url: (path = "/") => `https://${host}:${port}${path}` };
};

/** The reason of a refusal, as a program reads it. */
const refusal = (stdout: string): { code: string; message: string } => {
  const [, code] = /^X-Banger-Refused: (\S+)\r$/im.exec(stdout) ?? [];
  const { error } = JSON.parse(stdout.slice(stdout.lastIndexOf("\r\n\r\n"))) as {
    error: { code: string; message: string };
  };
  assert.equal(error.code, code);
  assert.ok(!stdout.includes(VALUE));
  return error;
};

test("curl sends a placeholder, the server gets the value, and what it repeats is the placeholder", async () => {
  await using bed = await secretsBed();
  const server = await recorder(bed, "api.test");
  const token = bed.give("TOKEN", [`api.test:${server.port}`], VALUE);
  const done = await bed.run("curl", [
    "-sS",
    ...["-H", `Authorization: Bearer ${token}`, server.url("/one"), "--next", "-sS"],
    ...["-u", `git:${token}`, "-d", `in a body: ${token}`, server.url("/two"), "--next", "-sS"],
    ...["-H", `X-Api-Key: ${token}`, "-X", "POST", server.url("/three")],
  ]);
  assert.deepEqual([done.status, done.stdout], [0, "ok\nok\nok\n"], done.stderr);
  const [one, two, three] = server.seen;
  assert.equal(one?.headers.authorization, `Bearer ${VALUE}`);
  assert.equal(two?.headers.authorization, `Basic ${base64(`git:${VALUE}`)}`);
  assert.equal(two?.body, `in a body: ${token}`, "a body goes as it is");
  assert.deepEqual([three?.headers["x-api-key"], three?.headers["content-length"]], [VALUE, "0"]);
  assert.ok(server.seen.every(({ headers }) => headers["proxy-connection"] === undefined));

  const port = await bed.https("echo.test", (request, response) => void echo(request, response));
  const other = bed.give("OTHER", [`echo.test:${port}`], VALUE);
  const echoed = await bed.run("curl", [
    ...["-sSi", "--compressed", "-u", `me:${other}`, "-H", `X-Api-Key: ${other}`, `https://echo.test:${port}/`],
  ]);
  assert.equal(echoed.status, 0, echoed.stderr);
  assert.ok(!echoed.stdout.includes(VALUE) && !echoed.stdout.includes(base64(`me:${VALUE}`)), echoed.stdout);
  assert.match(echoed.stdout, /echo-x-api-key: banger_secret_/);
  assert.ok(!/^transfer-encoding|^content-encoding/im.test(echoed.stdout) || !/gzip/.test(echoed.stdout));
});

test("where a placeholder must not go: another host, header or address; each with a reason, in the log too", async () => {
  await using bed = await secretsBed();
  const server = await recorder(bed, "api.test");
  const other = await recorder(bed, "other.test");
  const token = bed.give("TOKEN", [`api.test:${server.port}`], VALUE);
  bed.give("OTHER", [`other.test:${other.port}`], "other-value-1234");
  const unset = bed.give("UNSET", [`api.test:${server.port}`], undefined);
  const plainPort = await bed.http((request, response) => void echo(request, response));
  const ask = async (...args: string[]) => {
    const done = await bed.run("curl", ["-sSi", ...args]);
    assert.match(done.stdout, /^HTTP\/1\.1 403 /m, done.stdout + done.stderr);
    const { code, message } = refusal(done.stdout);
    assert.equal(code, "SECRET_REFUSED");
    return message;
  };
  assert.match(await ask("-H", `Authorization: Bearer ${token}`, other.url()), /TOKEN is not for other\.test/);
  assert.match(await ask("-u", `x:${token}`, other.url()), /TOKEN is not for other\.test/);
  assert.match(await ask("-H", `User-Agent: ${token}`, server.url()), /not for header user-agent/);
  assert.match(await ask(server.url(`/?token=${token}`)), /in the address/);
  assert.match(await ask("-H", `X-Api-Key: ${unset}`, server.url()), /UNSET has no value/);
  assert.match(
    await ask("-H", `Authorization: ${token}`, `http://api.test:${plainPort}/`),
    /TOKEN is not for http:\/\/api\.test/,
  );
  // Without a placeholder all of them answer.
  for (const url of [server.url(), other.url(), `http://api.test:${plainPort}/`])
    assert.equal((await bed.run("curl", ["-sS", "-o", "/dev/null", url])).status, 0);
  assert.deepEqual([server.seen.length, other.seen.length], [1, 1]);
  assert.ok(
    bed.lines.includes(`refused http other.test:${other.port} by: secret TOKEN is not for other.test:${other.port}`),
    bed.lines.join("\n"),
  );
  assert.ok(!bed.lines.join("\n").includes(VALUE));
});

test("a refusal is written down with the process that wanted it, by the proxy's rules and by the network's", async () => {
  await using bed = await secretsBed({ network: "user", whose: "curl(612)" });
  const token = bed.give("TOKEN", ["api.test"], VALUE);
  const refused = async (...args: string[]) =>
    assert.match((await bed.run("curl", ["-sSi", "--noproxy", "", ...args])).stdout, /^HTTP\/1\.1 403 /m);
  await refused("-H", `Authorization: ${token}`, "http://other.test/");
  await refused("http://127.0.0.1/");
  await refused("https://127.0.0.1/");
  const rule = "secret TOKEN is not for http://other.test";
  assert.deepEqual(bed.lines, [
    `refused http other.test:80 from curl(612) by: ${rule}`,
    "refused tcp 127.0.0.1:80 from curl(612) by: never",
    "refused tcp 127.0.0.1:443 from curl(612) by: never",
  ]);
});

test("a redirect elsewhere takes the placeholder along, and not the value", async () => {
  await using bed = await secretsBed();
  const elsewhere = await recorder(bed, "elsewhere.test");
  const port = await bed.https("api.test", (_request, response) => {
    response.writeHead(302, { location: elsewhere.url("/caught") }).end();
  });
  const token = bed.give("TOKEN", [`api.test:${port}`], VALUE);
  const done = await bed.run("curl", [
    ...["-sSL", "--location-trusted", "-H", `Authorization: Bearer ${token}`, `https://api.test:${port}/`],
  ]);
  assert.equal(done.status, 0, done.stderr);
  // No secret is for it: TLS went through as it was, and nobody looked into it.
  assert.equal(elsewhere.seen[0]?.headers.authorization, `Bearer ${token}`);
});

test("what CONNECT, TLS and Host name must be the same", async () => {
  await using bed = await secretsBed();
  const server = await recorder(bed, "api.test");
  const token = bed.give("TOKEN", [`api.test:${server.port}`, `${bed.own}:${server.port}`], VALUE);
  const header = ["-H", `Authorization: Bearer ${token}`];
  for (const host of ["other.test", `api.test:1`, "api.test", "api.test.other.test"]) {
    const done = await bed.run("curl", ["-sSi", ...header, "-H", `Host: ${host}`, server.url()]);
    assert.match(refusal(done.stdout).message, /the request is for ".*", and goes to api\.test/);
  }
  // A whole address in a tunnel leads nowhere else either.
  const absolute = await bed.run("curl", ["-sSi", ...header, "--request-target", "https://other.test/", server.url()]);
  assert.equal(refusal(absolute.stdout).code, "INVALID_REQUEST");
  const answerTo = async (servername: string, target: string): Promise<string> => {
    const socket = connect(bed.port, "127.0.0.1");
    socket.write(`CONNECT ${target}:${server.port} HTTP/1.1\r\nHost: ${target}:${server.port}\r\n\r\n`);
    await once(socket, "data");
    const secure = connectTls({ socket, servername, rejectUnauthorized: false });
    secure.end(
      `GET / HTTP/1.1\r\nHost: ${target}:${server.port}\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\n\r\n`,
    );
    return await text(secure);
  };
  for (const [servername, target] of [
    ["other.test", "api.test"],
    ["", "api.test"],
    ["api.test", bed.own],
  ] as const)
    assert.match(refusal(await answerTo(servername, target)).message, /the TLS of this connection is for/);
  assert.match(await answerTo("api.test", "API.test."), /^HTTP\/1\.1 200/);
  assert.equal(server.seen.length, 1);
});

test("the rules of the VM's network hold: by address, by name, for names that lead inwards; the log says so", async () => {
  let turn = 0;
  const names = {
    "loop.corp.test": () => ["127.0.0.1"],
    "metadata.corp.test": () => ["169.254.169.254"],
    "lan.corp.test": () => ["192.168.77.1"],
    // The second answer is another: nobody asks for it.
    "rebind.corp.test": () => (turn++ === 0 ? [bed.own] : ["127.0.0.1"]),
    "both.corp.test": () => ["127.0.0.1", bed.own],
  };
  await using bed = await secretsBed({ names, rules: ["allow *.corp.test"] });
  const server = await recorder(bed, "rebind.corp.test");
  const trap = createTcp((socket) => socket.destroy(new Error("reached")));
  let reached = 0;
  trap.on("connection", () => reached++);
  await new Promise<void>((resolve) => trap.listen(server.port, "127.0.0.1", resolve));
  try {
    const token = bed.give(
      "TOKEN",
      ["loop", "metadata", "lan", "rebind", "both", "other"].map((name) => `${name}.corp.test:${server.port}`),
      VALUE,
    );
    const ask = async (host: string, scheme = "https") => {
      const header = scheme === "https" ? ["-H", `Authorization: Bearer ${token}`] : [];
      const target = `${scheme}://${host}:${server.port}/`;
      return (await bed.run("curl", ["-sSi", "--noproxy", "", ...header, target])).stdout;
    };
    // curl shows the headers of a refused CONNECT, and not its body.
    const isRefused = (stdout: string, what: string) =>
      assert.match(stdout, /^HTTP\/1\.1 403 [\s\S]*X-Banger-Refused: NET_REFUSED/, what);
    for (const [host, rule] of [
      ["loop.corp.test", "127.0.0.1:PORT loop.corp.test by: never"],
      ["metadata.corp.test", "169.254.169.254:PORT metadata.corp.test by: never"],
      ["lan.corp.test", "192.168.77.1:PORT lan.corp.test by: private"],
    ] as const) {
      isRefused(await ask(host), host);
      const line = `refused tcp ${rule.replace("PORT", String(server.port))}`;
      assert.ok(bed.lines.includes(line), `${line}\n---\n${bed.lines.join("\n")}`);
    }
    for (const address of ["127.0.0.1", "10.0.2.2", "10.1.2.3", "0.0.0.0"])
      for (const scheme of ["https", "http"]) isRefused(await ask(address, scheme), `${scheme}://${address}`);
    assert.match(refusal(await ask("10.1.2.3", "http")).message, /may not reach 10\.1\.2\.3 port \d+ .*: private$/);
    const tunnel = connect(bed.port, "127.0.0.1");
    tunnel.end(`CONNECT 10.1.2.3:443 HTTP/1.1\r\nHost: 10.1.2.3:443\r\n\r\n`);
    assert.equal(refusal(await text(tunnel)).code, "NET_REFUSED");
    const literal = await bed.run("curl", ["-sSi", "--noproxy", "", `http://[::1]:${server.port}/`]);
    assert.equal(refusal(literal.stdout).code, "NET_REFUSED");
    const odd = await bed.run("curl", [
      "-sSi",
      "--request-target",
      `http://2130706433:${server.port}/`,
      `http://x.test/`,
    ]);
    assert.equal(refusal(odd.stdout).code, "INVALID_REQUEST");
    // One address of two may be reached, and it is; the certificate there is another host's.
    assert.equal(refusal(await ask("both.corp.test")).code, "UPSTREAM_FAILED");
    bed.lookups.length = 0;
    assert.match(await ask("rebind.corp.test"), /HTTP\/1\.1 200 OK[\s\S]*ok/);
    assert.deepEqual(bed.lookups, ["rebind.corp.test"], "looked up once");
    isRefused(await ask("rebind.corp.test"), "the second answer");
    assert.equal(reached, 0);
  } finally {
    trap.close();
  }
});

test("rules that change cut off what they do not allow any more", async () => {
  await using bed = await secretsBed();
  const sockets: Socket[] = [];
  const server = createTcp((socket) => void sockets.push(socket.on("error", () => undefined)));
  const port = await listening(server, bed.own);
  try {
    const socket = connect(bed.port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write(`CONNECT tunnel.test:${port} HTTP/1.1\r\nHost: tunnel.test:${port}\r\n\r\n`);
    const [answer] = await once(socket, "data");
    assert.match(String(answer), /^HTTP\/1\.1 200 /);
    socket.write("through");
    const closed = once(socket, "close");
    await bed.setRules([`deny ${bed.own}`]);
    await closed;
    assert.ok(bed.lines.includes(`refused tcp ${bed.own}:${port} tunnel.test by: deny ${bed.own}/32 any *`));
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});

test("servers are checked: by whom, and for which name", async () => {
  await using bed = await secretsBed();
  const strangers = await serverAuthority();
  const unknown = await bed.listen(
    createHttps(strangers.serverFor("api.test"), (_request, response) => response.end("no")),
  );
  const wrong = await bed.https("other.test", (_request, response) => response.end("no"));
  const token = bed.give("TOKEN", [`api.test:${unknown}`, `api.test:${wrong}`], VALUE);
  for (const port of [unknown, wrong]) {
    const done = await bed.run("curl", ["-sSi", "-H", `Authorization: ${token}`, `https://api.test:${port}/`]);
    assert.match(done.stdout, /^HTTP\/1\.1 502 /m);
    assert.equal(refusal(done.stdout).code, "UPSTREAM_FAILED");
  }
});

test("git clones over HTTPS with a token in Basic; Python and Node find the proxy by their environment", async () => {
  await using bed = await secretsBed();
  const repository = join(bed.folder, "repo.git");
  const git = async (...args: string[]) => {
    const done = await bed.run("git", args, { GIT_CONFIG_NOSYSTEM: "1" });
    assert.equal(done.status, 0, done.stderr);
  };
  const work = join(bed.folder, "work");
  await mkdir(work);
  await git("-C", work, "init", "--quiet");
  await writeFile(join(work, "file"), "contents\n");
  await git("-C", work, "add", "file");
  await git("-C", work, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "one");
  await git("clone", "--quiet", "--bare", work, repository);
  await git("-C", repository, "update-server-info");
  // What git calls the dumb protocol: files, for whoever has the token.
  const files = (request: IncomingMessage, response: ServerResponse) => {
    if (request.headers.authorization !== `Basic ${base64(`x-access-token:${VALUE}`)}`)
      return void response.writeHead(401, { "www-authenticate": 'Basic realm="git"' }).end();
    const path = new URL(request.url ?? "/", "http://x").pathname;
    readFile(join(bed.folder, path)).then(
      (bytes) => response.end(bytes),
      () => response.writeHead(404).end(),
    );
  };
  const port = await bed.https("git.test", files);
  const token = bed.give("TOKEN", [`git.test:${port}`], VALUE);
  const clone = join(bed.folder, "clone");
  await git("clone", "--quiet", `https://x-access-token:${token}@git.test:${port}/repo.git`, clone);
  assert.equal(await readFile(join(clone, "file"), "utf8"), "contents\n");

  const server = await recorder(bed, "api.test");
  bed.give("API_KEY", [`api.test:${server.port}`], VALUE);
  const python = `import os, urllib.request
request = urllib.request.Request("${server.url("/python")}", headers={"X-Api-Key": os.environ["API_KEY"]})
print(urllib.request.urlopen(request).read().decode(), end="")`;
  const byPython = await bed.run("python3", ["-c", python]);
  assert.deepEqual([byPython.status, byPython.stdout], [0, "ok\n"], byPython.stderr);
  const node = `fetch("${server.url("/node")}", { headers: { authorization: "Bearer " + process.env.API_KEY } }).then((r) => r.text()).then((t) => process.stdout.write(t))`;
  const byNode = await bed.run(process.execPath, ["-e", node]);
  assert.deepEqual([byNode.status, byNode.stdout], [0, "ok\n"], byNode.stderr);
  assert.deepEqual(
    server.seen.map(({ url, headers }) => [url, headers["x-api-key"] ?? headers.authorization]),
    [
      ["/python", VALUE],
      ["/node", `Bearer ${VALUE}`],
    ],
  );
});

test("large bodies go both ways unchanged, chunked or not; what the server says first is heard first", async () => {
  await using bed = await secretsBed();
  const sent = randomBytes(8 * 1024 * 1024);
  const digest = createHash("sha256").update(sent).digest("hex");
  const release = Promise.withResolvers<void>();
  const port = await bed.https("api.test", (request, response) => {
    if (request.url === "/events") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("data: first\n\n");
      void release.promise.then(() => response.end("data: last\n\n"));
      return;
    }
    void buffer(request).then((bytes) => {
      response.setHeader(
        "x-method",
        `${request.method} ${request.headers["transfer-encoding"] ?? request.headers["content-length"]}`,
      );
      response.end(bytes);
    });
  });
  const token = bed.give("TOKEN", [`api.test:${port}`], VALUE);
  const path = join(bed.folder, "body");
  await writeFile(path, sent);
  const chunked = ["-H", "Transfer-Encoding: chunked"];
  for (const [method, extra] of [
    ["POST", []],
    ["PUT", chunked],
    ["DELETE", chunked],
  ] as const) {
    const out = join(bed.folder, "out");
    const done = await bed.run("curl", [
      ...["-sS", "-D", "-", "-o", out, "-X", method, "--data-binary", `@${path}`, ...extra],
      ...["-H", `Authorization: Bearer ${token}`, `https://api.test:${port}/`],
    ]);
    assert.equal(done.status, 0, done.stderr);
    assert.equal(
      createHash("sha256")
        .update(await readFile(out))
        .digest("hex"),
      digest,
    );
    assert.match(done.stdout, new RegExp(`x-method: ${method} ${extra.length > 0 ? "chunked" : sent.length}`));
  }
  const socket = connect(bed.port, "127.0.0.1");
  socket.write(`CONNECT api.test:${port} HTTP/1.1\r\nHost: api.test:${port}\r\n\r\n`);
  await once(socket, "data");
  const secure = connectTls({ socket, servername: "api.test", ca: await readFile(bed.bundle) });
  secure.write(`GET /events HTTP/1.1\r\nHost: api.test:${port}\r\nConnection: close\r\n\r\n`);
  let heard = "";
  for await (const chunk of secure) {
    heard += String(chunk);
    if (heard.includes("first")) release.resolve();
  }
  assert.match(heard, /data: first[\s\S]*data: last/);
});

test("a connection becomes another protocol's: values stay out of that too", async () => {
  await using bed = await secretsBed();
  const server = createHttps(bed.servers.serverFor("ws.test"));
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${request.headers.upgrade}\r\n\r\n`,
    );
    socket.write(`you are ${request.headers.authorization}\n`);
    if (head.length > 0) socket.write(head);
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  const port = await bed.listen(server);
  const token = bed.give("TOKEN", [`ws.test:${port}`], VALUE);
  const ask = async (authorization: string, then: string): Promise<string> => {
    const socket = connect(bed.port, "127.0.0.1");
    socket.write(`CONNECT ws.test:${port} HTTP/1.1\r\nHost: ws.test:${port}\r\n\r\n`);
    await once(socket, "data");
    const secure = connectTls({ socket, servername: "ws.test", ca: await readFile(bed.bundle) });
    secure.end(
      `GET /chat HTTP/1.1\r\nHost: ws.test:${port}\r\nConnection: Upgrade\r\nUpgrade: echo\r\nAuthorization: ${authorization}\r\n\r\n${then}`,
    );
    return await text(secure);
  };
  const answer = await ask(`Bearer ${token}`, "and on it goes");
  assert.match(answer, /^HTTP\/1\.1 101 [\s\S]*\r\n\r\nyou are Bearer banger_secret_00000\nand on it goes$/);
  assert.match(await ask(`Bearer banger_secret_${"f".repeat(32)}`, ""), /^HTTP\/1\.1 403 [\s\S]*SECRET_REFUSED/);
});

test("what is no request, or never becomes one, is bounded", async () => {
  await using bed = await secretsBed({ idleLimit: 200 });
  const server = await recorder(bed, "api.test");
  bed.give("TOKEN", [`api.test:${server.port}`], VALUE);
  const raw = async (bytes: string): Promise<string> => {
    const socket = connect(bed.port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write(bytes);
    return await text(socket);
  };
  assert.match(await raw(`GET http://api.test/ HTTP/1.1\r\nX: ${"x".repeat(70_000)}\r\n\r\n`), /^HTTP\/1\.1 431 /);
  assert.match(await raw("\0\u0001nonsense\r\n\r\n"), /^HTTP\/1\.1 400 [\s\S]*INVALID_REQUEST/);
  assert.match(await raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), /^HTTP\/1\.1 400 [\s\S]*this is the proxy/);
  const smuggled = `POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`;
  assert.match(await raw(smuggled), /^HTTP\/1\.1 400 /);
  assert.match(
    await raw("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n"),
    /^HTTP\/1\.1 400 [\s\S]*Host/,
  );
  // Each of these waits for more, and is not waited for.
  for (const begun of ["", "GET http://api.test/", `CONNECT api.test:${server.port} HTTP/1.1\r\nHost: api.test\r\n`])
    assert.equal(await raw(begun), "");
  assert.match(
    await raw(`CONNECT api.test:${server.port} HTTP/1.1\r\nHost: api.test:${server.port}\r\n\r\n\x16\x03\x01`),
    /^HTTP\/1\.1 200 [^\n]*\n\r\n$/,
  );
});

test("a request that takes long is waited for, one that was sent right behind another too", async () => {
  await using bed = await secretsBed({ idleLimit: 100 });
  const waiting = Promise.withResolvers<ServerResponse>();
  const port = await bed.http((request, response) => {
    if (request.url === "/slow") waiting.resolve(response);
    else response.end("quick\n");
  });
  const socket = connect(bed.port, "127.0.0.1");
  const ask = (path: string, more = "") =>
    `GET http://a.test:${port}${path} HTTP/1.1\r\nHost: a.test:${port}\r\n${more}\r\n`;
  socket.write(ask("/quick") + ask("/slow", "Connection: close\r\n"));
  const slow = await waiting.promise;
  // Twice as long as a connection may be idle.
  setTimeout(() => slow.end("slow\n"), 200);
  assert.match(await text(socket), /quick[\s\S]*slow/);
});

test("a plain server gets a value only where the secret says so", async () => {
  await using bed = await secretsBed();
  const seen: (string | undefined)[] = [];
  const port = await bed.listen(
    createHttp((request, response) => {
      seen.push(request.headers.authorization);
      response.end(`you sent ${request.headers.authorization} to ${request.url}`);
    }),
  );
  const token = bed.give("TOKEN", [`http://plain.test:${port}`], VALUE);
  const done = await bed.run("curl", ["-sS", "-H", `Authorization: ${token}`, `http://plain.test:${port}/a?b`]);
  assert.equal(done.stdout, `you sent ${token.slice(0, VALUE.length)} to /a?b`);
  const twice = await bed.run("curl", ["-sS", `http://plain.test:${port}/1`, `http://plain.test:${port}/2`]);
  assert.equal(twice.stdout, "you sent undefined to /1you sent undefined to /2");
  assert.deepEqual(seen, [VALUE, undefined, undefined]);
});
