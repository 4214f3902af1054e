/** Imports one OCI layout in a process of its own, as the daemon would: convert-worker.ts LAYOUT. Prints ms and the peak of its memory. */
import { readFile } from "node:fs/promises";
import { PassThrough } from "node:stream";
import { silentProgress } from "../src/contract/progress.ts";
import { imageService } from "../src/daemon/images/service.ts";
import { imageFiles } from "../src/host/paths.ts";

const [layout = ""] = process.argv.slice(2);
const start = performance.now();
await imageService().importImage({ path: layout, name: "bench" }, new PassThrough().end(), silentProgress());
const ms = performance.now() - start;
// Not resourceUsage: that of a child begins with what its parent had.
const peakMiB = Number(/^VmHWM:\s*(\d+) kB/m.exec(await readFile("/proc/self/status", "utf8"))?.[1]) / 1024;
process.stdout.write(`${JSON.stringify({ ms, peakMiB, rootfs: imageFiles("bench").rootfs })}\n`);
