/** Firecracker's calls. "Before the start" is before `start` or `loadSnapshot`; a call at another time is refused by Firecracker. */
import type { Duplex } from "node:stream";
import { BangerError } from "../../contract/errors.ts";
import type {
  Action,
  Balloon,
  BootSource,
  CpuConfiguration,
  Drive,
  EntropyDevice,
  InstanceInfo,
  Logger,
  MachineConfiguration,
  Metrics,
  NetworkInterface,
  PartialDrive,
  SerialDevice,
  SnapshotCreate,
  SnapshotLoad,
  VmState,
  Vsock,
} from "./api-types.ts";
import { httpConnection } from "./http.ts";

/** All of them throw TOOL_FAILED, with Firecracker's own words where it refuses. */
export type FirecrackerApi = {
  /** At any time, and before any other call that makes a difference to the log. */
  putLogger(logger: Logger): Promise<void>;
  /** Before the start, once. */
  putMetrics(metrics: Metrics): Promise<void>;
  /** Before the start; again replaces. */
  putMachineConfiguration(configuration: MachineConfiguration): Promise<void>;
  /** Before the start; again replaces. */
  putCpuConfiguration(configuration: CpuConfiguration): Promise<void>;
  /** Before the start; again replaces. The files must be there. */
  putBootSource(source: BootSource): Promise<void>;
  /** Before the start; the order of first calls is the order of `vda`, `vdb`, …. The file must be there. */
  putDrive(drive: Drive): Promise<void>;
  /** After the start. The same path again makes a new size known to the guest. */
  patchDrive(drive: PartialDrive): Promise<void>;
  /** Before the start. The tap must be there. */
  putNetworkInterface(nic: NetworkInterface): Promise<void>;
  /** Before the start. Nothing may be at `uds_path`. */
  putVsock(vsock: Vsock): Promise<void>;
  /** Before the start. */
  putEntropy(device: EntropyDevice): Promise<void>;
  /** Before the start. */
  putBalloon(balloon: Balloon): Promise<void>;
  /** Before the start, and before a load too: the path is no part of a snapshot. */
  putSerial(device: SerialDevice): Promise<void>;
  /** `InstanceStart`: once, with a boot source. `FlushMetrics` and `SendCtrlAltDel`: after the start. */
  putAction(action: Action): Promise<void>;
  /** After the start. A state that it has already is no error. */
  patchVm(state: VmState): Promise<void>;
  /** After the start, paused. */
  createSnapshot(snapshot: SnapshotCreate): Promise<void>;
  /** In place of a start, after no other call but those for logger, metrics and serial. */
  loadSnapshot(snapshot: SnapshotLoad): Promise<void>;
  /** At any time. */
  describe(): Promise<InstanceInfo>;
  /** Resolves when the connection has ended, which it does with Firecracker. */
  readonly closed: Promise<void>;
  close(): void;
  /** Calls made so far. */
  readonly roundTrips: number;
};

export const firecrackerApi = (channel: Duplex): FirecrackerApi => {
  const http = httpConnection(channel);
  const call = async (method: "GET" | "PUT" | "PATCH", path: string, body?: unknown): Promise<string> => {
    const answer = await http.request(method, path, body);
    if (answer.status < 300) return answer.body;
    throw new BangerError("TOOL_FAILED", `Firecracker refused ${method} ${path}: ${faultOf(answer.body)}`, {
      details: { call: `${method} ${path}`, status: answer.status },
    });
  };
  const put =
    <Body>(path: (body: Body) => string) =>
    async (body: Body): Promise<void> =>
      void (await call("PUT", path(body), body));
  const patch =
    <Body>(path: (body: Body) => string) =>
    async (body: Body): Promise<void> =>
      void (await call("PATCH", path(body), body));
  return {
    putLogger: put(() => "/logger"),
    putMetrics: put(() => "/metrics"),
    putMachineConfiguration: put(() => "/machine-config"),
    putCpuConfiguration: put(() => "/cpu-config"),
    putBootSource: put(() => "/boot-source"),
    putDrive: put(({ drive_id }) => `/drives/${drive_id}`),
    patchDrive: patch(({ drive_id }) => `/drives/${drive_id}`),
    putNetworkInterface: put(({ iface_id }) => `/network-interfaces/${iface_id}`),
    putVsock: put(() => "/vsock"),
    putEntropy: put(() => "/entropy"),
    putBalloon: put(() => "/balloon"),
    putSerial: put(() => "/serial"),
    putAction: put(() => "/actions"),
    patchVm: patch(() => "/vm"),
    createSnapshot: put(() => "/snapshot/create"),
    loadSnapshot: put(() => "/snapshot/load"),
    describe: async () => JSON.parse(await call("GET", "/")) as InstanceInfo,
    closed: http.closed,
    close: http.close,
    get roundTrips() {
      return http.requests;
    },
  };
};

/** Firecracker's own words, or what it sent in their place. */
const faultOf = (body: string): string => {
  try {
    const { fault_message: fault } = JSON.parse(body) as { fault_message?: unknown };
    if (typeof fault === "string") return fault.trim().slice(0, 500);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return body.trim().slice(0, 200) || "(no reason given)";
};
