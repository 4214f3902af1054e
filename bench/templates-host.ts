/** A host whose VMs start from a template of the Debian image with systemd, and what benches ask of it through the client library. */
import { type Client, openClient } from "../src/client/client.ts";
import { installFixture } from "../test/support/fixture.ts";
import { type Host, testHost } from "../test/support/host.ts";

export const GOLDEN = "debian-bookworm";
/** The command's own choice of a shape is what a user gets: only the image is named. */
export const SHAPE = ["--image", GOLDEN];

export type WarmHost = AsyncDisposable & {
  host: Host;
  client: Client;
  /** Runs `banger`; a failure ends the bench. @returns its stdout and stderr */
  ok(...args: string[]): Promise<{ stdout: string; stderr: string }>;
  /** Runs `true` in a VM. */
  run(vm: string): Promise<void>;
};

/** @param config lines of config.toml besides */
export const warmHost = async (config = ""): Promise<WarmHost> => {
  const host = await testHost(`templates.enabled = true\n${config}`);
  await installFixture(host, [GOLDEN, "debian-bookworm-slim"]);
  // The client library is of the same build as the commands, or each would replace the other's daemon.
  const { build } = await host.json<{ build: string }>("version");
  Object.assign(process.env, host.env, { BANGER_BUILD_ID: build });
  const client = openClient();
  const ok: WarmHost["ok"] = async (...args) => {
    const done = await host.run(args, { timeout: 300_000 });
    if (done.status !== 0) throw new Error(`banger ${args.join(" ")}: ${done.stderr}`);
    return done;
  };
  await ok("image", "warm", GOLDEN);
  return {
    host,
    client,
    ok,
    run: async (vm) => {
      const stream = await client.stream("vmExec", { vm }, { argv: ["true"] });
      stream.stdin.end();
      stream.stdout.resume();
      stream.stderr.resume();
      const { exit } = await stream.closed;
      if (exit !== 0) throw new Error(`true in ${vm} ended with ${exit}`);
    },
    [Symbol.asyncDispose]: async () => {
      client.close();
      await host[Symbol.asyncDispose]();
    },
  };
};
