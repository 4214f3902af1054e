/** Kernels of the public TypeScript API. */
import type { Available } from "../contract/images.ts";
import type { KernelInfo } from "../contract/kernels.ts";
import type { RequestOf } from "../contract/api.ts";
import { resolve } from "node:path";
import { dockerConfigFile } from "../host/paths.ts";
import { given, progressOf, withClient } from "./client.ts";
import type { WorkOptions } from "./types.ts";

export const kernels = {
  /** Those that are installed. */
  list: (): Promise<KernelInfo[]> => withClient((client) => client.call("kernelList", {}, {})),
  /** Those of the catalogs. */
  available: (): Promise<Available[]> => withClient((client) => client.call("kernelAvailable", {}, {})),
  /** @throws KERNEL_NOT_FOUND */
  show: (name: string): Promise<KernelInfo> => withClient((client) => client.call("kernelShow", { name }, {})),
  /**
   * @param options reference: the image of a registry whose kernel is to be called `name`; absent: `name` is of a catalog
   * @throws KERNEL_NOT_FOUND, KERNEL_EXISTS, and what its source says
   */
  pull: (name: string, { reference, ...options }: WorkOptions & { reference?: string } = {}): Promise<KernelInfo> =>
    withClient((client) => {
      const request = { name, ...given({ reference }), dockerConfig: dockerConfigFile() };
      return client.operation("kernelPull", {}, request, progressOf(options));
    }),
  /** A kernel of a file, a folder or a bundle of the host. Paths are absolute. */
  import: (request: RequestOf<"kernelImport">, options: WorkOptions = {}): Promise<KernelInfo> =>
    withClient((client) => client.operation("kernelImport", {}, request, progressOf(options))),
  /**
   * Writes a bundle.
   * @param folder where it goes
   * @returns its path, and its entry for a catalog
   */
  export: (name: string, folder: string, options: WorkOptions = {}) =>
    withClient((client) =>
      client.operation("kernelExport", { name }, { folder: resolve(folder) }, progressOf(options)),
    ),
  /** @throws KERNEL_NOT_FOUND, KERNEL_IN_USE */
  delete: async (name: string): Promise<void> =>
    void (await withClient((client) => client.operation("kernelDelete", { name }, {}))),
} as const;
