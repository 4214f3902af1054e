import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describe, test } from "node:test";
import { BangerError } from "../../contract/errors.ts";
import type { FileRequest, GuestFileStat } from "../../contract/vms.ts";
import type { GuestFiles } from "./guest-files.ts";
import { parsePlace, planCopy } from "./places.ts";
import { publish, refuseDevices } from "./publish.ts";
import { packTar, unpackTar } from "../../host/tar.ts";
import { copyIn } from "./to-guest.ts";
import { copyOut } from "./to-host.ts";

const inFolder = async (use: (folder: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-copy-"));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
};

const code = (expected: string) => (error: unknown) => error instanceof BangerError && error.code === expected;

describe("places", () => {
  test("what is in a guest and what is not", () => {
    assert.deepEqual(parsePlace("box:/srv"), { side: "guest", vm: "box", path: "/srv" });
    assert.deepEqual(parsePlace("box:x y"), { side: "guest", vm: "box", path: "/root/x y" });
    assert.deepEqual(parsePlace("box:~/x"), { side: "guest", vm: "box", path: "/root/x" });
    assert.deepEqual(parsePlace("box:"), { side: "guest", vm: "box", path: "/root/" });
    assert.deepEqual(parsePlace("./a:b"), { side: "host", path: "./a:b" });
    assert.deepEqual(parsePlace("/a:b"), { side: "host", path: "/a:b" });
    assert.deepEqual(parsePlace("-"), { side: "stream" });
  });

  for (const words of [
    ["a"],
    ["a", "b"],
    ["box:/a", "fox:/b"],
    ["box:/a", "fox:/b", "."],
    ["a", "-", "box:/b"],
    ["box:/a", "box:/b", "-"],
    ["box:/a", "b", "."],
  ]) {
    test(`refused: ${words.join(" ")}`, () => assert.throws(() => planCopy(words), code("USAGE")));
  }
});

/** A guest whose root is a folder here, with the agent's operations by the system's tar. */
const standInGuest = (root: string): GuestFiles => {
  const tar = async (args: string[], input?: AsyncIterable<Uint8Array>): Promise<Buffer> => {
    const child = spawn("tar", args, { stdio: ["pipe", "pipe", "inherit"] });
    const out: Buffer[] = [];
    child.stdout.on("data", (chunk) => out.push(chunk));
    const ended = new Promise((resolve) => child.once("close", resolve));
    for await (const chunk of input ?? []) child.stdin.write(chunk);
    child.stdin.end();
    assert.equal(await ended, 0);
    return Buffer.concat(out);
  };
  const statOf = async (path: string): Promise<GuestFileStat | undefined> => {
    try {
      const found = await stat(join(root, path));
      return {
        type: found.isDirectory() ? "dir" : "file",
        size: found.size,
        mode: found.mode & 0o7777,
        uid: 0,
        gid: 0,
        mtime: 0,
      };
    } catch {
      return undefined; // Not there.
    }
  };
  return {
    stat: statOf,
    send: async (request: FileRequest, source) => {
      if (request.op === "tar_in")
        return void (await tar(["-x", "-S", "-f", "-", "-C", join(root, request.path)], source));
      assert.equal(request.op, "write");
      const chunks: Uint8Array[] = [];
      for await (const chunk of source) chunks.push(chunk);
      await writeFile(join(root, request.path), Buffer.concat(chunks));
      if ("mode" in request && request.mode) await chmod(join(root, request.path), request.mode);
    },
    receive: async (request, take) => {
      const path = join(root, request.path);
      if (request.op === "read") {
        const content = await readFile(path);
        await take(Readable.from([content]));
        return { size: content.length };
      }
      const name = path.split("/").at(-1) ?? "";
      await take(
        Readable.from([
          await tar(["-c", "-S", "-f", "-", "--transform", `flags=rSh;s,^${name},copy,`, "-C", join(path, ".."), name]),
        ]),
      );
      return {};
    },
  };
};

const both = (use: (host: string, root: string, guest: GuestFiles) => Promise<void>) =>
  inFolder(async (folder) => {
    const [host, root] = [join(folder, "host"), join(folder, "guest")];
    await mkdir(host);
    await mkdir(join(root, "srv"), { recursive: true });
    await use(host, root, standInGuest(root));
  });

const to = (path: string) => ({ side: "guest", vm: "box", path }) as const;
const from = (path: string) => ({ side: "host", path }) as const;
async function* nothing(): AsyncGenerator<Uint8Array> {
  yield* [];
}
const quiet = () => undefined;
const noOutput = async () => undefined;

describe("into the guest", () => {
  test("a file, into a folder and under a new name, with its mode", () =>
    both(async (host, root, guest) => {
      await writeFile(join(host, "run.sh"), "x", { mode: 0o750 });
      await copyIn(guest, [from(join(host, "run.sh"))], to("/srv"), nothing(), quiet);
      await copyIn(guest, [from(join(host, "run.sh"))], to("/srv/other"), nothing(), quiet);
      assert.equal((await stat(join(root, "srv/run.sh"))).mode & 0o777, 0o750);
      assert.equal(await readFile(join(root, "srv/other"), "utf8"), "x");
    }));

  test("a folder, into a folder and under a new name, with links, modes and hidden names of any byte", () =>
    both(async (host, root, guest) => {
      const app = join(host, "a.p,p");
      await mkdir(join(app, ".hidden"), { recursive: true });
      const odd = Buffer.concat([Buffer.from(`${app}/.hidden/`), Buffer.from([0xff, 0x0a, 0x20])]);
      await writeFile(odd, "odd");
      await symlink("a.p,p/../x", join(app, "link"));
      await chmod(app, 0o751);
      await copyIn(guest, [from(app)], to("/srv"), nothing(), quiet);
      await copyIn(guest, [from(`${app}/`)], to("/srv/new&\\1"), nothing(), quiet);
      for (const copy of ["srv/a.p,p", "srv/new&\\1"]) {
        assert.equal(await readlink(join(root, copy, "link")), "a.p,p/../x");
        assert.equal((await stat(join(root, copy))).mode & 0o777, 0o751);
        const names = await readdir(Buffer.from(join(root, copy, ".hidden")), { encoding: "buffer" });
        assert.deepEqual(names, [Buffer.from([0xff, 0x0a, 0x20])]);
      }
      await copyIn(guest, [from(`${app}/.`)], to("/srv"), nothing(), quiet);
      assert.equal(await readlink(join(root, "srv/link")), "a.p,p/../x");
    }));

  test("a sparse file keeps its holes", () =>
    both(async (host, root, guest) => {
      const path = join(host, "disk");
      await using file = await open(path, "w");
      await file.truncate(64 * 2 ** 20);
      await file.write("end", 64 * 2 ** 20 - 3);
      await copyIn(guest, [from(path)], to("/srv/copy.img"), nothing(), quiet);
      const copied = await stat(join(root, "srv/copy.img"));
      assert.equal(copied.size, 64 * 2 ** 20);
      assert.ok(copied.blocks * 512 < 2 ** 20);
    }));

  test("a missing source is said before anything is copied", () =>
    both(async (host, root, guest) => {
      await writeFile(join(host, "a"), "a");
      const sources = [from(join(host, "a")), from(join(host, "nope"))];
      await assert.rejects(copyIn(guest, sources, to("/srv"), nothing(), quiet), code("FILE_NOT_FOUND"));
      assert.deepEqual(await readdir(join(root, "srv")), []);
    }));

  test("several sources need a folder, and a slash at the end means one", () =>
    both(async (host, _root, guest) => {
      await writeFile(join(host, "a"), "a");
      await assert.rejects(
        copyIn(guest, [from(join(host, "a")), from(host)], to("/srv/x"), nothing(), quiet),
        code("FILE_NOT_FOUND"),
      );
      await assert.rejects(
        copyIn(guest, [from(join(host, "a"))], to("/srv/x/"), nothing(), quiet),
        code("FILE_NOT_FOUND"),
      );
    }));

  test("stdin becomes a file", () =>
    both(async (_host, root, guest) => {
      const stdin = async function* () {
        yield Buffer.from("typed");
      };
      await copyIn(guest, [{ side: "stream" }], to("/srv/in"), stdin(), quiet);
      assert.equal(await readFile(join(root, "srv/in"), "utf8"), "typed");
      await assert.rejects(copyIn(guest, [{ side: "stream" }], to("/srv"), stdin(), quiet), code("USAGE"));
    }));
});

describe("out of the guest", () => {
  test("a file, into a folder, under a new name, over an old one and through a link of the user's", () =>
    both(async (host, root, guest) => {
      await writeFile(join(root, "srv/f"), "new", { mode: 0o640 });
      await writeFile(join(host, "old"), "old");
      await symlink("old", join(host, "link"));
      await copyOut(guest, [to("/srv/f")], from(host), noOutput, quiet);
      await copyOut(guest, [to("/srv/f")], from(join(host, "g")), noOutput, quiet);
      await copyOut(guest, [to("/srv/f")], from(join(host, "link")), noOutput, quiet);
      assert.equal(await readFile(join(host, "f"), "utf8"), "new");
      assert.equal((await stat(join(host, "g"))).mode & 0o777, 0o640);
      assert.equal(await readFile(join(host, "old"), "utf8"), "new");
      assert.ok((await lstat(join(host, "link"))).isSymbolicLink());
      assert.deepEqual((await readdir(host)).sort(), ["f", "g", "link", "old"]);
    }));

  test("a device is written to and stays one", () =>
    both(async (_host, root, guest) => {
      await writeFile(join(root, "srv/f"), "x");
      await copyOut(guest, [to("/srv/f")], from("/dev/null"), noOutput, quiet);
      assert.ok((await lstat("/dev/null")).isCharacterDevice());
    }));

  test("a folder, as a new name and into one that is there, merging as cp -r does", () =>
    both(async (host, root, guest) => {
      await mkdir(join(root, "srv/app/sub"), { recursive: true });
      await writeFile(join(root, "srv/app/sub/f"), "1");
      await symlink("/etc/passwd", join(root, "srv/app/abs"));
      await copyOut(guest, [to("/srv/app")], from(join(host, "copy")), noOutput, quiet);
      await copyOut(guest, [to("/srv/app")], from(host), noOutput, quiet);
      await writeFile(join(host, "app/sub/mine"), "kept");
      await writeFile(join(root, "srv/app/sub/f"), "2");
      await copyOut(guest, [to("/srv/app")], from(host), noOutput, quiet);
      assert.equal(await readFile(join(host, "copy/sub/f"), "utf8"), "1");
      assert.equal(await readFile(join(host, "app/sub/f"), "utf8"), "2");
      assert.equal(await readFile(join(host, "app/sub/mine"), "utf8"), "kept");
      assert.equal(await readlink(join(host, "app/abs")), "/etc/passwd");
      assert.deepEqual((await readdir(host)).sort(), ["app", "copy"]);
    }));

  test("a copy that is cut off leaves the old file and nothing else", () =>
    both(async (host, root, guest) => {
      await writeFile(join(root, "srv/f"), "new");
      await writeFile(join(host, "f"), "old");
      const short: GuestFiles = {
        ...guest,
        receive: async (request, take) => ({ ...(await guest.receive(request, take)), size: 99 }),
      };
      await assert.rejects(copyOut(short, [to("/srv/f")], from(host), noOutput, quiet), code("GUEST_PROTOCOL"));
      assert.equal(await readFile(join(host, "f"), "utf8"), "old");
      assert.deepEqual(await readdir(host), ["f"]);
    }));

  test("a missing source, and a file where a folder is", () =>
    both(async (host, root, guest) => {
      await writeFile(join(root, "srv/f"), "x");
      await mkdir(join(host, "f"));
      await assert.rejects(
        copyOut(guest, [to("/nope"), to("/srv/f")], from(host), noOutput, quiet),
        code("FILE_NOT_FOUND"),
      );
      await assert.rejects(copyOut(guest, [to("/srv/f")], from(host), noOutput, quiet), code("FILE_REFUSED"));
    }));
});

describe("archives of a hostile guest", () => {
  const archive = async (args: string[], folder: string): Promise<Buffer> => {
    const child = spawn("tar", ["-c", "-f", "-", "-P", "-C", folder, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const chunks: Buffer[] = [];
    for await (const chunk of child.stdout) chunks.push(chunk);
    return Buffer.concat(chunks);
  };

  test("cannot write outside, by name or through a link", () =>
    inFolder(async (folder) => {
      const [source, target] = [join(folder, "source"), join(folder, "a/target")];
      await mkdir(source);
      await mkdir(target, { recursive: true });
      await writeFile(join(source, "f"), "evil");
      await symlink("../..", join(source, "out"));
      const up = await archive(["--transform", "s,^f,../../escaped,", "f"], source);
      await assert.rejects(unpackTar(Readable.from([up]), target), code("TOOL_FAILED"));
      const through = await archive(["--transform", "flags=rSh;s,^f$,out/escaped,", "out", "f"], source);
      await unpackTar(Readable.from([through]), target).catch(() => undefined);
      const absolute = await archive(["--transform", `s,^f,${folder}/escaped,`, "f"], source);
      await unpackTar(Readable.from([absolute]), target);
      assert.deepEqual((await readdir(folder)).sort(), ["a", "source"]);
    }));

  test("loses setuid, keeps the other bits whatever the umask", () =>
    inFolder(async (folder) => {
      const [source, target] = [join(folder, "source"), join(folder, "target")];
      await mkdir(source);
      await mkdir(target);
      await writeFile(join(source, "f"), "x");
      await chmod(join(source, "f"), 0o4777);
      await unpackTar(packTar({ folder: source, names: ["./f"], rename: { from: "./f", to: "./g" } }), target);
      assert.equal((await stat(join(target, "g"))).mode & 0o7777, 0o777);
    }));

  test("hands out no device", { skip: process.getuid?.() !== 0 && "needs root to make a device" }, () =>
    inFolder(async (folder) => {
      await mkdir(join(folder, "sub"));
      await new Promise((resolve) => spawn("mknod", [join(folder, "sub/null"), "c", "1", "3"]).once("close", resolve));
      await assert.rejects(refuseDevices(folder), code("FILE_REFUSED"));
    }),
  );

  test("is not followed when it is put in place", () =>
    inFolder(async (folder) => {
      await mkdir(join(folder, "from/x"), { recursive: true });
      await mkdir(join(folder, "to"));
      await mkdir(join(folder, "precious"));
      await writeFile(join(folder, "from/x/f"), "evil");
      await symlink(join(folder, "precious"), join(folder, "to/x"));
      await assert.rejects(publish(join(folder, "from"), join(folder, "to")), code("FILE_REFUSED"));
      assert.deepEqual(await readdir(join(folder, "precious")), []);
    }));
});

test("a folder of a guest that comes as a link is refused", () =>
  inFolder(async (root) => {
    const guest = standInGuest(root);
    await mkdir(join(root, "srv"));
    const receive: GuestFiles["receive"] = async (_request, take) => {
      await symlink("/etc", join(root, "copy"));
      const child = spawn("tar", ["-c", "-C", root, "copy"], { stdio: ["ignore", "pipe", "inherit"] });
      await take(child.stdout);
      return {};
    };
    const target = join(root, "out");
    const places = [{ side: "guest", vm: "box", path: "/srv" } as const];
    await assert.rejects(
      copyOut(
        { ...guest, receive },
        places,
        { side: "host", path: target },
        async () => undefined,
        () => undefined,
      ),
      code("GUEST_PROTOCOL"),
    );
    await assert.rejects(lstat(target));
  }));
