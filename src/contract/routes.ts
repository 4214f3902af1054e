/**
 * Method and path of every endpoint, and the names both sides use on the wire. Apart from api.ts, so that a client needs no schema
 * library to make a call: loading one costs more than the call.
 */

export const API_VERSION = 1;
/** Upgrade token of a `stream` endpoint. */
export const STREAM_PROTOCOL = "banger-stream";
/** Header that names the build of the sender, in both directions. */
export const BUILD_HEADER = "banger-build";

export type Route = {
  kind: "json" | "operation" | "stream";
  method: "GET" | "POST" | "DELETE";
  /** `:name` parts are path parameters. */
  path: string;
};

export const routes = {
  status: { kind: "json", method: "GET", path: "/v1/status" },
  shutdown: { kind: "json", method: "POST", path: "/v1/shutdown" },
  operations: { kind: "json", method: "GET", path: "/v1/operations" },
  cancel: { kind: "json", method: "DELETE", path: "/v1/operations/:id" },

  vmList: { kind: "json", method: "GET", path: "/v1/vms" },
  vmShow: { kind: "json", method: "GET", path: "/v1/vms/:vm" },
  vmCreate: { kind: "operation", method: "POST", path: "/v1/vms" },
  vmStart: { kind: "operation", method: "POST", path: "/v1/vms/:vm/start" },
  vmStop: { kind: "operation", method: "POST", path: "/v1/vms/:vm/stop" },
  vmRestart: { kind: "operation", method: "POST", path: "/v1/vms/:vm/restart" },
  vmSet: { kind: "operation", method: "POST", path: "/v1/vms/:vm/set" },
  vmKill: { kind: "operation", method: "POST", path: "/v1/vms/:vm/kill" },
  vmDelete: { kind: "operation", method: "DELETE", path: "/v1/vms/:vm" },
  vmRun: { kind: "stream", method: "POST", path: "/v1/run" },
  vmExec: { kind: "stream", method: "POST", path: "/v1/vms/:vm/exec" },
  vmDial: { kind: "stream", method: "POST", path: "/v1/vms/:vm/dial" },
  vmFile: { kind: "stream", method: "POST", path: "/v1/vms/:vm/file" },
  vmPause: { kind: "operation", method: "POST", path: "/v1/vms/:vm/pause" },
  vmResume: { kind: "operation", method: "POST", path: "/v1/vms/:vm/resume" },
  vmSleep: { kind: "operation", method: "POST", path: "/v1/vms/:vm/sleep" },
  vmSnapshot: { kind: "operation", method: "POST", path: "/v1/vms/:vm/snapshot" },
  vmFork: { kind: "operation", method: "POST", path: "/v1/vms/:vm/fork" },
  snapshotList: { kind: "json", method: "GET", path: "/v1/snapshots" },
  snapshotShow: { kind: "json", method: "GET", path: "/v1/snapshots/:name" },
  snapshotRestore: { kind: "operation", method: "POST", path: "/v1/snapshots/:name/restore" },
  snapshotExport: { kind: "operation", method: "POST", path: "/v1/snapshots/:name/export" },
  snapshotImport: { kind: "operation", method: "POST", path: "/v1/snapshots" },
  snapshotDelete: { kind: "operation", method: "DELETE", path: "/v1/snapshots/:name" },
  vmNet: { kind: "json", method: "POST", path: "/v1/vms/:vm/net" },
  vmSecrets: { kind: "json", method: "GET", path: "/v1/vms/:vm/secrets" },
  vmSecretsChange: { kind: "json", method: "POST", path: "/v1/vms/:vm/secrets" },
  vmPublish: { kind: "json", method: "POST", path: "/v1/vms/:vm/publish" },
  vmUnpublish: { kind: "json", method: "POST", path: "/v1/vms/:vm/unpublish" },
  vmPorts: { kind: "json", method: "GET", path: "/v1/vms/:vm/ports" },
  vmStats: { kind: "stream", method: "POST", path: "/v1/stats" },
  vmWatch: { kind: "stream", method: "POST", path: "/v1/watch" },
  vmLogs: { kind: "stream", method: "POST", path: "/v1/vms/:vm/logs" },

  imageList: { kind: "json", method: "GET", path: "/v1/images" },
  imageAvailable: { kind: "json", method: "GET", path: "/v1/catalog/images" },
  imageShow: { kind: "json", method: "GET", path: "/v1/images/:name" },
  imagePull: { kind: "operation", method: "POST", path: "/v1/images" },
  imageImport: { kind: "stream", method: "POST", path: "/v1/import" },
  imageRegister: { kind: "operation", method: "POST", path: "/v1/register" },
  imagePromote: { kind: "operation", method: "POST", path: "/v1/images/:name/promote" },
  imagePrune: { kind: "operation", method: "POST", path: "/v1/images/prune" },
  imageWarm: { kind: "operation", method: "POST", path: "/v1/templates" },
  templateList: { kind: "json", method: "GET", path: "/v1/templates" },
  templateClear: { kind: "operation", method: "DELETE", path: "/v1/templates" },
  imageExport: { kind: "operation", method: "POST", path: "/v1/images/:name/export" },
  imageDelete: { kind: "operation", method: "DELETE", path: "/v1/images/:name" },
  kernelList: { kind: "json", method: "GET", path: "/v1/kernels" },
  kernelAvailable: { kind: "json", method: "GET", path: "/v1/catalog/kernels" },
  kernelShow: { kind: "json", method: "GET", path: "/v1/kernels/:name" },
  kernelPull: { kind: "operation", method: "POST", path: "/v1/kernels" },
  kernelImport: { kind: "operation", method: "POST", path: "/v1/kernels/import" },
  kernelExport: { kind: "operation", method: "POST", path: "/v1/kernels/:name/export" },
  kernelDelete: { kind: "operation", method: "DELETE", path: "/v1/kernels/:name" },
} as const satisfies Record<string, Route>;
