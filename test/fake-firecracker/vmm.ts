/** The stand-in's state: what each call does, and why it may be refused. */
import { access, appendFile, readFile, stat, truncate, writeFile } from "node:fs/promises";
import type { FakeGuest } from "./guest.ts";
import type { FakeMachine, GuestMachine } from "./machine.ts";

export type Body = Record<string, unknown>;
type Snapshot = {
  version: string;
  drives: Body[];
  vsock: Body | undefined;
  memory: number;
  /** Of a whole guest. */
  vcpu?: number;
  devices?: string;
};

export class Refused extends Error {}

const mustBeThere = async (what: string, path: unknown): Promise<void> => {
  try {
    await access(String(path));
  } catch {
    throw new Refused(`${what}: No such file or directory (os error 2) ${String(path)}`);
  }
};

export const fakeVmm = (version: string, guest: FakeGuest, machine: GuestMachine | undefined) => {
  let state: "Not started" | "Running" | "Paused" = "Not started";
  /** A call was made after which no snapshot is loaded. */
  let bootPath = false;
  let source: Body | undefined;
  let memory = 128;
  let vcpu = 1;
  let vsock: Body | undefined;
  const drives = new Map<unknown, Body>();
  let metrics: Body | undefined;
  let serial: string | undefined;

  /** A line of metrics: what was added since the last one, and what nobody reads beside it. */
  const tell = async () => {
    const told = {
      utc_timestamp_ms: Date.now(),
      block: { read_bytes: 7, write_bytes: 7 },
      block_disk1: { read_bytes: 4096, write_bytes: 512 },
      net_net0: { rx_bytes_count: 60, tx_bytes_count: 42 },
    };
    await appendFile(String(metrics?.metrics_path), `${JSON.stringify(told)}\n`);
  };

  const listen = async (body: Body) => {
    try {
      await guest.listen(String(body.uds_path));
    } catch (error) {
      throw new Refused(`Cannot create backend for vsock device: Error binding to the host-side Unix socket: ${error}`);
    }
    vsock = body;
  };

  const configured = (): FakeMachine => ({
    vcpu,
    memory,
    serial,
    kernel: String(source?.kernel_image_path),
    initramfs: String(source?.initrd_path),
    drives: [...drives.values()].map((drive) => ({
      path: String(drive.path_on_host),
      readonly: drive.is_read_only === true,
    })),
  });

  const save = async (body: Body): Promise<void> => {
    if (state !== "Paused") throw new Refused("Create snapshot error: save is not allowed unless the VM is paused");
    const file = String(body.mem_file_path);
    const devices = await machine?.save(file);
    const snapshot: Snapshot = {
      version,
      drives: [...drives.values()],
      vsock,
      memory,
      vcpu,
      ...(devices ? { devices } : {}),
    };
    await writeFile(String(body.snapshot_path), JSON.stringify(snapshot));
    if (machine) {
      guest.cutConnections();
      return;
    }
    // A diff is written over what is there.
    await writeFile(file, `memory of ${version}`, { flag: body.snapshot_type === "Diff" ? "a" : "w" });
    await truncate(file, memory * 2 ** 20);
    guest.cutConnections();
  };

  const load = async (body: Body): Promise<void> => {
    const failed = "Load snapshot error: Failed to restore from snapshot";
    if (bootPath)
      throw new Refused(
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.",
      );
    const backend = body.mem_backend as Body | undefined;
    if ((backend === undefined) === (body.mem_file_path === undefined))
      throw new Refused("missing field: either `mem_backend` or `mem_file_path` is required");
    await mustBeThere(`${failed}: snapshot file`, body.snapshot_path);
    let snapshot: Snapshot;
    try {
      snapshot = JSON.parse(await readFile(String(body.snapshot_path), "utf8")) as Snapshot;
    } catch {
      throw new Refused(`${failed}: Failed to get snapshot state from file: CRC64 validation failed`);
    }
    if (snapshot.version !== version)
      throw new Refused(
        `${failed}: Failed to get snapshot state from file: Data version (${snapshot.version}) is incompatible`,
      );
    const memoryFile = backend?.backend_path ?? body.mem_file_path;
    await mustBeThere(`${failed}: memory file`, memoryFile);
    if ((await stat(String(memoryFile))).size !== snapshot.memory * 2 ** 20)
      throw new Refused(`${failed}: memory file is too short`);
    for (const drive of snapshot.drives) {
      await mustBeThere(`${failed}: Error manipulating the backing file`, drive.path_on_host);
      drives.set(drive.drive_id, drive);
    }
    if (snapshot.vsock) await listen({ ...snapshot.vsock, ...(body.vsock_override as Body | undefined) });
    memory = snapshot.memory;
    vcpu = snapshot.vcpu ?? vcpu;
    const { devices } = snapshot;
    if (machine && devices !== undefined)
      await machine.start(configured(), () => undefined, { devices, memory: String(memoryFile) });
    state = body.resume_vm === true ? "Running" : "Paused";
    guest.goOn();
  };

  const configure = async (call: string, body: Body): Promise<void> => {
    if (call === "PUT /metrics") {
      if (metrics) throw new Refused("Metrics system already initialized");
      await mustBeThere("Cannot initialize the metrics system", body.metrics_path);
      metrics = body;
      return;
    }
    if (call === "PUT /serial") {
      serial = body.serial_out_path === "/dev/null" ? undefined : String(body.serial_out_path);
      if (serial !== undefined) await mustBeThere("The serial line cannot be opened", serial);
      return;
    }
    if (call === "PUT /cpu-config") return;
    bootPath = true;
    if (call === "PUT /machine-config") {
      memory = Number(body.mem_size_mib);
      vcpu = Number(body.vcpu_count);
    }
    if (call === "PUT /boot-source") {
      await mustBeThere("The kernel file cannot be opened", body.kernel_image_path);
      if (body.initrd_path !== undefined) await mustBeThere("The initrd file cannot be opened", body.initrd_path);
      source = body;
    }
    if (call === "PUT /drives/{drive_id}") {
      if (body.path_on_host === undefined || body.is_read_only === undefined) throw new Refused("drive: missing field");
      await mustBeThere("Unable to open or create the block device", body.path_on_host);
      drives.set(body.drive_id, body);
    }
    if (call === "PUT /vsock") await listen(body);
  };

  return {
    started: () => state !== "Not started",
    info: () => ({ app_name: "Firecracker", id: "fake", state, vmm_version: version }),
    /** What a guest is started with. */
    configured,
    /** @returns whether the guest has just started from nothing */
    handle: async (call: string, body: Body): Promise<boolean> => {
      if (call === "PUT /actions" && body.action_type !== "InstanceStart") {
        if (state === "Not started")
          throw new Refused("The requested operation is not supported before starting the microVM.");
        if (body.action_type === "FlushMetrics") await tell();
        return false;
      }
      if (call === "PUT /actions") {
        if (state !== "Not started")
          throw new Refused("The requested operation is not supported after starting the microVM.");
        if (!source) throw new Refused("Cannot start microvm without kernel configuration.");
        state = "Running";
        return true;
      }
      if (call === "PATCH /vm") {
        await (body.state === "Paused" ? machine?.pause() : machine?.resume());
        state = body.state === "Paused" ? "Paused" : "Running";
      } else if (call === "PATCH /drives/{drive_id}") {
        const drive = drives.get(body.drive_id);
        if (!drive) throw new Refused("Unable to patch the block device: no such drive");
        await mustBeThere("Unable to patch the block device", body.path_on_host ?? drive.path_on_host);
        await machine?.grown([...drives.keys()].indexOf(body.drive_id));
      } else if (call === "PUT /snapshot/create") await save(body);
      else if (call === "PUT /snapshot/load") await load(body);
      else if (call.startsWith("PUT ")) await configure(call, body);
      return false;
    },
  };
};
