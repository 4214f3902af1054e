/**
 * Pulls one kernel or image in a process of its own, as the daemon would: build-worker.ts kernel|image NAME [options as JSON].
 * Writes a line of JSON for each progress, and last `{"result": …}` or `{"error": …}`. SIGTERM cancels.
 * `clean` in place of a kind removes what dead builds left in staging.
 */
import { toErrorBody } from "../../src/contract/errors.ts";
import type { ProgressEvent } from "../../src/contract/progress.ts";
import { cleanStaging } from "../../src/daemon/artifacts/staging.ts";
import { imageService } from "../../src/daemon/images/service.ts";
import { kernelService } from "../../src/daemon/kernels/service.ts";

const [kind, name = "", options = "{}"] = process.argv.slice(2);
const { cancelAt, ...service }: { cancelAt?: string; debianMirror?: string } = JSON.parse(options);
const controller = new AbortController();
process.on("SIGTERM", () => controller.abort());
const say = (line: unknown) => process.stdout.write(`${JSON.stringify(line)}\n`);
const progress = {
  signal: controller.signal,
  report: (event: ProgressEvent) => {
    say(event);
    if (event.stage === cancelAt) controller.abort();
  },
};

try {
  if (kind === "clean") say({ result: await cleanStaging() });
  else if (kind === "kernel") say({ result: await kernelService(service).pull({ name }, progress) });
  else say({ result: await imageService(service).pull({ name }, () => [], progress) });
} catch (error) {
  say({ error: toErrorBody(error) });
  process.exitCode = 1;
}
