/** Long work of the daemon with progress on stderr and Ctrl-C to cancel it. */
import type { ParamsOf, RequestOf, ResultOf } from "../contract/api.ts";
import type { Client, OperationName } from "../client/client.ts";
import { interruptible } from "./interrupt.ts";
import { progressDisplay } from "./render/progress.ts";

/** @throws the daemon's error; CANCELLED after Ctrl-C, when all is undone */
export const runOperation = async <N extends OperationName>(
  client: Client,
  name: N,
  params: ParamsOf<N>,
  request: RequestOf<N>,
): Promise<ResultOf<N>> => {
  using interrupt = interruptible();
  using display = progressDisplay();
  return await client.operation(name, params, request, { signal: interrupt.signal, report: display.report });
};
