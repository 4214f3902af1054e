/**
 * The API as data: what daemon and client agree on. HTTP/1.1 with JSON over the daemon's unix socket.
 *
 * - `json`: one answer.
 * - `operation`: long work. The answer is lines of JSON: `{operation}`, then `{progress}` as it comes, last `{result}` or `{error}`.
 * - `stream`: the connection is upgraded to frames (frames.ts). The client sends OPEN with the request, then DATA, END, CONTROL; the daemon sends
 *   EVENT (`{operation}`, `{progress}` or `{vm}`), OPENED, DATA, and CLOSE last, with `{ok}`, `{exit}`, `{signal}` or `{error}`.
 */
import * as z from "zod/mini";
import type { ErrorBody } from "./errors.ts";
import {
  imageCatalogEntrySchema,
  imageInfoSchema,
  importImageSchema,
  prunedImagesSchema,
  pullImageSchema,
  pruneImagesSchema,
  registerImageSchema,
} from "./images.ts";
import { importKernelSchema, kernelCatalogEntrySchema, kernelInfoSchema, pullKernelSchema } from "./kernels.ts";
import { netRequestSchema } from "./network.ts";
import type { ProgressEvent } from "./progress.ts";
import { type Route, routes } from "./routes.ts";
import { secretInfoSchema, secretsRequestSchema } from "./secrets.ts";
import {
  forkRequestSchema,
  forkResultSchema,
  restoreRequestSchema,
  exportedSnapshotSchema,
  exportSnapshotSchema,
  importSnapshotSchema,
  snapshotInfoSchema,
  snapshotRequestSchema,
  snapshotResultSchema,
} from "./snapshots.ts";
import { templateInfoSchema, warmSchema } from "./templates.ts";
import {
  createVmSchema,
  dialSchema,
  execSchema,
  fileRequestSchema,
  portSchema,
  publishRequestSchema,
  publishResultSchema,
  runSchema,
  setResultSchema,
  setVmSchema,
  statsRequestSchema,
  unpublishRequestSchema,
  vmSchema,
} from "./vms.ts";

export { API_VERSION, BUILD_HEADER, STREAM_PROTOCOL } from "./routes.ts";

type Schema = z.ZodMiniType;
type Endpoint = Route & {
  /** Of the JSON body, or of OPEN. */
  request: Schema;
  /** Of the answer, the operation's result or the stream's `{ok}`. */
  result: Schema;
};

const nothing = z.strictObject({});
const startRequest = z.strictObject({ force: z.optional(z.boolean()) });
const stopRequest = z.strictObject({ timeout: z.optional(z.number().check(z.int(), z.positive())) });

const offeredSchema = z.object({ address: z.string(), problem: z.optional(z.string()) });

export const daemonStatusSchema = z.object({
  version: z.string(),
  build: z.string(),
  pid: z.number(),
  startedAt: z.number(),
  socket: z.string(),
  /** Resident memory of the daemon in bytes. */
  memory: z.number(),
  vms: z.number(),
  running: z.number(),
  /** Where names below .vm are answered, and VMs' web servers reached by name; `problem`: why they are not. */
  dns: z.optional(offeredSchema),
  web: z.optional(offeredSchema),
});
export type DaemonStatus = z.infer<typeof daemonStatusSchema>;

export const operationSchema = z.object({ id: z.string(), what: z.string(), startedAt: z.number() });
export type OperationInfo = z.infer<typeof operationSchema>;

const catalogEntry = z.object({ name: z.string(), description: z.string(), installed: z.boolean() });

export const api = {
  status: { ...routes.status, request: nothing, result: daemonStatusSchema },
  shutdown: { ...routes.shutdown, request: nothing, result: nothing },
  operations: { ...routes.operations, request: nothing, result: z.array(operationSchema) },
  cancel: { ...routes.cancel, request: nothing, result: nothing },

  vmList: { ...routes.vmList, request: nothing, result: z.array(vmSchema) },
  vmShow: { ...routes.vmShow, request: nothing, result: vmSchema },
  vmCreate: { ...routes.vmCreate, request: createVmSchema, result: vmSchema },
  /** `force`: also where the host has hardly enough memory for it. */
  vmStart: { ...routes.vmStart, request: startRequest, result: vmSchema },
  /** `timeout`: how long the guest may take to shut down before its VMM is ended, in ms. */
  vmStop: { ...routes.vmStop, request: stopRequest, result: vmSchema },
  /** Stop and start, so that the guest boots anew; a stopped VM is started. */
  vmRestart: { ...routes.vmRestart, request: stopRequest, result: vmSchema },
  vmSet: { ...routes.vmSet, request: setVmSchema, result: setResultSchema },
  vmKill: {
    ...routes.vmKill,
    request: z.strictObject({ signal: z.optional(z.string()) }),
    result: vmSchema,
  },
  /** `ifStopped`: refused with VM_WRONG_STATE when the VM is not stopped at that moment. */
  vmDelete: { ...routes.vmDelete, request: z.strictObject({ ifStopped: z.optional(z.boolean()) }), result: vmSchema },
  /** Run: the VM is created and started, then `exec` runs in it. An ephemeral VM is gone before CLOSE. */
  vmRun: { ...routes.vmRun, request: runSchema, result: nothing },
  vmExec: { ...routes.vmExec, request: execSchema, result: nothing },
  vmDial: { ...routes.vmDial, request: dialSchema, result: nothing },
  vmFile: { ...routes.vmFile, request: fileRequestSchema, result: z.any() },
  vmPause: { ...routes.vmPause, request: nothing, result: vmSchema },
  vmResume: { ...routes.vmResume, request: nothing, result: vmSchema },
  vmSleep: { ...routes.vmSleep, request: nothing, result: vmSchema },
  vmSnapshot: { ...routes.vmSnapshot, request: snapshotRequestSchema, result: snapshotResultSchema },
  vmFork: { ...routes.vmFork, request: forkRequestSchema, result: forkResultSchema },
  snapshotList: { ...routes.snapshotList, request: nothing, result: z.array(snapshotInfoSchema) },
  snapshotShow: { ...routes.snapshotShow, request: nothing, result: snapshotInfoSchema },
  snapshotRestore: { ...routes.snapshotRestore, request: restoreRequestSchema, result: vmSchema },
  snapshotExport: { ...routes.snapshotExport, request: exportSnapshotSchema, result: exportedSnapshotSchema },
  snapshotImport: { ...routes.snapshotImport, request: importSnapshotSchema, result: snapshotInfoSchema },
  snapshotDelete: { ...routes.snapshotDelete, request: nothing, result: nothing },
  vmNet: { ...routes.vmNet, request: netRequestSchema, result: vmSchema },
  vmSecrets: { ...routes.vmSecrets, request: nothing, result: z.array(secretInfoSchema) },
  vmSecretsChange: { ...routes.vmSecretsChange, request: secretsRequestSchema, result: z.array(secretInfoSchema) },
  vmPublish: { ...routes.vmPublish, request: publishRequestSchema, result: publishResultSchema },
  vmUnpublish: { ...routes.vmUnpublish, request: unpublishRequestSchema, result: vmSchema },
  vmPorts: { ...routes.vmPorts, request: nothing, result: z.array(portSchema) },
  /** Lines of JSON on channel 0, a StatsLine each. */
  vmStats: { ...routes.vmStats, request: statsRequestSchema, result: nothing },
  /** Lines of JSON on channel 0, a VmWatchLine each, until the client goes away. */
  vmWatch: { ...routes.vmWatch, request: nothing, result: nothing },
  /** `since`: only what was written from then on, in ms since 1970. */
  vmLogs: {
    ...routes.vmLogs,
    request: z.strictObject({ follow: z.boolean(), since: z.optional(z.number()) }),
    result: nothing,
  },

  imageList: { ...routes.imageList, request: nothing, result: z.array(imageInfoSchema) },
  imageAvailable: { ...routes.imageAvailable, request: nothing, result: z.array(catalogEntry) },
  imageShow: { ...routes.imageShow, request: nothing, result: imageInfoSchema },
  imagePull: { ...routes.imagePull, request: pullImageSchema, result: imageInfoSchema },
  imageImport: { ...routes.imageImport, request: importImageSchema, result: imageInfoSchema },
  imageRegister: { ...routes.imageRegister, request: registerImageSchema, result: imageInfoSchema },
  imagePromote: { ...routes.imagePromote, request: nothing, result: imageInfoSchema },
  imagePrune: { ...routes.imagePrune, request: pruneImagesSchema, result: prunedImagesSchema },
  /** Makes the template for VMs of this shape, or finds the one that is there. */
  imageWarm: { ...routes.imageWarm, request: warmSchema, result: templateInfoSchema },
  templateList: { ...routes.templateList, request: nothing, result: z.array(templateInfoSchema) },
  /** All, or those of one image. */
  templateClear: {
    ...routes.templateClear,
    request: z.strictObject({ image: z.optional(z.string()) }),
    result: z.object({ removed: z.number() }),
  },
  /** `folder`: where the bundle goes, absolute. */
  imageExport: {
    ...routes.imageExport,
    request: z.strictObject({ folder: z.string() }),
    result: z.object({ path: z.string(), entry: imageCatalogEntrySchema }),
  },
  imageDelete: { ...routes.imageDelete, request: nothing, result: nothing },
  kernelList: { ...routes.kernelList, request: nothing, result: z.array(kernelInfoSchema) },
  kernelAvailable: { ...routes.kernelAvailable, request: nothing, result: z.array(catalogEntry) },
  kernelShow: { ...routes.kernelShow, request: nothing, result: kernelInfoSchema },
  kernelPull: { ...routes.kernelPull, request: pullKernelSchema, result: kernelInfoSchema },
  kernelImport: { ...routes.kernelImport, request: importKernelSchema, result: kernelInfoSchema },
  /** `folder`: where the bundle goes, absolute. */
  kernelExport: {
    ...routes.kernelExport,
    request: z.strictObject({ folder: z.string() }),
    result: z.object({ path: z.string(), entry: kernelCatalogEntrySchema }),
  },
  kernelDelete: { ...routes.kernelDelete, request: nothing, result: nothing },
} as const satisfies Record<string, Endpoint>;

export type Api = typeof api;
export type ApiName = keyof Api;
export type EndpointsOf<K extends Endpoint["kind"]> = { [N in ApiName]: Api[N]["kind"] extends K ? N : never }[ApiName];
export type RequestOf<N extends ApiName> = z.infer<Api[N]["request"]>;
export type ResultOf<N extends ApiName> = z.infer<Api[N]["result"]>;

type PathKeys<P extends string> = P extends `${string}:${infer Key}/${infer Rest}`
  ? Key | PathKeys<Rest>
  : P extends `${string}:${infer Key}`
    ? Key
    : never;
/** The path parameters of an endpoint: `{ vm: "box" }`. */
export type ParamsOf<N extends ApiName> = Record<PathKeys<Api[N]["path"]>, string>;

/** One line of an operation's answer. */
export type OperationLine =
  | { operation: OperationInfo }
  | { progress: ProgressEvent }
  | { result: unknown }
  | { error: ErrorBody };
