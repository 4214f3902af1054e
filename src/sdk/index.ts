/**
 * banger's public TypeScript API: all that the commands can do.
 *
 *   await using sandbox = await Sandbox.create({ memory: "2G" });
 *   const { exit, stdout } = await sandbox.exec(["uname", "-a"]);
 *
 * Sizes are bytes, times milliseconds since 1970. What fails throws a BangerError: `code` from a closed table, `message` what happened, `hint` what to do.
 */
export { BangerError, type ErrorCode } from "../contract/errors.ts";
export type { DaemonStatus, OperationInfo } from "../contract/api.ts";
export type { ImageInfo } from "../contract/images.ts";
export type { KernelInfo } from "../contract/kernels.ts";
export type { ProgressEvent } from "../contract/progress.ts";
export type { Publish, Published } from "../contract/published.ts";
export type { SecretInfo } from "../contract/secrets.ts";
export type { SnapshotInfo } from "../contract/snapshots.ts";
export type { ExecResult, GuestFileStat, GuestPort, PublishResult, SetResult, Vm, VmStats } from "../contract/vms.ts";
export { daemon } from "./daemon.ts";
export { images, templates } from "./images.ts";
export { kernels } from "./kernels.ts";
export { Sandbox } from "./sandbox.ts";
export { snapshots } from "./snapshots.ts";
export type * from "./types.ts";
