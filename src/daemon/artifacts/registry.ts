/** Registries as images and kernels are pulled from them: with the settings of the daemon and the credentials of whoever asks. */
import type { Progress } from "../../contract/progress.ts";
import type { BlobCache } from "../../oci/blob-cache.ts";
import type { FoundImage } from "../../oci/image.ts";
import { hostPlatform } from "../../oci/manifest.ts";
import { checkReference, type Reference } from "../../oci/reference.ts";
import { registryClient, type RegistryOptions } from "../../oci/registry/client.ts";
import { dockerCredentials } from "../../oci/registry/docker-config.ts";
import { findManifest, openRegistryImage } from "../../oci/sources/registry.ts";

export type RegistryAccess = {
  /** How registries are reached; read at each use. */
  options: RegistryOptions | undefined;
  cache: BlobCache;
  /** Docker's config file of whoever asks; absent: the daemon's own. */
  dockerConfig: string | undefined;
};

const optionsOf = ({ options = {}, dockerConfig }: RegistryAccess): RegistryOptions =>
  dockerConfig === undefined ? options : { ...options, credentials: dockerCredentials(dockerConfig) };

/**
 * Finds an image of a registry and begins to download it.
 * @throws IMAGE_NOT_FOUND, IMAGE_PLATFORM, IMAGE_REFUSED, REGISTRY_…
 */
export const openFromRegistry = async (
  reference: string,
  access: RegistryAccess,
  progress: Progress,
): Promise<{ reference: Reference; image: FoundImage }> => {
  const parsed = checkReference(reference);
  const options = optionsOf(access);
  const registry = registryClient(options);
  const platform = hostPlatform;
  const image = await openRegistryImage(parsed, { ...options, registry, cache: access.cache, platform }, progress);
  return { reference: parsed, image };
};

/**
 * The digest of the manifest that a reference stands for at this moment, on this machine's platform.
 * @throws as `openFromRegistry`
 */
export const digestInRegistry = async (
  reference: string,
  access: RegistryAccess,
  progress: Progress,
): Promise<string> => {
  const parsed = checkReference(reference);
  progress.report({ stage: "look up", message: parsed.name });
  const { digest } = await findManifest(parsed, registryClient(optionsOf(access)), hostPlatform, progress.signal);
  return digest;
};
