/** A VM whose guest is a folder of this machine: a stand-in for the daemon that runs what the guest would run, here. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { encodeJson, frameType, MAX_PAYLOAD } from "../../src/contract/frames.ts";
import type { Vm } from "../../src/contract/vms.ts";
import { type StandIn, type StandInStream, standInDaemon } from "./stand-in-daemon.ts";

/**
 * @param runtime XDG_RUNTIME_DIR of the commands that will ask
 * @param vm what `vm show` answers
 */
export const localGuest = async (runtime: string, vm: () => Partial<Vm>): Promise<StandIn> => {
  await mkdir(join(runtime, "banger"), { recursive: true, mode: 0o700 });
  const daemon = await standInDaemon(join(runtime, "banger", "bangerd.sock"));
  daemon.onRequest = (_request, response) => {
    const body = JSON.stringify(vm());
    response
      .writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) })
      .end(body);
  };
  daemon.onStream = (stream) => void runHere(stream);
  return daemon;
};

const runHere = async (stream: StandInStream): Promise<void> => {
  const { argv = [], cwd } = stream.request as { argv?: string[]; cwd?: string };
  const [program = "true", ...args] = argv;
  const child = spawn(program, args, { cwd: cwd ?? "/", stdio: "pipe" });
  stream.onFrame = ({ type, payload }) => {
    if (type === frameType.data) child.stdin.write(payload.slice());
    else if (type === frameType.end) child.stdin.end();
    else if (type === frameType.close) child.kill("SIGKILL");
  };
  child.stdin.on("error", () => child.stdin.destroy());
  stream.socket.on("close", () => child.kill("SIGKILL"));
  stream.send(frameType.opened, encodeJson({ pid: child.pid }));
  for (const [channel, source] of [child.stdout, child.stderr].entries())
    source.on("data", (chunk: Buffer) => {
      for (let at = 0; at < chunk.length; at += MAX_PAYLOAD)
        stream.send(frameType.data, chunk.subarray(at, at + MAX_PAYLOAD), channel);
    });
  const [status, signal] = (await once(child, "close")) as [number | null, string | null];
  stream.close(signal === null ? { exit: status } : { signal: 9 });
};
