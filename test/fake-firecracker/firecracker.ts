/**
 * A stand-in for Firecracker: its command line, its API over a unix socket with every request checked against its own description, its vsock, and
 * behind it the real agent as a process, or a whole guest. `FAKE_FIRECRACKER` names a file with its settings, `FAKE_BEGAN` says when it was started (s since 1970). SIGUSR1 is the guest's own end.
 */
import { watch } from "node:fs";
import { access, appendFile, readFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import { callOf, faultIn, readDescription, whenLegal } from "./description.ts";
import { fakeGuest } from "./guest.ts";
import type { FakeSettings, RecordedRequest } from "./settings.ts";
import { type Body, fakeVmm, Refused } from "./vmm.ts";

const settings = JSON.parse(await readFile(process.env.FAKE_FIRECRACKER ?? "", "utf8")) as FakeSettings;
const version = settings.version ?? "1.16.1";
const own = process.argv.slice(2);
const { values } = parseArgs({
  args: own.includes("--") ? own.slice(0, own.indexOf("--")) : own,
  options: {
    version: { type: "boolean" },
    "api-sock": { type: "string" },
    id: { type: "string" },
    level: { type: "string" },
    "log-path": { type: "string" },
  },
});
if (values.version) {
  process.stdout.write(`Firecracker v${version}\n\n`);
  process.exit(0);
}
const die = (words: string): never => {
  process.stderr.write(`Error: ${words}\n`);
  process.exit(1);
};
if (!/^[A-Za-z0-9-]{1,64}$/.test(values.id ?? "")) die("Invalid instance ID");
if (settings.dieAt === "spawn") die("RunWithApi(FailedToBindAndRunHttpServer)");

const description = await readDescription();
// Loaded only where it is wanted: it takes longer than all else.
const machine = settings.qemu === undefined ? undefined : (await import("./machine.ts")).guestMachine(settings.qemu);
const guest = fakeGuest(settings, machine);
const vmm = fakeVmm(version, guest, machine);
process.on("SIGUSR1", () => process.exit(0));

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return text;
};

/** The folder is watched before the file is looked for: it may come in between. */
const boots = async (file: string): Promise<void> => {
  const there = Promise.withResolvers<void>();
  const look = () => void access(file).then(there.resolve, () => undefined);
  const watcher = watch(dirname(file), look);
  look();
  await there.promise;
  watcher.close();
};

const handle = async (method: string, path: string, text: string): Promise<{ body: unknown; started: boolean }> => {
  const known = callOf(description, method, path);
  if (!known) throw new Refused(`Invalid request method and/or path: ${method} ${path}.`);
  const { call, id } = known;
  const type = description.calls[call];
  let body: unknown;
  if (type) {
    try {
      body = JSON.parse(text);
    } catch {
      throw new Refused("An error occurred when deserializing the json body of a request");
    }
    const fault = faultIn(description, `#${type}`, body);
    if (fault) throw new Refused(fault);
    const named = (body as Body)[call.includes("iface_id") ? "iface_id" : "drive_id"];
    if (id !== undefined && named !== id)
      throw new Refused("The id from the path does not match the id from the body!");
  }
  const when = whenLegal(call);
  if (when === "before" && vmm.started())
    throw new Refused("The requested operation is not supported after starting the microVM.");
  if (when === "after" && !vmm.started())
    throw new Refused("The requested operation is not supported before starting the microVM.");
  if (call === "GET /") return { body: vmm.info(), started: false };
  return { body: undefined, started: await vmm.handle(call, (body ?? {}) as Body) };
};

let idleSince = 0;

const server = createServer(async (request, response) => {
  const waited = performance.now() - idleSince;
  const { method = "", url: path = "" } = request;
  const text = await bodyOf(request);
  const call = `${method} ${path}`;
  let body: unknown = text;
  try {
    body = text ? JSON.parse(text) : undefined;
  } catch {
    // Recorded as it came.
  }
  const tell = async (status: number, fault?: string) => {
    const times = { began: Number(process.env.FAKE_BEGAN) * 1000, waited };
    const line: RecordedRequest = { method, path, body, status, ...(fault === undefined ? {} : { fault }), ...times };
    await appendFile(settings.record, `${JSON.stringify(line)}\n`);
  };
  response.once("finish", () => {
    idleSince = performance.now();
  });
  // As Firecracker does: with its length, never in chunks.
  const answer = (status: number, value: unknown) => {
    const json = JSON.stringify(value);
    response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(json) });
    response.end(json);
  };
  if (settings.dieAt === call) {
    await tell(0);
    process.abort();
  }
  if (settings.hangAt === call) return await tell(0);
  try {
    if (settings.refuse?.includes(call)) throw new Refused("told to refuse");
    const done = await handle(method, path, text);
    await tell(done.body === undefined ? 204 : 200);
    if (done.body === undefined) response.writeHead(204).end();
    else answer(200, done.body);
    if (!done.started) return;
    if (settings.dieAt === "start") response.on("close", () => process.abort());
    if (settings.bootWhen !== undefined) await boots(settings.bootWhen);
    if (machine) await machine.start(vmm.configured(), guest.boot);
    else guest.boot();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    await tell(400, error.message);
    answer(400, { fault_message: error.message });
  }
});
// Firecracker keeps a connection for as long as the client does.
server.keepAliveTimeout = 0;
server.requestTimeout = 0;
server.once("error", (error) => die(`Failed to open the API socket: ${error.message}`));
server.listen(values["api-sock"], () => {
  idleSince = performance.now();
});
