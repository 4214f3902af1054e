/** Which banger this is: both values are set in a release by the build (scripts/build.ts), the same for CLI and daemon. */

export const version = (): string => process.env.BANGER_VERSION ?? "0.0.0-source";

/** A daemon of another build is replaced. From source it is always the same: restart it by hand after a change. */
export const buildId = (): string => process.env.BANGER_BUILD_ID ?? "source";
